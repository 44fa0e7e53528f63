//! The layers of one pull: a few at a time, told in the order `docker pull` shows them.

use std::{collections::HashSet, time::Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use model::{Digest, Error, Result};

use super::{Progress, Pull, download::Download, flight::Transfer, source::Source};
use crate::{
    limits::{LAYERS_IN_PARALLEL, PROGRESS_INTERVAL},
    upstream::Descriptor,
};

impl Pull {
    /// Brings every layer that this project does not hold yet.
    pub(super) async fn fetch_layers(&self, progress: &Progress) -> Result<()> {
        let layers: Vec<Descriptor> = self.resolved.image.layers.iter().map(|(layer, _)| layer.clone()).collect();
        let held = self.layers_held(&layers).await?;
        let mut told = HashSet::new();
        for layer in &layers {
            if told.insert(&layer.digest) {
                let status = if held.contains(&layer.digest) { "Already exists" } else { "Pulling fs layer" };
                progress.layer(&layer.digest, status).await;
            }
        }
        let mut missing = HashSet::new();
        let missing: Vec<Descriptor> =
            layers.into_iter().filter(|l| !held.contains(&l.digest) && missing.insert(l.digest.clone())).collect();
        stream::iter(missing)
            .map(|layer| self.fetch_layer(layer, progress))
            .buffered(LAYERS_IN_PARALLEL)
            .try_for_each(async |layer| {
                progress.layer(&layer, "Pull complete").await;
                Ok(())
            })
            .await
    }

    /// Layers of images of this very project, whole in the store. Those of others do not count.
    async fn layers_held(&self, layers: &[Descriptor]) -> Result<HashSet<Digest>> {
        let digests: Vec<Digest> = layers.iter().map(|l| l.digest.clone()).collect();
        let mut tx = self.inner.store.project_tx(&self.scope).await?;
        let mut held = tx.layers_held(&digests).await?;
        drop(tx);
        for layer in layers {
            if held.contains(&layer.digest) && self.inner.blobs.size(&layer.digest).await? != Some(layer.size) {
                held.remove(&layer.digest);
            }
        }
        Ok(held)
    }

    async fn fetch_layer(&self, layer: Descriptor, progress: &Progress) -> Result<Digest> {
        let (digest, total) = (layer.digest.clone(), layer.size);
        let repository = match &self.source {
            Source::Upstream(repository) => repository.clone(),
            Source::Hosted(hosted) => {
                // Nothing is transferred: what the repository links is here.
                hosted.has(&layer).await.map_err(|e| e.about(&self.reference))?;
                progress.layer(&digest, "Download complete").await;
                return Ok(digest);
            }
        };
        let key = (repository.sharing_key(), digest.clone());
        let flight = self.inner.flights.join(key, |state| {
            let download = Download {
                store: self.inner.store.clone(),
                blobs: self.inner.blobs.clone(),
                repository: repository.clone(),
                reference: self.reference.clone(),
                layer,
            };
            download.run(state)
        });
        let mut watch = flight.watch();
        let mut said: Option<Instant> = None;
        loop {
            let transfer = watch.borrow_and_update().clone();
            match transfer {
                Transfer::Waiting | Transfer::Verifying => {}
                Transfer::Received(current) => {
                    if said.is_none_or(|at| at.elapsed() >= PROGRESS_INTERVAL) {
                        progress.downloading(&digest, current, total).await;
                        said = Some(Instant::now());
                    }
                }
                Transfer::Done => break,
                Transfer::Failed(error) => return Err(error),
            }
            let over = watch.changed().await.is_err();
            if over && !matches!(*watch.borrow(), Transfer::Done | Transfer::Failed(_)) {
                return Err(Error::internal("a download ended without a word"));
            }
        }
        if said.is_none() {
            progress.downloading(&digest, total, total).await;
        }
        progress.layer(&digest, "Verifying Checksum").await;
        progress.layer(&digest, "Download complete").await;
        Ok(digest)
    }
}
