//! `GET /containers/{id}/json` and `/top`: how one container is.

use axum::{
    extract::{Path, State},
    http::StatusCode,
};
use contract::agent::{CONTAINERS, TopReply};
use model::{Error, Result};
use serde_json::{Value, json};
use store::{ContainerRecord, ProjectScope};

use super::{links, recorded, render, sizes::Sizes, state};
use crate::{
    Gateway,
    agents::tenant_error,
    auth::Project,
    docker::{
        body::{DockerResponse, json, json_line, line},
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
    if query.flag("size") {
        let (container, shown) = look(&gateway, &scope, &reference, version).await?;
        let sizes = Sizes::ask(&gateway, &[&container]).await;
        return json(StatusCode::OK, &sizes.in_inspect(shown, &container.id));
    }
    // Whoever asks at once sees the same, and it is written once.
    let written = async |_| line(&look(&gateway, &scope, &reference, version).await?.1);
    let question = (scope.project(), reference.clone(), version);
    Ok(json_line(StatusCode::OK, gateway.inspections.ask(question, written).await?))
}

async fn look(
    gateway: &Gateway,
    scope: &ProjectScope,
    reference: &str,
    version: RequestedVersion,
) -> Result<(ContainerRecord, Value)> {
    let mut tx = gateway.store.project_tx(scope).await?;
    let container = tx.find_container(reference).await?;
    let mut shown = render::inspect(&container, version);
    if state::of(&container).is_alive() {
        let execs = tx.open_execs(&container.id, limits::SHOWN_EXECS).await?;
        if !execs.is_empty() {
            shown["ExecIDs"] = json!(execs);
        }
    }
    let links = links::shown(&mut tx, &container).await?;
    if !links.is_empty() {
        shown["HostConfig"]["Links"] = json!(links);
    }
    Ok((container, shown))
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
