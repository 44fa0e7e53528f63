//! `GET /containers/{id}/json` and `/top`: how one container is.

use axum::{
    extract::{Path, State},
    http::StatusCode,
};
use contract::agent::{CONTAINERS, TopReply};
use model::Error;
use serde_json::json;

use super::{links, recorded, render, sizes::Sizes, state};
use crate::{
    Gateway,
    agents::tenant_error,
    auth::Project,
    docker::{
        body::{DockerResponse, json},
        query::Query,
        version::RequestedVersion,
    },
    limits,
};

/// Everything about a container. One query; of one that runs also what else runs in it.
#[utoipa::path(get, path = "/containers/{id}/json", operation_id = "ContainerInspect", tag = "Container",
    params(("id" = String, Path, description = "Id, name or unique id prefix"),
        ("size" = Option<bool>, Query, description = "Tell its size, which its host measures now")),
    responses((status = 200, description = "The container", body = Object), (status = 404, description = "No such container")))]
pub(crate) async fn inspect(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    version: RequestedVersion,
    query: Query,
    Path(reference): Path<String>,
) -> DockerResponse {
    // Whoever asks at once sees the same.
    let look = async |_| {
        let mut tx = gateway.store.project_tx(&scope).await?;
        let container = tx.find_container(&reference).await?;
        let alive = state::of(&container).is_alive();
        let execs = if alive { tx.open_execs(&container.id, limits::SHOWN_EXECS).await? } else { Vec::new() };
        let links = links::shown(&mut tx, &container).await?;
        Ok((container, execs, links))
    };
    let (container, execs, links) = gateway.inspections.ask((scope.project(), reference.clone()), look).await?;
    let sizes = if query.flag("size") { Sizes::ask(&gateway, &[&container]).await } else { Sizes::default() };
    let mut shown = render::inspect(&container, version);
    if !links.is_empty() {
        shown["HostConfig"]["Links"] = json!(links);
    }
    if !execs.is_empty() {
        shown["ExecIDs"] = json!(execs);
    }
    json(StatusCode::OK, &sizes.in_inspect(shown, &container.id))
}

/// Its processes.
#[utoipa::path(get, path = "/containers/{id}/top", operation_id = "ContainerTop", tag = "Container",
    params(("id" = String, Path, description = "Id, name or unique id prefix"),
        ("ps_args" = Option<String>, Query, description = "Options of ps")),
    responses((status = 200, description = "Processes", body = Object), (status = 404, description = "No such container"),
        (status = 409, description = "It does not run")))]
pub(crate) async fn top(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    query: Query,
    Path(reference): Path<String>,
) -> DockerResponse {
    let container = gateway.store.project_tx(&scope).await?.find_container(&reference).await?;
    let state = state::of(&container);
    if state == state::State::Restarting {
        return Err(state::restarting(&container).into());
    }
    if !state.is_alive() {
        return Err(Error::Conflict(format!("container {} is not running", container.id)).into());
    }
    let path = format!("{CONTAINERS}/{}/top", container.id);
    let asked = [("ps_args", query.text("ps_args").unwrap_or("-ef"))];
    let reply: TopReply = gateway.agents.of(&container)?.get_with(&path, &asked).await.map_err(tenant_error)?;
    recorded::alone(&gateway, &scope, &container, "top", &[]).await;
    json(StatusCode::OK, &json!({"Titles": reply.titles, "Processes": reply.processes}))
}
