//! Writing to a repository: blobs, and the manifest that names them. An upload's address is the
//! registry's to choose, so it goes through the egress policy like every other, and credentials go along
//! only to the registry itself.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use model::Digest;
use reqwest::{
    Body, Method, Response, StatusCode, Url,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION},
};

use super::{Repository, UpstreamError};
use crate::limits::{PROGRESS_INTERVAL, PUSH_ANSWER_PATIENCE};

/// What came of beginning an upload.
pub(crate) enum Begun {
    /// The registry had the blob elsewhere, and links it.
    Mounted,
    /// It goes on here.
    At(Url),
}

impl Repository {
    /// Asks to link a blob from another repository of the same registry, or begins an upload.
    pub(crate) async fn begin_upload(&self, mount: Option<(&Digest, &str)>) -> Result<Begun, UpstreamError> {
        let path = match mount {
            Some((digest, from)) => format!("blobs/uploads/?mount={digest}&from={from}"),
            None => "blobs/uploads/".to_owned(),
        };
        let headers = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("0"))]);
        let response = self.send(Method::POST, &path, headers).await?;
        match response.status() {
            StatusCode::CREATED => Ok(Begun::Mounted),
            StatusCode::ACCEPTED => Ok(Begun::At(self.location(&response)?)),
            _ => Err(self.refusal(response).await),
        }
    }

    /// Sends a blob to where its upload goes on, counting in `sent` what is out.
    pub(crate) async fn put_blob(
        &self,
        at: &Url,
        digest: &Digest,
        size_bytes: u64,
        content: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        sent: &Arc<AtomicU64>,
    ) -> Result<(), UpstreamError> {
        let mut url = at.clone();
        url.query_pairs_mut().append_pair("digest", digest.as_str());
        let counter = sent.clone();
        let body = Body::wrap_stream(content.inspect(move |chunk| {
            let length = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
            counter.fetch_add(length, Ordering::Relaxed);
        }));
        let headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
            (CONTENT_LENGTH, HeaderValue::from(size_bytes)),
        ]);
        let mut answer = std::pin::pin!(self.put(url, headers, body));
        let (mut last, mut moved) = (0, Instant::now());
        let response = loop {
            tokio::select! {
                response = &mut answer => break response?,
                () = tokio::time::sleep(PROGRESS_INTERVAL) => {
                    let now = sent.load(Ordering::Relaxed);
                    if now != last {
                        (last, moved) = (now, Instant::now());
                    }
                    // All of it is out: the registry reads it once more before it answers.
                    let patience = if now < size_bytes { self.idle() } else { PUSH_ANSWER_PATIENCE };
                    if moved.elapsed() > patience {
                        return Err(UpstreamError::Unreachable(format!("blob {digest}: the registry takes no more of it")));
                    }
                }
            }
        };
        match response.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::ACCEPTED => Ok(()),
            _ => Err(self.refused(response).await),
        }
    }

    /// Puts a manifest under a tag.
    pub(crate) async fn put_manifest(
        &self,
        tag: &str,
        media_type: &str,
        digest: &Digest,
        content: Vec<u8>,
    ) -> Result<(), UpstreamError> {
        let bad = |_| UpstreamError::Invalid(format!("{media_type:?} is no media type"));
        let kind = HeaderValue::from_str(media_type).map_err(bad)?;
        let url = self.address(&format!("manifests/{tag}"))?;
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind), (CONTENT_LENGTH, HeaderValue::from(content.len()))]);
        let response = tokio::time::timeout(PUSH_ANSWER_PATIENCE, self.put(url, headers, content.into())).await;
        let silent = |_| UpstreamError::Unreachable("the registry does not answer to the manifest".into());
        let response = response.map_err(silent)??;
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        let kept =
            response.headers().get("docker-content-digest").and_then(|d| d.to_str().ok()?.parse::<Digest>().ok());
        match kept {
            Some(kept) if kept != *digest => {
                Err(UpstreamError::Invalid(format!("the registry keeps the manifest as {kept}; it is {digest}")))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What a registry says no with, if it says it in time: nothing else watches over what is sent.
    async fn refused(&self, response: Response) -> UpstreamError {
        let silent = UpstreamError::Unreachable("the registry refuses and does not say why".into());
        tokio::time::timeout(self.idle(), self.refusal(response)).await.unwrap_or(silent)
    }

    fn location(&self, response: &Response) -> Result<Url, UpstreamError> {
        let bad = || UpstreamError::Invalid("the registry begins an upload and does not say where".into());
        let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok()).ok_or_else(bad)?;
        response.url().join(location).map_err(|_| bad())
    }
}
