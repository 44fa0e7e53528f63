//! A push. To the hosted registry: the image is here already, so its layers are linked, its config is
//! stored as a blob, and its manifest is put under the tag. Any other registry gets what it does not have
//! (`push/outbound.rs`). Told in dockerd's words.

mod outbound;

use contract::image::PushRequest;
use model::{DigestAlgorithm, Error, ImageReference, LayerDescriptor, RepositoryId, RepositoryName, Result};
use serde::Deserialize;
use serde_json::json;
use store::{ProjectScope, TaggedImage};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    blob_store::digest_by,
    pull::{HostedNames, Progress, Puller},
    registry::{Failure, Registry, document},
    upstream::Platform,
};
use outbound::Outbound;

/// A push that can begin.
pub(crate) struct Push {
    registry: Registry,
    scope: ProjectScope,
    reference: ImageReference,
    all_tags: bool,
    platform: Option<Platform>,
    outside: Option<(Outbound, OwnedSemaphorePermit)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed {
    media_type: Option<String>,
}

/// What a manifest says it is.
fn media_type(manifest: &[u8]) -> Result<String> {
    let typed: Typed = serde_json::from_slice(manifest).map_err(Error::internal)?;
    Ok(typed.media_type.unwrap_or_else(|| "application/vnd.oci.image.manifest.v1+json".to_owned()))
}

impl Push {
    /// Reads what is asked for.
    ///
    /// # Errors
    /// The reference cannot be read, or the registry is at an address that is not reached out to.
    pub(crate) fn begin(
        registry: &Registry,
        puller: &Puller,
        hosted: &HostedNames,
        request: &PushRequest,
    ) -> Result<Self> {
        let reference: ImageReference = request.reference.parse()?;
        if reference.digest.is_some() {
            return Err(Error::InvalidArgument("cannot push a digest reference".into()));
        }
        let platform = match request.platform.as_deref().filter(|p| !p.is_empty()) {
            Some(text) => {
                Some(Platform::parse(text).ok_or_else(|| Error::invalid("platform", "is not os/architecture"))?)
            }
            None => None,
        };
        let scope = ProjectScope::delegated(request.project);
        let outside = match hosted.has(&reference) {
            true => None,
            false => {
                let (repository, permit) = puller.push_target(&reference, request.auth.as_ref())?;
                let (store, blobs) = (registry.store.clone(), registry.blobs.clone());
                Some((Outbound { store, blobs, scope, reference: reference.clone(), repository }, permit))
            }
        };
        Ok(Self { registry: registry.clone(), scope, reference, all_tags: request.all_tags, platform, outside })
    }

    /// Runs to the end, saying how it goes.
    pub(crate) async fn run(self, progress: &Progress) -> Result<()> {
        let shown = self.reference.familiar_name();
        progress.line(&format!("The push refers to repository [{shown}]"), None).await;
        let images = self.images().await?;
        if let Some((outbound, _permit)) = &self.outside {
            for image in images {
                outbound.push(&image, progress).await?;
            }
            return Ok(());
        }
        let repository = self.repository().await?;
        for image in images {
            self.push(repository, &image, progress).await?;
        }
        Ok(())
    }

    async fn images(&self) -> Result<Vec<TaggedImage>> {
        let mut tx = self.registry.store.project_tx(&self.scope).await?;
        let mut images = tx.tagged_images(&self.reference, None).await?;
        if images.is_empty() {
            let text = format!("An image does not exist locally with the tag: {}", self.reference.familiar_name());
            return Err(Error::NotFound(text));
        }
        if !self.all_tags {
            images.retain(|image| Some(&image.tag) == self.reference.tag.as_ref());
        }
        if images.is_empty() {
            return Err(Error::NotFound(format!("tag does not exist: {}", self.reference.familiar())));
        }
        if let Some(wanted) = &self.platform {
            for image in &images {
                let found: Platform = serde_json::from_slice(&image.config).map_err(Error::internal)?;
                if found.os != wanted.os || found.architecture != wanted.architecture {
                    let name = self.reference.with_tag(&image.tag);
                    return Err(Error::NotFound(format!(
                        "image with reference {name} was found but its platform ({found}) does not match the specified platform ({wanted})"
                    )));
                }
            }
        }
        Ok(images)
    }

    /// The repository, made if need be; only in the caller's own project.
    async fn repository(&self) -> Result<RepositoryId> {
        let denied = || Error::Forbidden("denied: requested access to the resource is denied".into());
        let name: RepositoryName = self.reference.repository.parse().map_err(|_| denied())?;
        let found = self.registry.store.registry_repository(&name, Some(self.scope.project())).await?;
        if !found.is_some_and(|found| found.owned) {
            return Err(denied());
        }
        let mut tx = self.registry.store.project_tx(&self.scope).await?;
        let id = tx.repository_for_push(&name.path, RepositoryId(chassis::ids::uuid_v7())).await?;
        tx.commit().await?;
        Ok(id)
    }

    async fn push(&self, repository: RepositoryId, image: &TaggedImage, progress: &Progress) -> Result<()> {
        // dockerd shows them from the top, by what they unpack to.
        for layer in image.layers.iter().rev() {
            progress.layer(&layer.diff_id, "Preparing").await;
        }
        let there = self.link(repository, image).await?;
        for layer in image.layers.iter().rev() {
            let status = if there.contains(&layer.digest) { "Layer already exists" } else { "Pushed" };
            progress.layer(&layer.diff_id, status).await;
        }
        let media_type = media_type(&image.manifest)?;
        let document = document::check(&media_type, &image.manifest).map_err(|no| Error::Failed(no.message))?;
        let digest = digest_by(DigestAlgorithm::Sha256, &image.manifest);
        let kept = self
            .registry
            .put_manifest(&self.scope, repository, &digest, &image.manifest, &document, Some(&image.tag))
            .await;
        kept.map_err(|failure| match failure {
            Failure::Refused(no) => Error::Failed(no.message),
            Failure::Broken(error) => error,
            Failure::OutOfOrder { .. } => Error::internal("a manifest is no upload"),
        })?;
        let size = image.manifest.len();
        progress.line(&format!("{}: digest: {digest} size: {size}", image.tag), None).await;
        progress.aux(json!({ "Tag": image.tag, "Digest": digest, "Size": size })).await;
        tracing::info!(reference = %self.reference, tag = image.tag, %digest, "pushed");
        Ok(())
    }

    /// Links everything the manifest needs, in one transaction; answers the layers that were linked before.
    async fn link(&self, repository: RepositoryId, image: &TaggedImage) -> Result<Vec<model::Digest>> {
        let (blobs, size) = (&self.registry.blobs, image.config.len() as u64);
        let mut layers: Vec<&LayerDescriptor> = image.layers.iter().collect();
        // Always in one order, so that two pushes of the same layers wait for each other and not in a circle.
        layers.sort_by(|a, b| a.digest.cmp(&b.digest));
        layers.dedup_by(|a, b| a.digest == b.digest);
        let digests: Vec<model::Digest> = layers.iter().map(|layer| layer.digest.clone()).collect();
        let mut parts = digests.clone();
        parts.push(image.id.clone());
        let _kept = blobs.keep(parts).await;
        let mut tx = self.registry.store.project_tx(&self.scope).await?;
        let linked = tx.linked_blobs(repository, &digests).await?;
        let fresh: u64 = layers.iter().filter(|l| !linked.contains_key(&l.digest)).map(|l| l.size_bytes).sum();
        let config = if tx.linked_blob(repository, &image.id).await?.is_some() { 0 } else { size };
        if fresh + config > 0 {
            tx.claim_registry_bytes(fresh + config).await?;
        }
        for layer in layers {
            if blobs.size(&layer.digest).await? != Some(layer.size_bytes) {
                return Err(Error::Failed(format!(
                    "layer {} is not here any more; pull the image again",
                    layer.digest
                )));
            }
            tx.link_blob(repository, &layer.digest, layer.size_bytes).await?;
        }
        if blobs.size(&image.id).await? != Some(size) {
            blobs.put(&image.id, image.config.clone().into()).await?;
        }
        tx.link_blob(repository, &image.id, size).await?;
        tx.commit().await?;
        Ok(linked.into_keys().collect())
    }
}
