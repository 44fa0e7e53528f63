//! What is read most is answered here: manifests out of memory, blobs out of image-svc's directory where
//! it is on this machine. Both are named by what they are, so that a copy is never stale; whether the asker
//! may have it, and that a tag means it now, was read from Postgres for this request.

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts},
    response::Response,
};
use contract::registry::{MANIFEST_BYTES_MAX, MANIFESTS, Refusal, RegistryQuery, blob_file};
use futures::TryStreamExt as _;
use model::{Digest, DigestAlgorithm, Error, RepositoryId, RepositoryName};
use quick_cache::{Weighter, sync::Cache};
use store::{Found, LookedFor, RepositoryAccess};

use super::{Refused, relay};
use crate::{Gateway, limits};

/// Manifests that were read lately. By repository too: how fast an answer comes must not say what others have.
#[derive(Debug)]
pub(crate) struct ManifestsRead(Cache<(RepositoryId, Digest), Bytes, Bulk>);

#[derive(Clone, Debug)]
struct Bulk;

impl Weighter<(RepositoryId, Digest), Bytes> for Bulk {
    fn weight(&self, _: &(RepositoryId, Digest), content: &Bytes) -> u64 {
        content.len() as u64 + limits::MANIFEST_OVERHEAD_BYTES
    }
}

impl Default for ManifestsRead {
    fn default() -> Self {
        let most = limits::MANIFESTS_READ_BYTES;
        Self(Cache::with_weighter((most / (4 * limits::MANIFEST_OVERHEAD_BYTES)) as usize, most, Bulk))
    }
}

/// The answer to whoever may have it, if it is one of those that are given here.
pub(super) async fn answer(
    gateway: &Gateway,
    access: &RepositoryAccess,
    name: &RepositoryName,
    (wanted, found): (LookedFor, Option<Found>),
    parts: &Parts,
) -> Result<Option<Response>, Refused> {
    let Some(repository) = access.repository else { return Ok(None) };
    let Some(found) = found else {
        return match wanted {
            // What every push asks first.
            LookedFor::Blob(_) => Err(Refusal::blob_unknown().into()),
            LookedFor::Manifest(_) | LookedFor::Access => Ok(None),
        };
    };
    // Parts, and answers that say that there is nothing new, are rare.
    if [header::RANGE, header::IF_RANGE, header::IF_NONE_MATCH].iter().any(|name| parts.headers.contains_key(name)) {
        return Ok(None);
    }
    match wanted {
        LookedFor::Access => Ok(None),
        LookedFor::Manifest(_) => {
            let body = if parts.method == Method::HEAD {
                Body::empty()
            } else {
                match manifest(gateway, access, repository, name, &found.digest).await? {
                    Some(content) => Body::from(content),
                    None => return Ok(None),
                }
            };
            let Ok(media_type) = HeaderValue::from_str(&found.media_type) else { return Ok(None) };
            Ok(Some(labelled(body, media_type, &found)))
        }
        LookedFor::Blob(digest) => {
            // Who asks whether a blob is there counts on the answer: image-svc renews its link.
            if parts.method == Method::HEAD || !found.needed {
                return Ok(None);
            }
            let Some(body) = blob(gateway, &digest, found.size_bytes).await? else { return Ok(None) };
            let mut response = labelled(body, HeaderValue::from_static("application/octet-stream"), &found);
            response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            Ok(Some(response))
        }
    }
}

fn labelled(body: Body, media_type: HeaderValue, found: &Found) -> Response {
    let mut response = Response::new(body);
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, media_type);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(found.size_bytes));
    // Digests have no character that a header cannot carry.
    if let (Ok(etag), Ok(digest)) =
        (HeaderValue::from_str(&format!("\"{}\"", found.digest)), HeaderValue::from_str(found.digest.as_str()))
    {
        headers.insert(header::ETAG, etag);
        headers.insert(HeaderName::from_static("docker-content-digest"), digest);
    }
    response
}

/// The bytes of a manifest that is there: kept ones, or image-svc's. `None` if it has them no more.
async fn manifest(
    gateway: &Gateway,
    access: &RepositoryAccess,
    repository: RepositoryId,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Option<Bytes>, Error> {
    let key = (repository, digest.clone());
    if let Some(content) = gateway.manifests.0.get(&key) {
        return Ok(Some(content));
    }
    let query = RegistryQuery {
        project: Some(access.project),
        repository: access.repository,
        name: name.to_string(),
        path: name.path.clone(),
        ..RegistryQuery::default()
    };
    let path = relay::below(MANIFESTS, digest.as_str());
    let nothing = None::<futures::stream::Empty<Result<Bytes, std::io::Error>>>;
    let answered = gateway.image.relay(Method::GET, &path, &query, HeaderMap::new(), nothing).await?;
    if !answered.status().is_success() {
        return Ok(None);
    }
    let broke_off = |e: &dyn std::fmt::Display| Error::Unavailable(format!("a manifest broke off: {e}"));
    let mut content = Vec::new();
    let mut chunks = answered.bytes_stream();
    while let Some(chunk) = chunks.try_next().await.map_err(|e| broke_off(&e))? {
        if content.len() + chunk.len() > MANIFEST_BYTES_MAX {
            return Err(Error::internal("a manifest is longer than manifests are"));
        }
        content.extend_from_slice(&chunk);
    }
    if !is(digest, &content) {
        return Err(Error::internal(format!("image-svc answered something else than {digest}")));
    }
    let content = Bytes::from(content);
    gateway.manifests.0.insert(key, content.clone());
    Ok(Some(content))
}

fn is(digest: &Digest, content: &[u8]) -> bool {
    let algorithm = match digest.algorithm() {
        DigestAlgorithm::Sha256 => &ring::digest::SHA256,
        DigestAlgorithm::Sha512 => &ring::digest::SHA512,
    };
    hex::encode(ring::digest::digest(algorithm, content)) == digest.hex()
}

/// A blob's file, opened: it is read to its end whoever removes its name. `None` where image-svc's
/// directory is not on this machine, or the blob is going this moment.
async fn blob(gateway: &Gateway, digest: &Digest, size_bytes: u64) -> Result<Option<Body>, Error> {
    let Some(directory) = &gateway.config.registry.blobs_dir else { return Ok(None) };
    match tokio::fs::File::open(directory.join(blob_file(digest))).await {
        Ok(file) => {
            let file = file.into_std().await;
            chassis::http::file_body(file, 0..size_bytes).map(Some).map_err(Error::internal)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            tracing::warn!(%digest, %error, "a blob's file cannot be opened; image-svc is asked");
            Ok(None)
        }
    }
}
