//! Garbage collection, while everything else goes on: no read-only mode, no time of day.
//!
//! ```text
//! link that no manifest needs ──a day unasked──► gone ─┐
//! image, repository, manifest deleted ─────────────────┴─► blob nothing refers to ──marked, an hour──► row ─► file
//! upload nobody goes on with ──a day──► gone, file too          file without a row ──an hour──► gone
//! ```
//!
//! **A row of `blobs` says that the file is there.** Why that is never untrue:
//!
//! 1. *Rows come after files.* Whoever makes a row has kept the digest ([`BlobStore::keep`]) since before
//!    it placed the file, or saw it in its place, and keeps it until the row is committed.
//! 2. *Files go after rows.* Here, and nowhere else, a digest is condemned, then its row deleted and
//!    committed, then its file removed; if it is unknown whether the row is gone, the file stays.
//! 3. *Kept and condemned exclude each other*, in this process, which has the directory to itself (it is
//!    locked). No network is between the lock and what it guards: a removal that was begun ends before
//!    anybody else begins, whatever becomes of connections and tasks.
//!
//! **What is referred to does not go.** References are foreign keys to that row, so a row with a reference
//! cannot be deleted: a delete that meets an insert waits for it and fails, an insert that meets a delete
//! waits for it and finds nothing, which is an answer (mount: upload it; manifest: blob unknown). The
//! mark and the grace only decide what is tried.
//!
//! - *Push*: a blob is linked to its repository in the transaction that ends its upload. "It is there"
//!   (HEAD, mount, GET of what no manifest needs) renews the link, so that the manifest may come most of
//!   `link_kept` later; it is the link that is renewed which answers, not one that was read before. A GET
//!   of what a manifest needs may be answered by the gateway, which opens the file by itself: it is read to
//!   its end, or gone, and then asked for here. A manifest holds its links by
//!   foreign key.
//! - *Pull into a project, `docker push` of an image, a new layer*: the digests are kept from before the
//!   first look until the transaction that refers to them; across processes `touched_at` says so.
//! - *Read in flight*: the digest is kept from the look at the link until the file is open; an open file is
//!   read to its end whoever removes its name.
//! - *Hosts*: a layer that a container needs is a layer of its image, and that a reference.
//! - *Crash*: between row and file the file is left, without a row; it goes when files are compared with
//!   rows. Uploads whose row went before their file, likewise.
//!
//! Untagged manifests stay, as the distribution spec has it: they can be asked for by digest.

use std::time::{Duration, SystemTime};

use chassis::{
    CancellationToken, Ctx,
    metrics::Metrics,
    prometheus::{HistogramVec, IntCounterVec},
};
use model::{Digest, Result, UploadId};
use uuid::Uuid;

use super::Registry;
use crate::{
    blob_store::SHARDS,
    config::Collection,
    limits::{
        COLLECTED_AT_ONCE, COLLECTION_INTERVAL_MIN, SHARDS_COMPARED, UPLOAD_FILE_GRACE, UPLOAD_IDLE, UPLOADS_SWEPT_MAX,
        USAGE_ROWS_KEPT,
    },
};

/// What the lease is on, and how long one that its holder does not prolong holds others up.
const LEASE: (&str, Duration) = ("collect blobs", Duration::from_secs(120));

/// Collects, as long as the service runs.
pub(crate) struct Collector {
    registry: Registry,
    interval: Duration,
    link_kept: Duration,
    blob_kept: Duration,
    /// Who we are among several image-svc.
    holder: Uuid,
    next_shard: u16,
    metrics: Measured,
}

struct Measured {
    collected: IntCounterVec,
    bytes: IntCounterVec,
    durations: HistogramVec,
}

impl Collector {
    pub(crate) fn new(registry: Registry, config: &Collection, metrics: &Metrics) -> Self {
        let metrics = Measured {
            collected: metrics.counter("wharfage_collected_total", "Things that were garbage and are gone", &["what"]),
            bytes: metrics.counter("wharfage_collected_bytes_total", "Bytes of blobs that are gone", &[]),
            durations: metrics.seconds("wharfage_collection_duration_seconds", "One collection", &["outcome"]),
        };
        for what in ["uploads", "links", "blobs", "files"] {
            metrics.collected.with_label_values(&[what]);
        }
        Self {
            registry,
            interval: Duration::from_millis(config.interval_ms).max(COLLECTION_INTERVAL_MIN),
            link_kept: Duration::from_millis(config.link_kept_ms),
            blob_kept: Duration::from_millis(config.blob_kept_ms),
            holder: chassis::ids::uuid_v7(),
            next_shard: 0,
            metrics,
        }
    }

    pub(crate) fn start(mut self, ctx: &Ctx) {
        let stop: CancellationToken = ctx.cancel();
        tokio::spawn(async move {
            let mut every = tokio::time::interval(self.interval);
            every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = every.tick() => {}
                }
                let began = std::time::Instant::now();
                let outcome = tokio::select! {
                    () = stop.cancelled() => return,
                    outcome = self.collect() => outcome,
                };
                if let Err(error) = &outcome {
                    tracing::warn!(%error, "garbage stays until the next collection");
                }
                let outcome = if outcome.is_ok() { "done" } else { "failed" };
                self.metrics.durations.with_label_values(&[outcome]).observe(began.elapsed().as_secs_f64());
            }
        });
    }

    /// One collection.
    async fn collect(&mut self) -> Result<()> {
        self.end_uploads(UPLOAD_IDLE, UPLOAD_FILE_GRACE).await?;
        let store = &self.registry.store;
        store.touch_blobs(&self.registry.blobs.kept()).await?;
        if store.lease_upkeep(LEASE.0, self.holder, LEASE.1).await? {
            self.drop_links().await?;
            store.mark_unused_blobs().await?;
            self.remove_blobs().await?;
            store.add_up_registry_usage(USAGE_ROWS_KEPT).await?;
        }
        for _ in 0..SHARDS_COMPARED {
            self.compare_files(self.next_shard).await?;
            self.next_shard = (self.next_shard + 1) % SHARDS;
        }
        Ok(())
    }

    /// Ends uploads that were idle for so long, and removes files without an upload that are so old.
    async fn end_uploads(&self, idle: Duration, grace: Duration) -> Result<()> {
        let registry = &self.registry;
        let ended = registry.store.end_idle_uploads(idle, UPLOADS_SWEPT_MAX).await?;
        self.count("uploads", ended.len() as u64);
        for id in ended {
            registry.discard(id).await;
        }
        let dir = registry.blobs.uploads();
        let old = move || -> std::io::Result<Vec<UploadId>> {
            let mut found = Vec::new();
            for entry in std::fs::read_dir(dir)? {
                let entry = entry?;
                // One that ends meanwhile is no fault.
                let Ok(modified) = entry.metadata().and_then(|meta| meta.modified()) else { continue };
                if SystemTime::now().duration_since(modified).unwrap_or_default() >= grace
                    && let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok())
                {
                    found.push(id);
                }
            }
            Ok(found)
        };
        let found = tokio::task::spawn_blocking(old).await.map_err(model::Error::internal)?;
        let found = found.map_err(model::Error::internal)?;
        let alive = registry.store.uploads_alive(&found).await?;
        for id in found.into_iter().filter(|id| !alive.contains(id)) {
            registry.discard(id).await;
        }
        Ok(())
    }

    async fn drop_links(&self) -> Result<()> {
        loop {
            let dropped = self.registry.store.drop_unneeded_links(self.link_kept, COLLECTED_AT_ONCE).await?;
            self.count("links", dropped);
            if dropped < COLLECTED_AT_ONCE.unsigned_abs().into() {
                return Ok(());
            }
        }
    }

    async fn remove_blobs(&self) -> Result<()> {
        let mut after = String::new();
        loop {
            let found = self.registry.store.unused_blobs(self.blob_kept, &after, COLLECTED_AT_ONCE.into()).await?;
            let Some(last) = found.last() else { return Ok(()) };
            after = last.to_string();
            for digest in &found {
                self.remove_blob(digest).await?;
            }
            if !self.registry.store.lease_upkeep(LEASE.0, self.holder, LEASE.1).await? {
                return Ok(());
            }
        }
    }

    /// Removes a blob unless it is used after all.
    async fn remove_blob(&self, digest: &Digest) -> Result<()> {
        let (store, blobs) = (&self.registry.store, &self.registry.blobs);
        let Some(condemned) = blobs.condemn(digest) else { return Ok(()) };
        let Some(size_bytes) = store.delete_unused_blob(digest, self.blob_kept).await? else { return Ok(()) };
        blobs.remove(condemned).await?;
        self.count("blobs", 1);
        self.metrics.bytes.with_label_values(&[] as &[&str]).inc_by(size_bytes);
        tracing::info!(%digest, size_bytes, "blob collected");
        Ok(())
    }

    /// Removes files in one directory that have had no row for as long as a blob is kept.
    async fn compare_files(&self, shard: u16) -> Result<()> {
        let (store, blobs) = (&self.registry.store, &self.registry.blobs);
        let found = blobs.stored_before(self.blob_kept, shard).await?;
        for part in found.chunks(COLLECTED_AT_ONCE.unsigned_abs() as usize) {
            let recorded = store.recorded_blobs(part).await?;
            for digest in part.iter().filter(|digest| !recorded.contains(digest)) {
                let Some(condemned) = blobs.condemn(digest) else { continue };
                // Nobody makes a row any more; one may have been made since the look.
                if store.recorded_blobs(std::slice::from_ref(digest)).await?.is_empty() {
                    blobs.remove(condemned).await?;
                    self.count("files", 1);
                    tracing::info!(%digest, "a file without a row is removed");
                }
            }
        }
        Ok(())
    }

    fn count(&self, what: &str, by: u64) {
        self.metrics.collected.with_label_values(&[what]).inc_by(by);
    }
}
