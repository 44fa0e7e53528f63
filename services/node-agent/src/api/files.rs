//! The part of the agent's API that reaches a container's files, whether it runs or not.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chassis::{
    Answer,
    axum::{
        Json,
        body::Body,
        extract::{Path, Query, Request, State, rejection::JsonRejection},
        http::{HeaderName, StatusCode, header},
        response::{IntoResponse as _, Response},
    },
};
use contract::agent::{ATTACH_WAIT_MAX_MS, Change, PATH_STAT, PathQuery, PathStat, PutQuery, SizesReply, SizesRequest};
use model::{Error, Result};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{AgentState, body, container_id};
use crate::tree::{self, Chunks, Opened, changes};

pub(super) fn routes() -> OpenApiRouter<AgentState> {
    OpenApiRouter::default()
        .routes(routes!(read_path))
        .routes(routes!(get_archive))
        .routes(routes!(put_archive))
        .routes(routes!(export_container))
        .routes(routes!(read_layer))
        .routes(routes!(read_changes))
        .routes(routes!(measure))
}

impl AgentState {
    async fn tree(&self, id: &str, wait_ms: u64) -> Result<Opened> {
        let patience = Duration::from_millis(wait_ms.min(ATTACH_WAIT_MAX_MS));
        let keeper = self.fleet.awaited(&container_id(id)?, patience).await?;
        tree::open(&self.host, &keeper).await
    }
}

fn tar(chunks: Chunks) -> Response {
    ([(header::CONTENT_TYPE, "application/x-tar")], Body::from_stream(chunks)).into_response()
}

/// What is at a path.
#[utoipa::path(
    get, path = "/containers/v1/{id}/path", tag = "files",
    params(("id" = String, Path, description = "Container")), request_body = PathQuery,
    responses((status = 200, body = PathStat), (status = 404, description = "No such container, or nothing there"))
)]
async fn read_path(
    State(state): State<AgentState>,
    Path(id): Path<String>,
    Query(query): Query<PathQuery>,
) -> Answer<Json<PathStat>> {
    let opened = state.tree(&id, query.wait_ms).await?;
    Ok(Json(tree::stat(opened, query.path).await?))
}

/// A file or directory as a tar.
#[utoipa::path(
    get, path = "/containers/v1/{id}/archive", tag = "files",
    params(("id" = String, Path, description = "Container")), request_body = PathQuery,
    responses(
        (status = 200, description = "A tar; what it is of is in a header", content_type = "application/x-tar"),
        (status = 404, description = "No such container, or nothing there"),
    )
)]
async fn get_archive(
    State(state): State<AgentState>,
    Path(id): Path<String>,
    Query(query): Query<PathQuery>,
) -> Answer<Response> {
    let opened = state.tree(&id, query.wait_ms).await?;
    let (stat, chunks) = tree::get(opened, query.path).await?;
    let stat = STANDARD.encode(serde_json::to_vec(&stat).map_err(Error::internal)?);
    let mut response = tar(chunks);
    let value = stat.parse().map_err(Error::internal)?;
    response.headers_mut().insert(HeaderName::from_static(PATH_STAT), value);
    Ok(response)
}

/// Extract a tar into a directory.
#[utoipa::path(
    put, path = "/containers/v1/{id}/archive", tag = "files",
    params(("id" = String, Path, description = "Container")), request_body(content = Vec<u8>, content_type = "application/x-tar"),
    responses(
        (status = 204, description = "Extracted"),
        (status = 400, description = "The path is no directory, or the archive is not one"),
        (status = 403, description = "Nothing may be written there"),
        (status = 404, description = "No such container, or nothing there"),
    )
)]
async fn put_archive(
    State(state): State<AgentState>,
    Path(id): Path<String>,
    Query(query): Query<PutQuery>,
    request: Request,
) -> Answer<StatusCode> {
    let body = request.into_body();
    let opened = match state.tree(&id, query.wait_ms).await {
        Ok(opened) => opened,
        Err(error) => {
            tree::drain(body.into_data_stream()).await;
            return Err(error.into());
        }
    };
    tree::put(opened, query, body).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The root file system as a tar.
#[utoipa::path(
    get, path = "/containers/v1/{id}/export", tag = "files", params(("id" = String, Path, description = "Container")),
    responses((status = 200, description = "A tar", content_type = "application/x-tar"), (status = 404, description = "No such container"))
)]
async fn export_container(
    State(state): State<AgentState>,
    Path(id): Path<String>,
    Query(query): Query<PathQuery>,
) -> Answer<Response> {
    let opened = state.tree(&id, query.wait_ms).await?;
    Ok(tar(tree::export(opened).await?))
}

/// The writable layer as an image layer.
#[utoipa::path(
    get, path = "/containers/v1/{id}/layer", tag = "files", params(("id" = String, Path, description = "Container")),
    responses((status = 200, description = "A tar", content_type = "application/x-tar"), (status = 404, description = "No such container"))
)]
async fn read_layer(
    State(state): State<AgentState>,
    Path(id): Path<String>,
    Query(query): Query<PathQuery>,
) -> Answer<Response> {
    let opened = state.tree(&id, query.wait_ms).await?;
    Ok(tar(tree::layer(opened).await?))
}

/// What it changed of its image's files.
#[utoipa::path(
    get, path = "/containers/v1/{id}/changes", tag = "files", params(("id" = String, Path, description = "Container")),
    responses((status = 200, description = "NDJSON", body = Change, content_type = "application/x-ndjson"), (status = 404, description = "No such container"))
)]
async fn read_changes(
    State(state): State<AgentState>,
    Path(id): Path<String>,
    Query(query): Query<PathQuery>,
) -> Answer<Response> {
    let opened = state.tree(&id, query.wait_ms).await?;
    let mut lines = Vec::new();
    for change in changes::changes(opened).await? {
        serde_json::to_writer(&mut lines, &change).map_err(Error::internal)?;
        lines.push(b'\n');
    }
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from(lines)).into_response())
}

/// What containers weigh. Those that are not here, or cannot be weighed in time, are left out.
#[utoipa::path(
    post, path = "/containers/v1/sizes", tag = "files", request_body = SizesRequest,
    responses((status = 200, body = SizesReply))
)]
async fn measure(
    State(state): State<AgentState>,
    request: std::result::Result<Json<SizesRequest>, JsonRejection>,
) -> Answer<Json<SizesReply>> {
    let SizesRequest { containers } = body(request)?;
    let mut asked = Vec::new();
    for id in containers {
        let Some(plan) = state.fleet.get(&id).ok().and_then(|keeper| keeper.plan()) else { continue };
        asked.push((id, plan));
    }
    let Some(project) = asked.first().map(|(_, plan)| plan.project) else { return Ok(Json(SizesReply::default())) };
    let slot = state.host.slots.take(project).await?;
    let weighing = tokio::task::spawn_blocking(move || {
        let _slot = slot;
        let weigh = |(id, plan): (model::ContainerId, contract::host::PlannedContainer)| {
            let layers = state.host.images.find(&plan.image)?;
            state.host.layer_weights.container(id.clone(), &state.host.places.container(&id), &layers)
        };
        asked.into_iter().filter_map(weigh).collect()
    });
    Ok(Json(SizesReply { sizes: weighing.await.map_err(Error::internal)? }))
}
