//! `GET /exec/{id}/json` and `POST /exec/{id}/resize`. How an exec is doing is asked of its host, until
//! its end has been reported: clients read the exit code right after the stream ends.

use axum::{
    extract::{Path, State},
    http::StatusCode,
};
use contract::agent::EXECS;
use model::{Error, Result};
use serde_json::json;
use store::{ContainerRecord, ExecRecord, ProjectScope};

use super::{StoredExec, start::state_of};
use crate::{
    Gateway,
    agents::tenant_error,
    auth::Project,
    docker::{
        body::{DockerResponse, json},
        containers::attach::size,
        error::empty,
        query::Query,
    },
};

async fn find(
    gateway: &Gateway,
    scope: &ProjectScope,
    reference: &str,
) -> Result<(ExecRecord<StoredExec>, ContainerRecord)> {
    let mut tx = gateway.store.project_tx(scope).await?;
    let exec = tx.find_exec::<StoredExec>(reference).await?;
    let missing = |_| Error::NotFound(format!("No such exec instance: {reference}"));
    let container = tx.find_container(exec.container.as_str()).await.map_err(missing)?;
    Ok((exec, container))
}

/// How an exec is doing.
#[utoipa::path(get, path = "/exec/{id}/json", operation_id = "ExecInspect", tag = "Exec",
    params(("id" = String, Path, description = "Exec id")),
    responses((status = 200, description = "The exec", body = Object), (status = 404, description = "No such exec")))]
pub(crate) async fn inspect(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    Path(reference): Path<String>,
) -> DockerResponse {
    let (exec, container) = find(&gateway, &scope, &reference).await?;
    let (running, code, pid) = match (exec.started_at, exec.exit_code) {
        (None, _) => (false, None, 0),
        (Some(_), Some(code)) => (false, Some(code), 0),
        (Some(_), None) => match state_of(&gateway, &container, &exec.id).await {
            Ok(state) => (state.running, state.exit_code, state.pid),
            // Its host has forgotten it: it is over, and meanwhile we may have been told how.
            Err(Error::NotFound(_)) => (false, find(&gateway, &scope, &reference).await?.0.exit_code, 0),
            Err(other) => return Err(other.into()),
        },
    };
    let start = &exec.spec.start;
    let arguments = start.cmd.get(1..).unwrap_or_default();
    json(
        StatusCode::OK,
        &json!({
            "ID": exec.id,
            "Running": running,
            "ExitCode": code,
            "ProcessConfig": {
                "tty": start.tty,
                "entrypoint": start.cmd.first(),
                "arguments": arguments,
                "privileged": false,
                "user": start.user,
            },
            "OpenStdin": start.attach_stdin,
            "OpenStderr": start.attach_stderr,
            "OpenStdout": start.attach_stdout,
            "CanRemove": false,
            "ContainerID": container.id,
            "DetachKeys": exec.spec.detach_keys,
            "Pid": pid,
        }),
    )
}

/// Sets the size of an exec's terminal.
#[utoipa::path(post, path = "/exec/{id}/resize", operation_id = "ExecResize", tag = "Exec",
    params(("id" = String, Path, description = "Exec id"),
        ("h" = u16, Query, description = "Rows"), ("w" = u16, Query, description = "Columns")),
    responses((status = 200, description = "Done"), (status = 400, description = "Not a size"),
        (status = 404, description = "No such exec")))]
pub(crate) async fn resize(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    query: Query,
    Path(reference): Path<String>,
) -> DockerResponse {
    let size = size(&query)?;
    let (exec, container) = find(&gateway, &scope, &reference).await?;
    if exec.started_at.is_none() {
        return Err(Error::InvalidArgument(format!("exec process is not started: {}", exec.id)).into());
    }
    let path = format!("{EXECS}/{}/resize?container={}", exec.id, container.id);
    gateway.agents.of(&container)?.post::<_, ()>(&path, &size).await.map_err(tenant_error)?;
    Ok(empty(StatusCode::OK))
}
