//! Uploads that nobody goes on with end, and files without an upload go.

use std::time::{Duration, SystemTime};

use chassis::Ctx;
use model::UploadId;

use super::Registry;
use crate::limits::{UPLOAD_IDLE, UPLOAD_SWEEP, UPLOADS_SWEPT_MAX};

/// A file younger than this may belong to an upload that is being begun.
const FILE_GRACE: Duration = Duration::from_secs(3600);

/// Looks now and then, as long as the service runs.
pub(crate) fn start(registry: Registry, ctx: &Ctx) {
    let stop = ctx.cancel();
    tokio::spawn(async move {
        let mut every = tokio::time::interval(UPLOAD_SWEEP);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = every.tick() => {}
            }
            if let Err(error) = registry.sweep_uploads(UPLOAD_IDLE, FILE_GRACE).await {
                tracing::warn!(%error, "uploads were not swept");
            }
        }
    });
}

impl Registry {
    /// Ends uploads that were idle for so long, and removes files without an upload that are so old.
    pub(crate) async fn sweep_uploads(&self, idle: Duration, grace: Duration) -> model::Result<()> {
        for id in self.store.end_idle_uploads(idle, UPLOADS_SWEPT_MAX).await? {
            self.discard(id).await;
        }
        let dir = self.blobs.uploads();
        let old = move || -> std::io::Result<Vec<UploadId>> {
            let mut found = Vec::new();
            for entry in std::fs::read_dir(dir)? {
                let entry = entry?;
                let age = SystemTime::now().duration_since(entry.metadata()?.modified()?).unwrap_or_default();
                if age >= grace
                    && let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok())
                {
                    found.push(id);
                }
            }
            Ok(found)
        };
        let found = tokio::task::spawn_blocking(old).await.map_err(model::Error::internal)?;
        let found = found.map_err(model::Error::internal)?;
        let alive = self.store.uploads_alive(&found).await?;
        for id in found.into_iter().filter(|id| !alive.contains(id)) {
            self.discard(id).await;
        }
        Ok(())
    }
}
