//! Links: the digests that may be read through a repository.

use std::{collections::HashMap, time::Duration};

use model::{Digest, Error, RepositoryId, Result};

use crate::{
    ProjectTx, on_constraint, store_error,
    stored::{number, parsed},
};

impl ProjectTx {
    /// Length of a blob that the repository links.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn linked_blob(&mut self, repository: RepositoryId, digest: &Digest) -> Result<Option<u64>> {
        let size = sqlx::query_scalar!(
            "SELECT size_bytes FROM repository_blobs WHERE project_id = $1 AND repository_id = $2 AND digest = $3",
            self.project.0,
            repository.0,
            digest.as_str()
        )
        .fetch_optional(self.connection())
        .await
        .map_err(store_error)?;
        size.map(number).transpose()
    }

    /// [`ProjectTx::linked_blob`] for somebody who will count on the link: from here on it stays for
    /// most of `kept`, the time that links nobody needs are kept. A link that is young is only read;
    /// `true` if it was renewed, for which the transaction must be committed.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn renewed_link(
        &mut self,
        repository: RepositoryId,
        digest: &Digest,
        kept: Duration,
    ) -> Result<Option<(u64, bool)>> {
        let found = sqlx::query!(
            r#"SELECT size_bytes, linked_at < now() - make_interval(secs => $4) AS "old!" FROM repository_blobs
               WHERE project_id = $1 AND repository_id = $2 AND digest = $3"#,
            self.project.0,
            repository.0,
            digest.as_str(),
            kept.as_secs_f64() / 4.0
        )
        .fetch_optional(self.connection())
        .await
        .map_err(store_error)?;
        let Some(found) = found else { return Ok(None) };
        if !found.old {
            return Ok(Some((number(found.size_bytes)?, false)));
        }
        // Not what was read just now counts: the link may be going this moment.
        let renewed = sqlx::query_scalar!(
            "UPDATE repository_blobs SET linked_at = now()
             WHERE project_id = $1 AND repository_id = $2 AND digest = $3 RETURNING size_bytes",
            self.project.0,
            repository.0,
            digest.as_str()
        )
        .fetch_optional(self.connection())
        .await
        .map_err(store_error)?;
        renewed.map(|size| Ok((number(size)?, true))).transpose()
    }

    /// Length of a blob that any repository of this project links.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn blob_linked_in_project(&mut self, digest: &Digest) -> Result<Option<u64>> {
        let size = sqlx::query_scalar!(
            "SELECT size_bytes FROM repository_blobs WHERE project_id = $1 AND digest = $2 LIMIT 1",
            self.project.0,
            digest.as_str()
        )
        .fetch_optional(self.connection())
        .await
        .map_err(store_error)?;
        size.map(number).transpose()
    }

    /// Lengths of those of these blobs that the repository links.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn linked_blobs(&mut self, repository: RepositoryId, digests: &[Digest]) -> Result<HashMap<Digest, u64>> {
        let asked: Vec<String> = digests.iter().map(ToString::to_string).collect();
        let rows = sqlx::query!(
            "SELECT digest, size_bytes FROM repository_blobs
             WHERE project_id = $1 AND repository_id = $2 AND digest = ANY($3)",
            self.project.0,
            repository.0,
            &asked
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        rows.into_iter().map(|row| Ok((parsed(&row.digest)?, number(row.size_bytes)?))).collect()
    }

    /// Links a blob whose bytes are durable, and will not be collected before this is committed: that is
    /// for the caller to see to.
    ///
    /// # Errors
    /// `NotFound` if the repository is gone.
    pub async fn link_blob(&mut self, repository: RepositoryId, digest: &Digest, size_bytes: u64) -> Result<()> {
        let size = i64::try_from(size_bytes).unwrap_or(i64::MAX);
        sqlx::query!(
            "INSERT INTO blobs (digest, size_bytes) VALUES ($1, $2) ON CONFLICT (digest) DO UPDATE SET touched_at = now()",
            digest.as_str(),
            size
        )
        .execute(self.connection())
        .await
        .map_err(store_error)?;
        let project = self.project.0;
        sqlx::query!(
            "INSERT INTO repository_blobs (repository_id, project_id, digest, size_bytes) VALUES ($1, $2, $3, $4)
             ON CONFLICT (repository_id, digest) DO UPDATE SET linked_at = now()",
            repository.0,
            project,
            digest.as_str(),
            size
        )
        .execute(self.connection())
        .await
        .map_err(on_constraint("repository_blobs_repository_id_project_id_fkey", || {
            Error::NotFound("repository name not known to registry".into())
        }))?;
        Ok(())
    }

    /// Takes a link away. `false`: there was none.
    ///
    /// # Errors
    /// `Conflict` while a manifest of the repository needs the blob.
    pub async fn unlink_blob(&mut self, repository: RepositoryId, digest: &Digest) -> Result<bool> {
        let gone = sqlx::query!(
            "DELETE FROM repository_blobs WHERE project_id = $1 AND repository_id = $2 AND digest = $3",
            self.project.0,
            repository.0,
            digest.as_str()
        )
        .execute(self.connection())
        .await
        .map_err(on_constraint("repository_manifest_blobs_link_fkey", || {
            Error::Conflict("a manifest of this repository needs the blob".into())
        }))?;
        Ok(gone.rows_affected() > 0)
    }
}
