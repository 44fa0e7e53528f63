//! Manifests and tags of a repository. A manifest stands only with every blob it needs linked beside
//! it: the constraint keeps those links as long as it does.

use model::{Digest, Error, ManifestReference, RepositoryId, Result};
use serde_json::Value;
use sqlx::types::Json;

use crate::{
    ProjectTx, on_constraint, store_error,
    stored::{number, parsed},
};

/// Manifests a repository may hold.
const MANIFESTS_PER_REPOSITORY: i64 = 100_000;

/// A manifest as it was pushed.
#[derive(Clone, Debug)]
pub struct ManifestRow {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its length.
    pub size_bytes: u64,
    /// Its bytes; empty if they were not asked for.
    pub content: Vec<u8>,
}

/// A manifest to keep.
#[derive(Clone, Debug)]
pub struct NewManifest<'a> {
    /// Digest of `content`.
    pub digest: &'a Digest,
    /// Its media type.
    pub media_type: &'a str,
    /// Its bytes.
    pub content: &'a [u8],
    /// The manifest it is about.
    pub subject: Option<&'a Digest>,
    /// For lists of referrers.
    pub artifact_type: Option<&'a str>,
    /// For lists of referrers.
    pub annotations: Option<&'a Value>,
    /// Blobs that must be linked.
    pub blobs: &'a [Digest],
}

impl ProjectTx {
    /// A manifest by tag or digest, its bytes only if `whole`.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn manifest(
        &mut self,
        repository: RepositoryId,
        reference: &ManifestReference,
        whole: bool,
    ) -> Result<Option<ManifestRow>> {
        let (tag, digest) = match reference {
            ManifestReference::Tag(tag) => (Some(tag.as_str()), None),
            ManifestReference::Digest(digest) => (None, Some(digest.as_str())),
        };
        let row = sqlx::query!(
            r#"SELECT digest, media_type, octet_length(content) AS "size!",
                      CASE WHEN $5 THEN content ELSE ''::bytea END AS "content!"
               FROM repository_manifests
               WHERE project_id = $1 AND repository_id = $2 AND digest = coalesce($4,
                   (SELECT t.digest FROM repository_tags t WHERE t.repository_id = $2 AND t.name = $3))"#,
            self.project.0,
            repository.0,
            tag,
            digest,
            whole
        )
        .fetch_optional(self.connection())
        .await
        .map_err(store_error)?;
        row.map(|row| {
            Ok(ManifestRow {
                digest: parsed(&row.digest)?,
                media_type: row.media_type,
                size_bytes: number(row.size)?,
                content: row.content,
            })
        })
        .transpose()
    }

    /// Which of these manifests the repository holds.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn manifests_held(&mut self, repository: RepositoryId, digests: &[Digest]) -> Result<Vec<Digest>> {
        let asked: Vec<String> = digests.iter().map(ToString::to_string).collect();
        let held = sqlx::query_scalar!(
            "SELECT digest FROM repository_manifests WHERE project_id = $1 AND repository_id = $2 AND digest = ANY($3)",
            self.project.0,
            repository.0,
            &asked
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        held.iter().map(|digest| parsed(digest)).collect()
    }

    /// Keeps a manifest, and names it.
    ///
    /// # Errors
    /// `Conflict` if a blob it needs is not linked (any more), `LimitExceeded` for one too many.
    pub async fn put_manifest(
        &mut self,
        repository: RepositoryId,
        new: &NewManifest<'_>,
        tag: Option<&str>,
    ) -> Result<()> {
        let project = self.project.0;
        let kept = sqlx::query!(
            "INSERT INTO repository_manifests
                 (repository_id, project_id, digest, media_type, content, subject, artifact_type, annotations)
             SELECT $1, $2, $3, $4, $5, $6, $7, $8
             WHERE (SELECT count(*) FROM repository_manifests WHERE repository_id = $1) < $9
             ON CONFLICT (repository_id, digest) DO UPDATE SET media_type = excluded.media_type, pushed_at = now()",
            repository.0,
            project,
            new.digest.as_str(),
            new.media_type,
            new.content,
            new.subject.map(Digest::as_str),
            new.artifact_type,
            new.annotations.map(Json) as Option<Json<&Value>>,
            MANIFESTS_PER_REPOSITORY
        )
        .execute(self.connection())
        .await
        .map_err(store_error)?
        .rows_affected();
        if kept == 0 {
            let text = format!("the repository has {MANIFESTS_PER_REPOSITORY} manifests; delete some");
            return Err(Error::LimitExceeded(text));
        }
        let needed: Vec<String> = new.blobs.iter().map(ToString::to_string).collect();
        sqlx::query!(
            "INSERT INTO repository_manifest_blobs (repository_id, project_id, manifest, digest)
             SELECT DISTINCT $1::uuid, $2::uuid, $3, digest FROM unnest($4::text[]) AS needed(digest)
             ON CONFLICT DO NOTHING",
            repository.0,
            project,
            new.digest.as_str(),
            &needed
        )
        .execute(self.connection())
        .await
        .map_err(on_constraint("repository_manifest_blobs_link_fkey", || {
            Error::Conflict("manifest references a manifest or blob unknown to registry".into())
        }))?;
        if let Some(tag) = tag {
            self.tag_manifest(repository, new.digest, tag).await?;
        }
        Ok(())
    }

    async fn tag_manifest(&mut self, repository: RepositoryId, digest: &Digest, tag: &str) -> Result<()> {
        let project = self.project.0;
        sqlx::query!(
            "INSERT INTO repository_tags (repository_id, project_id, name, digest) VALUES ($1, $2, $3, $4)
             ON CONFLICT (repository_id, name) DO UPDATE SET digest = excluded.digest, tagged_at = now()",
            repository.0,
            project,
            tag,
            digest.as_str()
        )
        .execute(self.connection())
        .await
        .map_err(store_error)?;
        Ok(())
    }

    /// Deletes a manifest with its tags, or a tag alone. `false`: it was not there.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn delete_manifest(&mut self, repository: RepositoryId, reference: &ManifestReference) -> Result<bool> {
        let project = self.project.0;
        let gone = match reference {
            ManifestReference::Digest(digest) => {
                sqlx::query!(
                    "DELETE FROM repository_manifests WHERE project_id = $1 AND repository_id = $2 AND digest = $3",
                    project,
                    repository.0,
                    digest.as_str()
                )
                .execute(self.connection())
                .await
            }
            ManifestReference::Tag(tag) => {
                sqlx::query!(
                    "DELETE FROM repository_tags WHERE project_id = $1 AND repository_id = $2 AND name = $3",
                    project,
                    repository.0,
                    tag
                )
                .execute(self.connection())
                .await
            }
        };
        Ok(gone.map_err(store_error)?.rows_affected() > 0)
    }

    /// A repository's tags after `after`, in order.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn repository_tags(&mut self, repository: RepositoryId, after: &str, limit: i64) -> Result<Vec<String>> {
        sqlx::query_scalar!(
            "SELECT name FROM repository_tags WHERE project_id = $1 AND repository_id = $2 AND name > $3
             ORDER BY name LIMIT $4",
            self.project.0,
            repository.0,
            after,
            limit
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)
    }
}
