//! A push to a registry of somebody else: what it does not have yet is sent, with the credentials that
//! came with the request and that go when it ends. Told in dockerd's words.

use std::{
    collections::HashSet,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use model::{Error, ImageReference, LayerDescriptor, Result};
use serde_json::json;
use store::{ProjectScope, Store, TaggedImage};

use super::media_type;
use crate::{
    blob_store::{BlobStore, digest_of},
    limits::{BLOB_ATTEMPTS_IN_VAIN_MAX, LAYERS_IN_PARALLEL, MOUNTS_TRIED_MAX, PROGRESS_INTERVAL},
    pull::Progress,
    upstream::{Begun, Repository, UpstreamError},
};

/// Where it goes, and from where.
pub(super) struct Outbound {
    pub(super) store: Store,
    pub(super) blobs: BlobStore,
    pub(super) scope: ProjectScope,
    pub(super) reference: ImageReference,
    pub(super) repository: Repository,
}

/// What came of one blob.
enum Sent {
    Now,
    Before,
    From(String),
}

impl Outbound {
    /// Pushes one image under its tag.
    pub(super) async fn push(&self, image: &TaggedImage, progress: &Progress) -> Result<()> {
        for layer in image.layers.iter().rev() {
            progress.layer(&layer.diff_id, "Preparing").await;
        }
        // Until the last byte: an image may be removed while it is pushed.
        let _kept = self.blobs.keep(image.layers.iter().map(|layer| layer.digest.clone()).collect()).await;
        let known = self.known_from(image).await?;
        let mut seen = HashSet::new();
        let layers: Vec<LayerDescriptor> =
            image.layers.iter().rev().filter(|layer| seen.insert(layer.digest.clone())).cloned().collect();
        stream::iter(layers)
            .map(|layer| self.layer(layer, &known, progress))
            .buffer_unordered(LAYERS_IN_PARALLEL)
            .try_collect::<()>()
            .await?;
        self.config(image).await?;
        let (digest, size) = (digest_of(&image.manifest), image.manifest.len());
        let kind = media_type(&image.manifest)?;
        let put = self.repository.put_manifest(&image.tag, &kind, &digest, image.manifest.clone()).await;
        put.map_err(UpstreamError::of_push)?;
        let mut tx = self.store.project_tx(&self.scope).await?;
        tx.record_pushed_image(&self.reference.with_tag(&image.tag), &digest, &image.id).await?;
        tx.commit().await?;
        progress.line(&format!("{}: digest: {digest} size: {size}", image.tag), None).await;
        progress.aux(json!({ "Tag": image.tag, "Digest": digest, "Size": size })).await;
        tracing::info!(reference = %self.reference, tag = image.tag, %digest, "pushed outside");
        Ok(())
    }

    /// Other repositories of that registry that this very image is known from.
    async fn known_from(&self, image: &TaggedImage) -> Result<Vec<String>> {
        let row = self.store.project_tx(&self.scope).await?.image_by_id(&image.id).await?;
        let names = row.into_iter().flat_map(|row| row.digests.into_iter().chain(row.tags));
        let mut found = Vec::new();
        for name in names.filter_map(|name| name.parse::<ImageReference>().ok()) {
            let other = name.registry == self.reference.registry && name.repository != self.reference.repository;
            if other && !found.contains(&name.repository) && found.len() < MOUNTS_TRIED_MAX {
                found.push(name.repository);
            }
        }
        Ok(found)
    }

    async fn layer(&self, layer: LayerDescriptor, known: &[String], progress: &Progress) -> Result<()> {
        let LayerDescriptor { digest, diff_id, size_bytes, .. } = &layer;
        if self.blobs.size(digest).await? != Some(*size_bytes) {
            return Err(Error::Failed(format!("layer {digest} is not here any more; pull the image again")));
        }
        let mut in_vain = 0;
        let sent = loop {
            match self.blob(&layer, known, progress).await {
                Err(UpstreamError::Unreachable(why)) if in_vain + 1 < BLOB_ATTEMPTS_IN_VAIN_MAX => {
                    tracing::debug!(%digest, why, "an upload broke off");
                    in_vain += 1;
                    tokio::time::sleep(std::time::Duration::from_millis(200 << in_vain)).await;
                }
                outcome => break outcome.map_err(UpstreamError::of_push)?,
            }
        };
        let status = match sent {
            Sent::Now => "Pushed".to_owned(),
            Sent::Before => "Layer already exists".to_owned(),
            Sent::From(repository) => format!("Mounted from {repository}"),
        };
        progress.layer(diff_id, &status).await;
        Ok(())
    }

    async fn blob(
        &self,
        layer: &LayerDescriptor,
        known: &[String],
        progress: &Progress,
    ) -> std::result::Result<Sent, UpstreamError> {
        let LayerDescriptor { digest, size_bytes, .. } = layer;
        if self.repository.has_blob(digest).await? {
            return Ok(Sent::Before);
        }
        let mut at = None;
        for from in known {
            self.repository.also_read(from);
            // Who may not read there gets an upload, or a refusal of this attempt alone.
            match self.repository.begin_upload(Some((digest, from))).await {
                Ok(Begun::Mounted) => return Ok(Sent::From(from.clone())),
                Ok(Begun::At(url)) => at = Some(url),
                Err(error) => tracing::debug!(%error, from, "not mounted"),
            }
        }
        let at = match at {
            Some(url) => url,
            None => match self.repository.begin_upload(None).await? {
                Begun::At(url) => url,
                Begun::Mounted => return Ok(Sent::Before),
            },
        };
        let here = |e: Error| UpstreamError::Invalid(e.public_message());
        let content = self.blobs.read(digest, None).await.map_err(here)?.stream;
        let sent = Arc::new(AtomicU64::new(0));
        let put = self.repository.put_blob(&at, digest, *size_bytes, content, &sent);
        tokio::select! {
            outcome = put => outcome.map(|()| Sent::Now),
            never = tell(&sent, layer, progress) => match never {},
        }
    }

    async fn config(&self, image: &TaggedImage) -> Result<()> {
        let sent = async {
            if self.repository.has_blob(&image.id).await? {
                return Ok(());
            }
            let Begun::At(at) = self.repository.begin_upload(None).await? else { return Ok(()) };
            let content = bytes::Bytes::copy_from_slice(&image.config);
            let size = content.len() as u64;
            let whole = stream::once(std::future::ready(Ok(content)));
            self.repository.put_blob(&at, &image.id, size, whole, &Arc::default()).await
        };
        sent.await.map_err(UpstreamError::of_push)
    }
}

/// Says now and then how much of a layer is out, until the upload is over.
async fn tell(sent: &AtomicU64, layer: &LayerDescriptor, progress: &Progress) -> Infallible {
    let mut last = 0;
    loop {
        tokio::time::sleep(PROGRESS_INTERVAL).await;
        let now = sent.load(Ordering::Relaxed);
        if now != last {
            last = now;
            progress.pushing(&layer.diff_id, now, layer.size_bytes).await;
        }
    }
}
