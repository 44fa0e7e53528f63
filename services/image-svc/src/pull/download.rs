//! One blob from an upstream into the store. A connection that breaks is taken up where it broke;
//! what arrives is hashed as it is written, and counts only if it is what the digest names.

use std::{sync::Arc, time::Duration};

use model::{Error, ImageReference};
use reqwest::{Response, StatusCode, header::CONTENT_RANGE};
use store::Store;
use tokio::sync::watch;

use super::flight::Transfer;
use crate::{
    blob_store::{BlobStore, BlobWriter},
    limits::{BLOB_ATTEMPTS_IN_VAIN_MAX, BLOB_ATTEMPTS_MAX},
    upstream::{Descriptor, Repository, UpstreamError},
};

/// What a download needs, owned: it may outlive the pull that began it.
pub(super) struct Download {
    pub(super) store: Store,
    pub(super) blobs: BlobStore,
    pub(super) repository: Arc<Repository>,
    pub(super) reference: ImageReference,
    pub(super) layer: Descriptor,
}

enum Interruption {
    /// Trying again may help.
    Broken(UpstreamError),
    /// It may not.
    Final(Error),
}

impl Download {
    /// Runs to the end and says so.
    pub(super) async fn run(self, state: watch::Sender<Transfer>) {
        let outcome = match self.bring(&state).await {
            Ok(()) => Transfer::Done,
            Err(error) => Transfer::Failed(error),
        };
        state.send_replace(outcome);
    }

    async fn bring(&self, state: &watch::Sender<Transfer>) -> Result<(), Error> {
        if self.is_here_and_theirs().await? {
            return Ok(());
        }
        let mut writer = self.blobs.begin(&self.layer.digest, self.layer.size).await?;
        let (mut in_vain, mut attempts) = (0, 0);
        loop {
            let before = writer.written();
            attempts += 1;
            match self.transfer(&mut writer, state).await {
                Ok(()) => break,
                Err(Interruption::Final(error)) => return Err(error),
                Err(Interruption::Broken(error)) => {
                    in_vain = if writer.written() > before { 0 } else { in_vain + 1 };
                    tracing::debug!(layer = %self.layer.digest, at = writer.written(), %error, "download broken off");
                    if in_vain >= BLOB_ATTEMPTS_IN_VAIN_MAX || attempts >= BLOB_ATTEMPTS_MAX {
                        return Err(error.about(&self.reference));
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(100 << in_vain)).await;
        }
        state.send_replace(Transfer::Verifying);
        writer.finish().await?;
        self.store.record_blob(&self.layer.digest, self.layer.size, &self.repository.origin()).await
    }

    /// Content that others have brought is used again only if this very upstream gave it to them and
    /// gives it to this pull as well: knowing a digest opens nothing.
    async fn is_here_and_theirs(&self) -> Result<bool, Error> {
        if self.blobs.size(&self.layer.digest).await? != Some(self.layer.size)
            || !self.store.blob_came_from(&self.layer.digest, &self.repository.origin()).await?
        {
            return Ok(false);
        }
        self.repository.has_blob(&self.layer.digest).await.map_err(|e| e.about(&self.reference))
    }

    async fn transfer(&self, writer: &mut BlobWriter, state: &watch::Sender<Transfer>) -> Result<(), Interruption> {
        let mut response = self.repository.blob(&self.layer.digest, writer.written()).await.map_err(may_retry(self))?;
        let mut skip = self.bytes_to_skip(&response, writer.written())?;
        loop {
            let chunk = match response.chunk().await {
                Ok(chunk) => chunk,
                Err(error) => return Err(Interruption::Broken(self.broken(&error.to_string()))),
            };
            let Some(mut chunk) = chunk else { break };
            let already = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            skip -= already as u64;
            chunk = chunk.slice(already..);
            if !chunk.is_empty() {
                writer.write(chunk).await.map_err(Interruption::Final)?;
                state.send_replace(Transfer::Received(writer.written()));
            }
        }
        if writer.written() < self.layer.size {
            return Err(Interruption::Broken(self.broken("unexpected EOF")));
        }
        Ok(())
    }

    /// An upstream that cannot resume sends everything again; what is here already is passed over.
    fn bytes_to_skip(&self, response: &Response, written: u64) -> Result<u64, Interruption> {
        let wrong = |what: String| {
            Interruption::Final(Error::Failed(format!("layer {}: the registry {what}", self.layer.digest)))
        };
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let start = response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok()).and_then(range_start);
            return match start {
                Some(start) if start == written => Ok(0),
                Some(_) | None => Err(wrong(format!("answers with another range than from {written} on"))),
            };
        }
        match response.content_length() {
            Some(length) if length != self.layer.size => {
                Err(wrong(format!("sends {length} bytes where the manifest says {}", self.layer.size)))
            }
            Some(_) | None => Ok(written),
        }
    }

    fn broken(&self, why: &str) -> UpstreamError {
        UpstreamError::Unreachable(format!("layer {}: download broke off: {why}", self.layer.digest))
    }
}

fn may_retry(download: &Download) -> impl Fn(UpstreamError) -> Interruption + '_ {
    |error| {
        if matches!(error, UpstreamError::Unreachable(_)) {
            Interruption::Broken(error)
        } else {
            Interruption::Final(error.about(&download.reference))
        }
    }
}

/// `bytes 10-99/100`
fn range_start(value: &str) -> Option<u64> {
    value.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}
