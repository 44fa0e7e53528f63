//! Layers and images that the gateway brings on behalf of a project it has authorized: commits and
//! imports.

use axum::{
    Json,
    extract::{Query, Request, State},
};
use chassis::{Answer, Caller};
use contract::image::{IMAGES, NewImage, NewImageReply, UPLOADS, UploadQuery};
use model::LayerDescriptor;

use super::AppState;
use crate::upload;

/// Store a tar as a layer.
#[utoipa::path(
    post,
    path = UPLOADS,
    operation_id = "upload_layer",
    tag = "images",
    request_body(content = Vec<u8>, content_type = "application/x-tar"),
    responses(
        (status = 200, description = "The layer", body = LayerDescriptor),
        (status = 400, description = "No tar, or too large a one"),
        (status = 401, description = "Not the gateway"),
    ),
)]
pub(crate) async fn upload_layer(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<UploadQuery>,
    request: Request,
) -> Answer<Json<LayerDescriptor>> {
    caller.require("service:gateway")?;
    let body = request.into_body().into_data_stream();
    Ok(Json(upload::take(&state.store, &state.blobs, query.project, body).await?))
}

/// Make an image of stored layers.
#[utoipa::path(
    post,
    path = IMAGES,
    operation_id = "make_image",
    tag = "images",
    request_body = NewImage,
    responses(
        (status = 200, description = "Its id", body = NewImageReply),
        (status = 400, description = "The name or the config cannot be taken"),
        (status = 401, description = "Not the gateway"),
        (status = 404, description = "The project does not have the parent"),
    ),
)]
pub(crate) async fn make_image(
    State(state): State<AppState>,
    caller: Caller,
    Json(wanted): Json<NewImage>,
) -> Answer<Json<NewImageReply>> {
    caller.require("service:gateway")?;
    Ok(Json(NewImageReply { id: state.maker.make(&wanted).await? }))
}
