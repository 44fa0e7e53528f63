//! Images of a project, read: list, inspect, resolve. What may be found here was pulled or tagged
//! in this very project; content another project has stored does not show.

use std::collections::HashSet;

use model::{Digest, Error, ImageReference, LayerDescriptor, Result};
use sqlx::types::Json;
use time::OffsetDateTime;

use crate::{ProjectTx, containers::behind_prefix, store_error};

/// One image with everything that names it.
#[derive(Clone, Debug)]
pub struct ImageRow {
    /// Digest of the config: the image's id.
    pub id: Digest,
    /// Digest of the manifest it was pulled by.
    pub manifest_digest: Digest,
    /// The config document, bytes as they are: history, environment, labels.
    pub config: Vec<u8>,
    /// Lowest first.
    pub layers: Vec<LayerDescriptor>,
    /// `amd64`.
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// Sum of the blobs.
    pub size_bytes: i64,
    /// When it was built, if its config says so.
    pub built_at: Option<OffsetDateTime>,
    /// When it came into the project.
    pub stored_at: OffsetDateTime,
    /// When a tag was last set on it.
    pub last_tagged_at: Option<OffsetDateTime>,
    /// `busybox:latest`, as Docker shows them (`RepoTags`), sorted.
    pub tags: Vec<String>,
    /// `busybox@sha256:…` (`RepoDigests`), sorted.
    pub digests: Vec<String>,
}

/// An image under one of its tags, with its documents.
#[derive(Clone, Debug)]
pub struct TaggedImage {
    /// The tag.
    pub tag: String,
    /// Digest of the config.
    pub id: Digest,
    /// The manifest, byte for byte.
    pub manifest: Vec<u8>,
    /// The config document.
    pub config: Vec<u8>,
    /// Lowest first.
    pub layers: Vec<LayerDescriptor>,
}

/// A container that holds on to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUse {
    /// The container.
    pub container: String,
    /// It runs now, so that not even force may take the image away.
    pub running: bool,
    /// Its host has not unpacked the image yet: without it, it could never run.
    pub unfetched: bool,
}

struct RawImage {
    id: String,
    manifest_digest: String,
    config: Vec<u8>,
    layers: Json<Vec<LayerDescriptor>>,
    architecture: String,
    os: String,
    size_bytes: i64,
    built_at: Option<OffsetDateTime>,
    stored_at: OffsetDateTime,
    last_tagged_at: Option<OffsetDateTime>,
    tags: Vec<String>,
    digests: Vec<String>,
}

impl RawImage {
    fn into_row(self) -> Result<ImageRow> {
        Ok(ImageRow {
            id: stored(&self.id)?,
            manifest_digest: stored(&self.manifest_digest)?,
            config: self.config,
            layers: self.layers.0,
            architecture: self.architecture,
            os: self.os,
            size_bytes: self.size_bytes,
            built_at: self.built_at,
            stored_at: self.stored_at,
            last_tagged_at: self.last_tagged_at,
            tags: self.tags.iter().map(|t| familiar(t)).collect(),
            digests: self.digests.iter().map(|d| familiar(d)).collect(),
        })
    }
}

/// A value this crate wrote itself and checked then.
fn stored<T: std::str::FromStr<Err = Error>>(text: &str) -> Result<T> {
    text.parse().map_err(|e| Error::internal(format!("stored value {text:?}: {e}")))
}

/// `docker.io/library/busybox:latest` as `busybox:latest`; `…@sha256:…` likewise.
fn familiar(full: &str) -> String {
    full.parse::<ImageReference>().map_or_else(|_| full.to_owned(), |r| r.to_string())
}

impl ProjectTx {
    /// Every image, the youngest first.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn list_images(&mut self) -> Result<Vec<ImageRow>> {
        self.read_images(None).await
    }

    /// One image by its full id.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn image_by_id(&mut self, id: &Digest) -> Result<Option<ImageRow>> {
        Ok(self.read_images(Some(id.as_str())).await?.pop())
    }

    /// What `name` means, by Docker's rules: `name[:tag]`, `name@digest`, a full id, or an
    /// unambiguous prefix of one. A tag comes before an id that looks the same.
    ///
    /// # Errors
    /// `NotFound` in dockerd's words, `InvalidArgument` for an ambiguous prefix.
    pub async fn resolve_image(&mut self, name: &str) -> Result<ImageRow> {
        let id = self.resolve_image_id(name).await?;
        self.image_by_id(&id).await?.ok_or_else(|| no_such_image(name))
    }

    /// [`ProjectTx::resolve_image`] without reading the image.
    ///
    /// # Errors
    /// As there.
    pub async fn resolve_image_id(&mut self, name: &str) -> Result<Digest> {
        let reference = name.parse::<ImageReference>();
        if let Ok(reference) = &reference
            && let Some(id) = self.image_named(reference).await?
        {
            return Ok(id);
        }
        match id_prefix(name) {
            Some(prefix) => self.image_with_prefix(name, prefix).await,
            None => Err(reference.err().unwrap_or_else(|| no_such_image(name))),
        }
    }

    /// The images that were made on top of one of these: with all of its layers lowest, and more.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn images_above(&mut self, images: &[Digest]) -> Result<Vec<Digest>> {
        let ids: Vec<String> = images.iter().map(|id| id.as_str().to_owned()).collect();
        sqlx::query_scalar!(
            "WITH stacks AS (
                 SELECT image_id, array_agg(digest ORDER BY position) AS layers FROM image_layers
                 WHERE project_id = $1 GROUP BY image_id)
             SELECT DISTINCT above.image_id FROM stacks above JOIN stacks base
                 ON base.image_id = ANY($2) AND cardinality(above.layers) > cardinality(base.layers)
                    AND above.layers[1:cardinality(base.layers)] = base.layers",
            self.project.0,
            &ids,
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?
        .into_iter()
        .map(|id| id.parse().map_err(Error::internal))
        .collect()
    }

    /// The image a tag or digest names in this project.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn image_named(&mut self, reference: &ImageReference) -> Result<Option<Digest>> {
        let project = self.project.0;
        let repository = reference.full_name();
        let found = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => {
                sqlx::query_scalar!(
                    "SELECT image_id FROM image_digests WHERE project_id = $1 AND repository = $2 AND digest = $3",
                    project,
                    repository,
                    digest.as_str()
                )
                .fetch_optional(self.connection())
                .await
            }
            (None, tag) => {
                sqlx::query_scalar!(
                    "SELECT image_id FROM image_tags WHERE project_id = $1 AND repository = $2 AND tag = $3",
                    project,
                    repository,
                    tag.as_deref().unwrap_or("latest")
                )
                .fetch_optional(self.connection())
                .await
            }
        };
        found.map_err(store_error)?.map(|id| stored(&id)).transpose()
    }

    /// The image that was pulled by a manifest.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn image_with_manifest(&mut self, manifest: &Digest) -> Result<Option<ImageRow>> {
        let id = sqlx::query_scalar!(
            "SELECT id FROM images WHERE project_id = $1 AND manifest_digest = $2 LIMIT 1",
            self.project.0,
            manifest.as_str()
        )
        .fetch_optional(self.connection())
        .await
        .map_err(store_error)?;
        match id {
            Some(id) => self.image_by_id(&stored(&id)?).await,
            None => Ok(None),
        }
    }

    /// The manifest of an image, byte for byte.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn image_manifest(&mut self, id: &Digest) -> Result<Option<Vec<u8>>> {
        sqlx::query_scalar!(
            "SELECT manifest FROM images WHERE project_id = $1 AND id = $2",
            self.project.0,
            id.as_str()
        )
        .fetch_optional(self.connection())
        .await
        .map_err(store_error)
    }

    /// Which of these blobs are layers of images of this project.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn layers_held(&mut self, digests: &[Digest]) -> Result<HashSet<Digest>> {
        let asked: Vec<String> = digests.iter().map(ToString::to_string).collect();
        let held = sqlx::query_scalar!(
            "SELECT DISTINCT digest FROM image_layers WHERE project_id = $1 AND digest = ANY($2)",
            self.project.0,
            &asked
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        held.iter().map(|digest| stored(digest)).collect()
    }

    /// The images that a repository's tags name here, or one tag: whole, as a push needs them.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn tagged_images(&mut self, reference: &ImageReference, tag: Option<&str>) -> Result<Vec<TaggedImage>> {
        let rows = sqlx::query!(
            r#"SELECT t.tag, i.id, i.manifest, i.config, i.layers AS "layers: Json<Vec<LayerDescriptor>>"
               FROM image_tags t JOIN images i ON i.project_id = t.project_id AND i.id = t.image_id
               WHERE t.project_id = $1 AND t.repository = $2 AND ($3::text IS NULL OR t.tag = $3) ORDER BY t.tag"#,
            self.project.0,
            reference.full_name(),
            tag
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        rows.into_iter()
            .map(|row| {
                let (id, layers) = (stored(&row.id)?, row.layers.0);
                Ok(TaggedImage { tag: row.tag, id, manifest: row.manifest, config: row.config, layers })
            })
            .collect()
    }

    async fn image_with_prefix(&mut self, name: &str, prefix: &str) -> Result<Digest> {
        let first = format!("sha256:{prefix}");
        let found = sqlx::query_scalar!(
            "SELECT id FROM images WHERE project_id = $1 AND id ~>=~ $2 AND id ~<~ $3 LIMIT 2",
            self.project.0,
            first,
            behind_prefix(&first),
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        match found.as_slice() {
            [] => Err(no_such_image(name)),
            [id] => stored(id),
            [..] => Err(Error::InvalidArgument(format!("ambiguous reference: multiple images match {name}"))),
        }
    }

    /// The containers made from an image that are not removed, running ones first.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn image_uses(&mut self, image: &Digest) -> Result<Vec<ImageUse>> {
        let (running, unpacked) = (model::Phase::Running.rank(), model::Phase::Created.rank());
        sqlx::query_as!(
            ImageUse,
            r#"SELECT id AS container, (observed_phase = $3) AS "running!", (observed_phase < $4) AS "unfetched!"
               FROM containers
               WHERE project_id = $1 AND image_id = $2 AND desired_state <> 'removed'
               ORDER BY (observed_phase = $3) DESC, id"#,
            self.project.0,
            image.as_str(),
            running,
            unpacked
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)
    }

    async fn read_images(&mut self, id: Option<&str>) -> Result<Vec<ImageRow>> {
        let rows = sqlx::query_as!(
            RawImage,
            r#"SELECT i.id, i.manifest_digest, i.config, i.layers AS "layers: Json<Vec<LayerDescriptor>>",
                      i.architecture, i.os, i.size_bytes, i.built_at, i.stored_at,
                      (SELECT max(t.tagged_at) FROM image_tags t
                       WHERE t.project_id = i.project_id AND t.image_id = i.id) AS last_tagged_at,
                      ARRAY(SELECT t.repository || ':' || t.tag FROM image_tags t
                            WHERE t.project_id = i.project_id AND t.image_id = i.id ORDER BY 1) AS "tags!",
                      ARRAY(SELECT d.repository || '@' || d.digest FROM image_digests d
                            WHERE d.project_id = i.project_id AND d.image_id = i.id ORDER BY 1) AS "digests!"
               FROM images i
               WHERE i.project_id = $1 AND ($2::text IS NULL OR i.id = $2)
               ORDER BY coalesce(i.built_at, i.stored_at) DESC, i.id"#,
            self.project.0,
            id
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        rows.into_iter().map(RawImage::into_row).collect()
    }
}

/// dockerd's text; the CLI pulls when it sees the 404 on create.
pub(crate) fn no_such_image(name: &str) -> Error {
    let shown = match name.parse::<ImageReference>() {
        Ok(reference) if id_prefix(name).is_none_or(|p| p.len() < 64) => reference.to_string(),
        _ => name.to_owned(),
    };
    Error::NotFound(format!("No such image: {shown}"))
}

/// The hex digits of an id or of a prefix of one, with or without `sha256:`.
fn id_prefix(name: &str) -> Option<&str> {
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    ((1..=64).contains(&hex.len()) && hex.bytes().all(is_hex)).then_some(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_image_is_named_with_its_tag_as_docker_does() {
        assert_eq!(no_such_image("nope"), Error::NotFound("No such image: nope:latest".into()));
        assert_eq!(no_such_image("docker.io/library/a:1"), Error::NotFound("No such image: a:1".into()));
    }

    #[test]
    fn only_lower_case_hex_is_an_id_prefix() {
        assert_eq!(id_prefix("sha256:ab12"), Some("ab12"));
        assert_eq!(id_prefix("ab12"), Some("ab12"));
        assert_eq!(id_prefix("AB"), None);
        assert_eq!(id_prefix("ab%"), None);
        assert_eq!(id_prefix(""), None);
    }
}
