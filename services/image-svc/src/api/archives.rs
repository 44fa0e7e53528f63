//! `POST /internal/v1/archives` and `…/saved`: the gateway asks on behalf of a project it has authorized.

use axum::{
    Json,
    body::Body,
    extract::{Query, Request, State},
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};
use chassis::{Answer, Caller};
use contract::image::{LOAD, LoadQuery, PullProgress, SAVE, SaveRequest};

use super::{AppState, pulls::told};

/// Pack images as a tar.
#[utoipa::path(
    post,
    path = SAVE,
    operation_id = "save_images",
    tag = "archives",
    request_body = SaveRequest,
    responses(
        (status = 200, description = "The archive", content_type = "application/x-tar"),
        (status = 400, description = "A name or platform cannot be read"),
        (status = 401, description = "Not the gateway"),
        (status = 404, description = "No such image"),
        (status = 503, description = "Too many at once"),
    ),
)]
pub(crate) async fn save_images(
    State(state): State<AppState>,
    caller: Caller,
    Json(request): Json<SaveRequest>,
) -> Answer<Response> {
    caller.require("service:gateway")?;
    let tar = state.archives.save(&request).await?;
    Ok(([(CONTENT_TYPE, "application/x-tar")], Body::from_stream(tar)).into_response())
}

/// Take images in from a tar. It may be packed with gzip or zstd.
#[utoipa::path(
    post,
    path = LOAD,
    operation_id = "load_images",
    tag = "archives",
    request_body(content = Vec<u8>, content_type = "application/x-tar"),
    responses(
        (status = 200, description = "NDJSON, as of a pull; the last line may be an error", body = PullProgress, content_type = "application/x-ndjson"),
        (status = 400, description = "The platform cannot be read"),
        (status = 401, description = "Not the gateway"),
        (status = 503, description = "Too many at once"),
    ),
)]
pub(crate) async fn load_images(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<LoadQuery>,
    request: Request,
) -> Answer<Response> {
    caller.require("service:gateway")?;
    let load = state.archives.load(&query)?;
    let body = request.into_body().into_data_stream();
    Ok(told(|progress| async move { load.run(body, &progress).await }))
}
