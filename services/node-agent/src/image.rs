//! An image's layers on this host: fetched from image-svc and unpacked while they arrive, several at
//! once, each one once however many containers wait for it.

use std::{
    collections::HashMap,
    io::{self, Read},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use chassis::{backoff::Backoff, client::Internal};
use contract::{host::PlannedImage, image::layer_path};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, future::Shared};
use model::{Digest, LayerDescriptor};
use tokio::sync::{Semaphore, mpsc};

use crate::{
    config::ImageLimits,
    layers::{Form, Layer, Layers, Limits, Source, UnpackError, unpack},
};

/// Chunks on their way from the connection to the unpacker; each is at most a TLS record or two.
const CHUNKS_IN_FLIGHT: usize = 32;
/// Tries for what may pass: image-svc restarting, a broken connection.
const ATTEMPTS: u32 = 6;

type Fetch = Shared<BoxFuture<'static, Result<Layer, String>>>;

/// Brings layers here.
#[derive(Clone)]
pub(crate) struct Images(Arc<Inner>);

struct Inner {
    layers: Layers,
    source: Internal,
    limits: ImageLimits,
    slots: Semaphore,
    fetching: Mutex<HashMap<Digest, Fetch>>,
}

impl Images {
    pub(crate) fn new(layers: Layers, source: Internal, limits: ImageLimits) -> Self {
        let slots = Semaphore::new(limits.parallel_layers.max(1));
        Self(Arc::new(Inner { layers, source, limits, slots, fetching: Mutex::default() }))
    }

    /// The unpacked layers of an image, lowest first, fetched if need be.
    ///
    /// # Errors
    /// Why not, in words for the tenant.
    pub(crate) async fn ensure(&self, image: &PlannedImage) -> Result<Vec<Layer>, String> {
        let layers = distinct(&image.layers);
        futures::future::try_join_all(layers.into_iter().map(|layer| self.layer(layer))).await
    }

    /// The same, if all of them are here.
    pub(crate) fn find(&self, image: &PlannedImage) -> Option<Vec<Layer>> {
        distinct(&image.layers).into_iter().map(|layer| self.0.layers.find(&layer.diff_id)).collect()
    }

    fn layer(&self, layer: LayerDescriptor) -> BoxFuture<'static, Result<Layer, String>> {
        if let Some(here) = self.0.layers.find(&layer.diff_id) {
            return futures::future::ready(Ok(here)).boxed();
        }
        let mut fetching = self.0.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        let fetch = fetching.entry(layer.diff_id.clone()).or_insert_with(|| {
            let inner = self.0.clone();
            // A task of its own: it goes on when whoever asked first is removed meanwhile.
            let task = tokio::spawn(async move {
                let outcome = inner.fetch_patiently(&layer).await;
                inner.fetching.lock().unwrap_or_else(PoisonError::into_inner).remove(&layer.diff_id);
                outcome
            });
            task.map(|joined| joined.unwrap_or_else(|e| Err(format!("unpacking failed: {e}")))).boxed().shared()
        });
        fetch.clone().boxed()
    }
}

/// A layer that appears twice counts where it is topmost: all it does below is done again there.
/// Overlay refuses the same directory twice.
fn distinct(layers: &[LayerDescriptor]) -> Vec<LayerDescriptor> {
    let mut kept: Vec<LayerDescriptor> = Vec::with_capacity(layers.len());
    for layer in layers.iter().rev() {
        if !kept.iter().any(|k| k.diff_id == layer.diff_id) {
            kept.push(layer.clone());
        }
    }
    kept.reverse();
    kept
}

/// Why one try failed, and whether another may help.
struct Failed {
    passing: bool,
    /// It can only be a directory.
    no_image: bool,
    why: String,
}

impl Failed {
    fn for_good(why: String) -> Self {
        Self { passing: false, no_image: false, why }
    }
}

impl Inner {
    async fn fetch_patiently(&self, layer: &LayerDescriptor) -> Result<Layer, String> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(3));
        let (mut attempt, mut form) = (0, self.layers.form());
        loop {
            attempt += 1;
            match self.fetch(layer, form).await {
                Ok(here) => return Ok(here),
                Err(failed) if failed.no_image && form == Form::Image => {
                    tracing::info!(layer = %layer.digest, why = failed.why, "unpacking a layer as a directory");
                    form = Form::Directory;
                }
                Err(failed) if failed.passing && attempt < ATTEMPTS => {
                    tracing::info!(layer = %layer.digest, attempt, why = failed.why, "fetching a layer again");
                    backoff.wait().await;
                }
                Err(failed) => {
                    tracing::warn!(layer = %layer.digest, why = failed.why, "a layer cannot be had");
                    return Err(failed.why);
                }
            }
        }
    }

    async fn fetch(&self, layer: &LayerDescriptor, form: Form) -> Result<Layer, Failed> {
        let _slot = self.slots.acquire().await;
        if let Some(here) = self.layers.find(&layer.diff_id) {
            return Ok(here);
        }
        let started = std::time::Instant::now();
        let response = self
            .source
            .stream(chassis::axum::http::Method::GET, &layer_path(&layer.digest), None::<&()>, None::<&()>)
            .await
            .map_err(|e| Failed {
                passing: matches!(e, model::Error::Unavailable(_)),
                no_image: false,
                why: format!("layer {}: {e}", layer.digest),
            })?;
        let (sender, chunks) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let feed = async move {
            let mut body = response.bytes_stream();
            while let Some(chunk) = body.next().await {
                let chunk = chunk.map_err(|e| io::Error::new(io::ErrorKind::ConnectionAborted, e.to_string()));
                if sender.send(chunk).await.is_err() {
                    return;
                }
            }
        };
        let (layers, wanted) = (self.layers.clone(), layer.clone());
        let limits = self.limits_for(layer);
        let unpacking = tokio::task::spawn_blocking(move || stage_and_unpack(&layers, &wanted, (form, limits), chunks));
        let (unpacked, ()) = tokio::join!(unpacking, feed);
        let here = unpacked.unwrap_or_else(|e| Err(Failed::for_good(format!("unpacking failed: {e}"))))?;
        let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(layer = %layer.diff_id, bytes = layer.size_bytes, ?form, elapsed_ms, "layer unpacked");
        Ok(here)
    }

    fn limits_for(&self, layer: &LayerDescriptor) -> Limits {
        Limits {
            packed_bytes: layer.size_bytes,
            unpacked_bytes: self.limits.unpacked_bytes,
            entries: self.limits.entries,
            ratio: self.limits.ratio,
            ratio_free_bytes: self.limits.ratio_free_bytes,
            tree_bytes: self.limits.tree_bytes,
        }
    }
}

fn stage_and_unpack(
    layers: &Layers,
    layer: &LayerDescriptor,
    (form, limits): (Form, Limits),
    chunks: mpsc::Receiver<io::Result<Bytes>>,
) -> Result<Layer, Failed> {
    let hosts = |e: &io::Error| Failed::for_good(format!("layer {}: {e}", layer.digest));
    let stage = layers.stage(form).map_err(|e| hosts(&e))?;
    let blob = ChunkReader { chunks, current: Bytes::new() };
    unpack(Source { blob, layer, limits }, stage.path(), form).map_err(|e| Failed {
        no_image: matches!(&e, UnpackError::TooLargeForImage(..)),
        passing: matches!(&e, UnpackError::Failed(_, io) if io.kind() == io::ErrorKind::ConnectionAborted),
        why: e.to_string(),
    })?;
    stage.publish(&layer.diff_id).map_err(|e| hosts(&e))
}

/// The blob as it arrives, to a thread that reads.
struct ChunkReader {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Read for ChunkReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let n = self.current.len().min(buf.len());
        buf[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use model::LayerEncoding;

    use super::*;

    #[test]
    fn a_layer_that_appears_twice_counts_where_it_is_topmost() {
        let layer = |n: u8| LayerDescriptor {
            digest: Digest::sha256([n; 32]),
            diff_id: Digest::sha256([n; 32]),
            size_bytes: 1,
            encoding: LayerEncoding::Tar,
        };
        let kept = distinct(&[layer(1), layer(2), layer(1), layer(3)]);
        let order: Vec<_> = kept.iter().map(|l| l.diff_id.clone()).collect();
        assert_eq!(order, [2, 1, 3].map(|n| Digest::sha256([n; 32])));
    }
}
