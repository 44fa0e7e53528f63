//! `GET /containers/{id}/stats`: what a container uses, from its host, a document a second.

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderValue, Method, header},
    response::{IntoResponse as _, Response},
};
use contract::agent::CONTAINERS;

use crate::{
    Gateway,
    agents::tenant_error,
    auth::Project,
    docker::{body::DockerResponse, query::Query},
};

/// What a container uses.
#[utoipa::path(get, path = "/containers/{id}/stats", operation_id = "ContainerStats", tag = "Container",
    params(("id" = String, Path, description = "Id, name or unique id prefix"),
        ("stream" = Option<bool>, Query, description = "One document every second (default)"),
        ("one-shot" = Option<bool>, Query, description = "One document at once, without a sample before it")),
    responses((status = 200, description = "Documents, one a line", body = Object), (status = 404, description = "No such container")))]
pub(crate) async fn stats(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    query: Query,
    Path(reference): Path<String>,
) -> DockerResponse {
    let container = gateway.store.project_tx(&scope).await?.find_container(&reference).await?;
    let path = format!("{CONTAINERS}/{}/stats", container.id);
    let asked =
        [("stream", query.get("stream").is_none() || query.flag("stream")), ("one-shot", query.flag("one-shot"))];
    let agent = gateway.agents.of(&container)?;
    let reply = agent.stream(Method::GET, &path, Some(&asked), None::<&()>).await.map_err(tenant_error)?;
    let mut response: Response = Body::from_stream(reply.bytes_stream()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.extensions_mut().insert(chassis::Endless);
    Ok(response)
}
