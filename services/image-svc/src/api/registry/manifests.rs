//! Manifests and indexes, by tag and by digest, byte for byte as they were pushed.

use axum::{
    body::{Body, to_bytes},
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderName, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use contract::registry::{Code, MANIFEST_BYTES_MAX, MANIFESTS, Refusal, RegistryQuery};
use model::{DigestAlgorithm, Error, ManifestReference};

use super::{
    Answer, DOCKER_CONTENT_DIGEST, Refused,
    access::{InRepository, Push},
    set,
};
use crate::{
    api::{AppState, blob_answer},
    blob_store::digest_by,
    registry::{document, refused},
};

const PATH: &str = "/internal/v1/registry/manifests/{reference}";
const _: () = assert!(MANIFESTS.len() + "/{reference}".len() == PATH.len(), "the path is the contract's");

fn reference(text: &str) -> Result<ManifestReference, Refused> {
    let code = if text.contains(':') { Code::DigestInvalid } else { Code::ManifestInvalid };
    text.parse().map_err(|e: Error| Refusal::new(code, e.to_string()).into())
}

/// Read a manifest, or what is known of it.
#[utoipa::path(get, path = PATH, operation_id = "registry_manifest", tag = "registry",
    params(("reference" = String, Path, description = "Tag or digest"), RegistryQuery),
    responses((status = 200, description = "The manifest"), (status = 304, description = "The caller has it"),
        (status = 404, description = "No such manifest")))]
pub(crate) async fn read_manifest(
    State(state): State<AppState>,
    InRepository { scope, repository, .. }: InRepository,
    Path(written): Path<String>,
    method: Method,
    asked: HeaderMap,
) -> Answer {
    // What can be no tag names nothing.
    let reference = reference(&written)
        .map_err(|no| if written.contains(':') { no } else { Refusal::manifest_unknown().into() })?;
    let mut tx = state.store.project_tx(&scope).await?;
    let whole = method != Method::HEAD;
    let found = tx.manifest(repository, &reference, whole).await?.ok_or_else(Refusal::manifest_unknown)?;
    let etag = format!("\"{}\"", found.digest);
    let mut answer = if blob_answer::matches(asked.get(header::IF_NONE_MATCH), &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let mut answer = Response::new(Body::from(found.content));
        set(answer.headers_mut(), header::CONTENT_TYPE, &found.media_type);
        answer.headers_mut().insert(header::CONTENT_LENGTH, found.size_bytes.into());
        answer
    };
    set(answer.headers_mut(), header::ETAG, &etag);
    set(answer.headers_mut(), DOCKER_CONTENT_DIGEST, found.digest.as_str());
    Ok(answer)
}

/// Keep a manifest, under a tag or its digest.
#[utoipa::path(put, path = PATH, operation_id = "registry_manifest_put", tag = "registry",
    params(("reference" = String, Path, description = "Tag or digest"), RegistryQuery),
    responses((status = 201, description = "Kept"), (status = 400, description = "It cannot be taken"),
        (status = 404, description = "No such repository"), (status = 413, description = "Over 4 MiB")))]
pub(crate) async fn put_manifest(
    State(state): State<AppState>,
    Push { scope, repository, query }: Push,
    Path(written): Path<String>,
    request: Request,
) -> Answer {
    let reference = reference(&written)?;
    let (parts, body) = request.into_parts();
    let Ok(content) = to_bytes(body, MANIFEST_BYTES_MAX).await else {
        let text = format!("the manifest has more than {MANIFEST_BYTES_MAX} bytes, or broke off");
        return Ok(refused(Code::SizeInvalid, text)?);
    };
    let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let document = document::check(content_type, &content)?;
    let (digest, tag) = match &reference {
        ManifestReference::Digest(wanted) => {
            let got = digest_by(wanted.algorithm(), &content);
            if got != *wanted {
                return Ok(refused(Code::DigestInvalid, "provided digest did not match uploaded content")?);
            }
            (got, None)
        }
        ManifestReference::Tag(tag) => (digest_by(DigestAlgorithm::Sha256, &content), Some(tag.as_str())),
    };
    state.registry.put_manifest(&scope, repository, &digest, &content, &document, tag).await?;
    tracing::info!(repository = query.name, %digest, reference = reference.as_str(), "manifest pushed");
    let mut answer = StatusCode::CREATED.into_response();
    let headers = answer.headers_mut();
    set(headers, header::LOCATION, &format!("/v2/{}/manifests/{}", query.name, digest));
    set(headers, DOCKER_CONTENT_DIGEST, digest.as_str());
    if let Some(subject) = &document.subject {
        set(headers, HeaderName::from_static("oci-subject"), subject.as_str());
    }
    Ok(answer)
}

/// Delete a manifest with its tags, or one tag.
#[utoipa::path(delete, path = PATH, operation_id = "registry_manifest_delete", tag = "registry",
    params(("reference" = String, Path, description = "Tag or digest"), RegistryQuery),
    responses((status = 202, description = "Deleted"), (status = 404, description = "No such manifest or tag")))]
pub(crate) async fn delete_manifest(
    State(state): State<AppState>,
    InRepository { scope, repository, query }: InRepository,
    Path(written): Path<String>,
) -> Answer {
    let reference = reference(&written)?;
    let mut tx = state.store.project_tx(&scope).await?;
    if !tx.delete_manifest(repository, &reference).await? {
        return Err(Refusal::manifest_unknown().into());
    }
    tx.commit().await?;
    tracing::info!(repository = query.name, reference = reference.as_str(), "manifest or tag deleted");
    Ok(StatusCode::ACCEPTED.into_response())
}
