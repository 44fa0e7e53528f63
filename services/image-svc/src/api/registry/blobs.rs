//! Blobs: only what the repository links is there.

use axum::{
    extract::State,
    http::{HeaderMap, Method, StatusCode},
    response::IntoResponse as _,
};
use contract::registry::{BLOBS, Code, Refusal, RegistryQuery};
use model::Error;

use super::{
    Answer, DOCKER_CONTENT_DIGEST,
    access::{InRepository, PathDigest},
    set,
};
use crate::{
    api::{AppState, blob_answer},
    registry::refused,
};

const PATH: &str = "/internal/v1/registry/blobs/{digest}";
const _: () = assert!(BLOBS.len() + "/{digest}".len() == PATH.len(), "the path is the contract's");

/// Read a blob, a range of it, or its length.
#[utoipa::path(get, path = PATH, operation_id = "registry_blob", tag = "registry",
    params(("digest" = String, Path, description = "Its digest"), RegistryQuery),
    responses((status = 200, description = "The blob"), (status = 206, description = "The range asked for"),
        (status = 304, description = "The caller has it"), (status = 404, description = "The repository does not link it"),
        (status = 416, description = "The range begins behind the end")))]
pub(crate) async fn read_blob(
    State(state): State<AppState>,
    at: InRepository,
    PathDigest(digest): PathDigest,
    method: Method,
    headers: HeaderMap,
) -> Answer {
    let (size, _kept) =
        state.registry.find_blob(&at.scope, at.repository, &digest).await?.ok_or_else(Refusal::blob_unknown)?;
    let mut answer = blob_answer::answer(&state.blobs, &digest, size, &headers, method == Method::HEAD).await?;
    set(answer.headers_mut(), DOCKER_CONTENT_DIGEST, digest.as_str());
    Ok(answer)
}

/// Take a blob out of a repository.
#[utoipa::path(delete, path = PATH, operation_id = "registry_blob_delete", tag = "registry",
    params(("digest" = String, Path, description = "Its digest"), RegistryQuery),
    responses((status = 202, description = "Not linked any more"), (status = 404, description = "It was not linked"),
        (status = 405, description = "A manifest needs it")))]
pub(crate) async fn delete_blob(
    State(state): State<AppState>,
    at: InRepository,
    PathDigest(digest): PathDigest,
) -> Answer {
    let mut tx = state.store.project_tx(&at.scope).await?;
    match tx.unlink_blob(at.repository, &digest).await {
        Ok(true) => tx.commit().await?,
        Ok(false) => return Err(Refusal::blob_unknown().into()),
        Err(Error::Conflict(text)) => return Ok(refused(Code::Unsupported, text)?),
        Err(other) => return Err(other.into()),
    }
    Ok(StatusCode::ACCEPTED.into_response())
}
