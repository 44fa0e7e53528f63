//! `GET /hosts/v1/layers/{digest}`: a host fetches a layer of a container placed on it. Any other
//! layer does not exist for it.

use axum::{
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
};
use chassis::{Answer, Caller};
use contract::image;
use model::{Digest, Error};

use super::{AppState, blob_answer};

const PATH: &str = "/hosts/v1/layers/{digest}";
const _: () = assert!(image::LAYERS.len() + "/{digest}".len() == PATH.len(), "the path is the contract's");

/// Read a layer blob, or a range of it.
#[utoipa::path(
    get,
    path = PATH,
    operation_id = "read_layer",
    tag = "layers",
    params(("digest" = String, Path, description = "Digest of the layer blob")),
    responses(
        (status = 200, description = "The blob", content_type = "application/octet-stream"),
        (status = 206, description = "The range asked for", content_type = "application/octet-stream"),
        (status = 401, description = "Not a host"),
        (status = 404, description = "No container on this host needs such a layer"),
        (status = 416, description = "The range begins behind the end"),
    ),
)]
pub(crate) async fn read_layer(
    State(state): State<AppState>,
    caller: Caller,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> Answer<Response> {
    let host = caller.require_host()?;
    let unknown = || Error::NotFound(format!("no container on this host needs layer {digest}"));
    let digest: Digest = digest.parse().map_err(|_| unknown())?;
    let _kept = state.blobs.keep(vec![digest.clone()]).await;
    if !state.store.host_needs_layer(host, &digest).await? {
        return Err(unknown().into());
    }
    let size = state.blobs.size(&digest).await?;
    let size = size.ok_or_else(|| Error::internal(format!("layer {digest} is recorded but not stored")))?;
    Ok(blob_answer::answer(&state.blobs, &digest, size, &headers, false).await?)
}
