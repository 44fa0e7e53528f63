//! Images of a project, changed: recorded after a pull, tagged, untagged, deleted. Each change and
//! its event are one transaction, so that the project's history never tells of what did not happen.

use std::collections::BTreeMap;

use model::{Digest, Error, EventKind, ImageReference, LayerDescriptor, Result};
use sqlx::types::Json;
use time::OffsetDateTime;

use crate::{ProjectTx, on_constraint, store_error};

/// An image whose every blob is stored and verified.
#[derive(Clone, Debug)]
pub struct StoredImage<'a> {
    /// Digest of the config.
    pub id: &'a Digest,
    /// Digest of the platform's manifest.
    pub manifest_digest: &'a Digest,
    /// That manifest.
    pub manifest: &'a [u8],
    /// The config document.
    pub config: &'a [u8],
    /// Lowest first.
    pub layers: &'a [LayerDescriptor],
    /// `amd64`.
    pub architecture: &'a str,
    /// `linux`.
    pub os: &'a str,
    /// Sum of the blobs.
    pub size_bytes: i64,
    /// When it was built, if its config says so.
    pub built_at: Option<OffsetDateTime>,
}

/// One that came from an upstream.
#[derive(Clone, Debug)]
pub struct PulledImage<'a> {
    /// What was asked for; its tag, if any, will name the image.
    pub reference: &'a ImageReference,
    /// What came.
    pub image: StoredImage<'a>,
    /// The digests it may be asked for by: of the index, if one named it, or of the manifest.
    pub digests: &'a [Digest],
}

impl ProjectTx {
    /// Records a pulled image, names it and adds the event `pull`. `false`: the reference already
    /// meant this very image.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn record_pulled_image(&mut self, pulled: &PulledImage<'_>) -> Result<bool> {
        let PulledImage { reference, image, digests } = pulled;
        let before = self.image_named(reference).await?;
        self.put_image(image).await?;
        for digest in *digests {
            self.put_image_digest(reference, digest, image.id).await?;
        }
        if reference.tag.is_some() {
            self.put_image_tag(reference, image.id).await?;
        }
        self.add_image_event("pull", &reference.to_string(), &reference.familiar_name()).await?;
        Ok(before.as_ref() != Some(image.id))
    }

    /// Records an image that was made here; one without a parent adds the event `import`, a name the
    /// event `tag`.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn record_made_image(
        &mut self,
        image: &StoredImage<'_>,
        imported: bool,
        name: Option<&ImageReference>,
    ) -> Result<()> {
        self.put_image(image).await?;
        if imported {
            self.add_image_event("import", image.id.as_str(), image.id.as_str()).await?;
        }
        match name {
            Some(name) => self.tag_image(image.id, name).await,
            None => Ok(()),
        }
    }

    /// Records an image that came in an archive, unless it is here already (`image` is none then), and names
    /// it; event `load`. Answers the names that meant another image, and which.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn record_loaded_image(
        &mut self,
        id: &Digest,
        image: Option<&StoredImage<'_>>,
        names: &[ImageReference],
    ) -> Result<Vec<(ImageReference, Digest)>> {
        if let Some(image) = image {
            self.put_image(image).await?;
        }
        let mut taken = Vec::new();
        for name in names {
            if let Some(other) = self.image_named(name).await?.filter(|other| other != id) {
                taken.push((name.clone(), other));
            }
            self.put_image_tag(name, id).await?;
        }
        self.add_image_event("load", id.as_str(), id.as_str()).await?;
        Ok(taken)
    }

    /// Remembers that an image was pushed: it may be asked for by that digest from now on; event `push`.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn record_pushed_image(
        &mut self,
        reference: &ImageReference,
        digest: &Digest,
        id: &Digest,
    ) -> Result<()> {
        self.put_image_digest(reference, digest, id).await?;
        self.add_image_event("push", &reference.to_string(), &reference.familiar_name()).await
    }

    /// Adds the events `save` of images that are packed for somebody.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn note_saved_images(&mut self, ids: &[Digest]) -> Result<()> {
        for id in ids {
            self.add_image_event("save", id.as_str(), id.as_str()).await?;
        }
        Ok(())
    }

    /// The same config under another manifest (other compression, say) takes the newer manifest's
    /// layers: they unpack to the same trees, and a pull must be able to heal a bad upstream.
    async fn put_image(&mut self, image: &StoredImage<'_>) -> Result<()> {
        let project = self.project.0;
        let changed = sqlx::query_scalar!(
            r#"INSERT INTO images (project_id, id, manifest_digest, manifest, config, layers, architecture, os,
                                   size_bytes, built_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
               ON CONFLICT (project_id, id) DO UPDATE
               SET manifest_digest = excluded.manifest_digest, manifest = excluded.manifest,
                   layers = excluded.layers, size_bytes = excluded.size_bytes
               WHERE images.manifest_digest <> excluded.manifest_digest
               RETURNING true AS "changed!""#,
            project,
            image.id.as_str(),
            image.manifest_digest.as_str(),
            image.manifest,
            image.config,
            Json(image.layers) as _,
            image.architecture,
            image.os,
            image.size_bytes,
            image.built_at,
        )
        .fetch_optional(self.connection())
        .await
        .map_err(store_error)?;
        if changed.is_none() {
            return Ok(());
        }
        let digests: Vec<String> = image.layers.iter().map(|l| l.digest.to_string()).collect();
        sqlx::query!("DELETE FROM image_layers WHERE project_id = $1 AND image_id = $2", project, image.id.as_str())
            .execute(self.connection())
            .await
            .map_err(store_error)?;
        sqlx::query!(
            "INSERT INTO image_layers (project_id, image_id, position, digest)
             SELECT $1, $2, (position - 1)::int, digest FROM unnest($3::text[]) WITH ORDINALITY AS l(digest, position)",
            project,
            image.id.as_str(),
            &digests
        )
        .execute(self.connection())
        .await
        .map_err(store_error)?;
        Ok(())
    }

    async fn put_image_digest(&mut self, reference: &ImageReference, digest: &Digest, id: &Digest) -> Result<()> {
        sqlx::query!(
            "INSERT INTO image_digests (project_id, repository, digest, image_id) VALUES ($1, $2, $3, $4)
             ON CONFLICT (project_id, repository, digest) DO UPDATE SET image_id = excluded.image_id
             WHERE image_digests.image_id <> excluded.image_id",
            self.project.0,
            reference.full_name(),
            digest.as_str(),
            id.as_str()
        )
        .execute(self.connection())
        .await
        .map_err(store_error)?;
        Ok(())
    }

    async fn put_image_tag(&mut self, reference: &ImageReference, id: &Digest) -> Result<()> {
        sqlx::query!(
            "INSERT INTO image_tags (project_id, repository, tag, image_id) VALUES ($1, $2, $3, $4)
             ON CONFLICT (project_id, repository, tag) DO UPDATE
             SET image_id = excluded.image_id, tagged_at = now()
             WHERE image_tags.image_id <> excluded.image_id",
            self.project.0,
            reference.full_name(),
            reference.tag.as_deref().unwrap_or("latest"),
            id.as_str()
        )
        .execute(self.connection())
        .await
        .map_err(on_constraint("image_tags_project_id_image_id_fkey", || {
            Error::NotFound(format!("No such image: {id}"))
        }))?;
        Ok(())
    }

    /// Gives an image a further name, taking it from the image that had it; event `tag`.
    ///
    /// # Errors
    /// `NotFound` if the image is gone, `InvalidArgument` for a reference with a digest.
    pub async fn tag_image(&mut self, id: &Digest, reference: &ImageReference) -> Result<()> {
        if reference.digest.is_some() {
            return Err(Error::InvalidArgument("refusing to create a tag with a digest reference".into()));
        }
        self.put_image_tag(reference, id).await?;
        self.add_image_event("tag", id.as_str(), &reference.familiar()).await
    }

    /// Takes a name away from an image, tag or digest; event `untag`. `false`: it does not have it (any more).
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn untag_image(&mut self, id: &Digest, reference: &ImageReference) -> Result<bool> {
        let project = self.project.0;
        let repository = reference.full_name();
        let gone = match &reference.digest {
            Some(digest) => {
                sqlx::query_scalar!(
                    "DELETE FROM image_digests
                         WHERE project_id = $1 AND repository = $2 AND digest = $3 AND image_id = $4
                         RETURNING image_id",
                    project,
                    repository,
                    digest.as_str(),
                    id.as_str()
                )
                .fetch_optional(self.connection())
                .await
            }
            None => {
                sqlx::query_scalar!(
                    "DELETE FROM image_tags
                     WHERE project_id = $1 AND repository = $2 AND tag = $3 AND image_id = $4 RETURNING image_id",
                    project,
                    repository,
                    reference.tag.as_deref().unwrap_or("latest"),
                    id.as_str()
                )
                .fetch_optional(self.connection())
                .await
            }
        }
        .map_err(store_error)?;
        match gone {
            Some(id) => self.add_image_event("untag", &id, &id).await.map(|()| true),
            None => Ok(false),
        }
    }

    /// Holds an image until the end of the transaction: no container is made of it meanwhile, and it is
    /// neither named nor pulled. `false`: it is gone, or held by others if nobody `waits` for it.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn claim_image(&mut self, id: &Digest, waits: bool) -> Result<bool> {
        sqlx::query_scalar!(r#"SELECT claim_image($1, $2) AS "claimed!""#, id.as_str(), waits)
            .fetch_one(self.connection())
            .await
            .map_err(store_error)
    }

    /// Deletes an image with all its names; event `delete`. Whether containers forbid it is for the
    /// caller to ask first ([`ProjectTx::image_uses`]), once the image is claimed
    /// ([`ProjectTx::claim_image`]). Blobs stay until nothing refers to them.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn delete_image(&mut self, id: &Digest) -> Result<bool> {
        let gone = sqlx::query!("DELETE FROM images WHERE project_id = $1 AND id = $2", self.project.0, id.as_str())
            .execute(self.connection())
            .await
            .map_err(store_error)?
            .rows_affected();
        if gone == 0 {
            return Ok(false);
        }
        self.add_image_event("delete", id.as_str(), id.as_str()).await?;
        Ok(true)
    }

    async fn add_image_event(&mut self, action: &str, actor: &str, name: &str) -> Result<()> {
        let attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
        self.append_event(EventKind::Image, action, actor, &attributes, OffsetDateTime::now_utc()).await.map(drop)
    }
}
