//! `GET /containers/{id}/changes` and `/export`: what a container made of its image's files, and all
//! of its files. Both come from its host as they are told here.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderValue, Method, StatusCode, header},
    response::IntoResponse as _,
};
use bytes::Bytes;
use chassis::client::stream_lines;
use contract::agent::{CONTAINERS, Change, ChangeKind, PathQuery};
use futures::{StreamExt as _, stream};
use model::Result;
use serde_json::json;

use super::{archive, recorded};
use crate::{
    Gateway,
    agents::tenant_error,
    auth::Project,
    docker::{
        body::{DockerResponse, json},
        error::ErrorResponse,
    },
};

/// Time until a host begins to answer: it may have to fetch the image first, or walk a large layer.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a container changed of its image's files.
#[utoipa::path(get, path = "/containers/{id}/changes", operation_id = "ContainerChanges", tag = "Container",
    params(("id" = String, Path, description = "Id, name or unique id prefix")),
    responses((status = 200, description = "Path and Kind (0 modified, 1 added, 2 deleted); null for none", body = Vec<Object>),
        (status = 404, description = "No such container", body = ErrorResponse)))]
pub(crate) async fn changes(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    Path(reference): Path<String>,
) -> DockerResponse {
    let container = gateway.store.project_tx(&scope).await?.find_container(&reference).await?;
    let agent = gateway.agents.of(&container)?.with_timeout(PATIENCE);
    let asked = PathQuery { wait_ms: archive::wait_ms(&container), ..PathQuery::default() };
    let path = format!("{CONTAINERS}/{}/changes", container.id);
    let reply = agent.stream(Method::GET, &path, Some(&asked), None::<&()>).await.map_err(tenant_error)?;
    let mut lines = stream_lines::<Change>(reply).map(|line| line.map(|change| shown(&change)));
    let Some(first) = lines.next().await else { return json(StatusCode::OK, &json!(null)) };
    let first = [b"[".as_slice(), &first?].concat();
    let further = lines.map(|line| Ok([b",".as_slice(), &line?].concat()));
    let all = stream::iter([Ok(first)]).chain(further).chain(stream::iter([Ok(b"]\n".to_vec())]));
    let mut response = Body::from_stream(all.map(|piece: Result<Vec<u8>>| piece.map(Bytes::from))).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// One change as Docker counts the kinds.
fn shown(change: &Change) -> Vec<u8> {
    let kind = match change.kind {
        ChangeKind::Modified => 0,
        ChangeKind::Added => 1,
        ChangeKind::Deleted => 2,
    };
    json!({"Path": change.path, "Kind": kind}).to_string().into_bytes()
}

/// All files of a container as a tar.
#[utoipa::path(get, path = "/containers/{id}/export", operation_id = "ContainerExport", tag = "Container",
    params(("id" = String, Path, description = "Id, name or unique id prefix")),
    responses((status = 200, description = "A tar", content_type = "application/octet-stream"),
        (status = 404, description = "No such container", body = ErrorResponse)))]
pub(crate) async fn export(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    Path(reference): Path<String>,
) -> DockerResponse {
    let container = gateway.store.project_tx(&scope).await?.find_container(&reference).await?;
    let agent = gateway.agents.of(&container)?.with_timeout(PATIENCE);
    let asked = PathQuery { wait_ms: archive::wait_ms(&container), ..PathQuery::default() };
    let path = format!("{CONTAINERS}/{}/export", container.id);
    let reply = agent.stream(Method::GET, &path, Some(&asked), None::<&()>).await.map_err(tenant_error)?;
    recorded::alone(&gateway, &scope, &container, "export", &[]).await;
    let mut response = Body::from_stream(reply.bytes_stream()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}
