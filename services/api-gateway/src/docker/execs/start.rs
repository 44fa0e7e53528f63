//! `POST /exec/{id}/start`: claims the exec's one start, then hands the connection to its host. Once
//! the connection is taken over, whatever goes wrong is told in the stream, as dockerd does.

use axum::{
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use contract::{
    agent::{EXECS, ExecState, STREAM_PROTOCOL},
    wake::Topic,
};
use model::{Error, ExecId, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{ContainerRecord, ExecRecord, ProjectScope};
use tokio_util::either::Either;
use utoipa::ToSchema;

use super::{StoredExec, action};
use crate::{
    Gateway,
    agents::tenant_error,
    auth::Project,
    docker::{
        body,
        containers::{recorded, state, typed},
        error::{DockerError, empty, refused},
        streams::{self, Client, DetachKeys, Framed, Input},
        version::RequestedVersion,
    },
};

/// How it is started.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ExecStartConfig {
    detach: bool,
    tty: bool,
    console_size: Option<[u16; 2]>,
}

/// Starts an exec.
#[utoipa::path(post, path = "/exec/{id}/start", operation_id = "ExecStart", tag = "Exec",
    params(("id" = String, Path, description = "Exec id")),
    request_body = ExecStartConfig,
    responses((status = 200, description = "Started, detached; or the stream, without an upgrade"),
        (status = 101, description = "The connection is the stream now"),
        (status = 404, description = "No such exec"), (status = 409, description = "The container does not run")))]
pub(crate) async fn start(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    version: RequestedVersion,
    Path(reference): Path<String>,
    request: Request,
) -> Response {
    let (mut parts, rest) = request.into_parts();
    let config = match read(&parts.headers, rest).await {
        Ok(config) => config,
        Err(response) => return response,
    };
    let client = Client::of_head(&mut parts, Body::empty());
    match prepare(&gateway, &scope, &reference, &config).await {
        Err(error) => DockerError(error).into_response(),
        Ok((exec, container, claimed)) => {
            run(Running { gateway, exec, container, claimed }, &config, client, version).await
        }
    }
}

async fn read(headers: &HeaderMap, rest: Body) -> std::result::Result<ExecStartConfig, Response> {
    let bytes = crate::json::read(rest).await.map_err(|unread| refused(unread.status(), unread.message()))?;
    let document: Option<Value> = body::decode(headers, &bytes).map_err(|e| DockerError(e).into_response())?;
    typed(document.unwrap_or_else(|| json!({}))).map_err(|e| DockerError(e).into_response())
}

/// Finds the exec and claims its start. A container that does not run is refused before the hijack.
async fn prepare(
    gateway: &Gateway,
    scope: &ProjectScope,
    reference: &str,
    config: &ExecStartConfig,
) -> Result<(ExecRecord<StoredExec>, ContainerRecord, bool)> {
    let mut tx = gateway.store.project_tx(scope).await?;
    let mut exec = tx.find_exec::<StoredExec>(reference).await?;
    let missing = |_| Error::NotFound(format!("No such exec instance: {reference}"));
    let container = tx.find_container(exec.container.as_str()).await.map_err(missing)?;
    state::must_run(&container, "exec")?;
    let claimed = tx.claim_exec(&exec.id, gateway.clock.now()).await?;
    exec.spec.start.detach = config.detach;
    if let Some([rows, columns]) = config.console_size {
        exec.spec.start.console_size = Some((rows, columns));
    }
    if claimed {
        let what = action("exec_start", &exec.spec.start);
        recorded::within(gateway, &mut tx, &container, &what, &[("execID", exec.id.as_str())]).await?;
        tx.commit().await?;
        gateway.bus.publish(&Topic::Project(scope.project()));
    }
    Ok((exec, container, claimed))
}

struct Running {
    gateway: Gateway,
    exec: ExecRecord<StoredExec>,
    container: ContainerRecord,
    claimed: bool,
}

async fn run(running: Running, config: &ExecStartConfig, client: Client, version: RequestedVersion) -> Response {
    let path = format!("{EXECS}/{}/start", running.exec.id);
    let tty = running.exec.spec.start.tty;
    // Whether there are frames is for the start to say, as with dockerd. What the host sends of an exec
    // that has no terminal has frames already.
    let raw = tty && config.tty;
    let stream_type = streams::content_type(raw, version);
    let id = running.exec.id.clone();
    let has_run = move || Error::Conflict(format!("exec command {id} has already run"));
    let agent = running.gateway.agents.of(&running.container);
    if config.detach {
        let started = match agent {
            _ if !running.claimed => Err(has_run()),
            Ok(agent) => agent.post::<_, ()>(&path, &running.exec.spec.start).await.map_err(tenant_error),
            Err(error) => Err(error),
        };
        return match started {
            Ok(()) => empty(StatusCode::OK),
            Err(error) => DockerError(error).into_response(),
        };
    }
    let keys = DetachKeys::parse(&running.exec.spec.detach_keys).ok();
    let typed_at = tty && running.exec.spec.start.attach_stdin;
    let input = Input { keys: keys.filter(|_| typed_at), ends_stream: typed_at };
    let (claimed, start) = (running.claimed, running.exec.spec.start.clone());
    let begun = async move {
        let stream = match agent {
            _ if !claimed => Err(has_run()),
            Ok(agent) => agent.upgrade(&path, STREAM_PROTOCOL, None::<&()>, Some(&start)).await.map_err(tenant_error),
            Err(error) => Err(error),
        };
        match stream {
            Err(error) => Either::Left(streams::told(&error.public_message(), raw)),
            Ok(stream) if tty && !raw => Either::Right(Either::Left(Framed::new(stream))),
            Ok(stream) => Either::Right(Either::Right(stream)),
        }
    };
    // How it ends its host will report, whoever listens then.
    client.connect_once(begun, stream_type, input, |_| std::future::ready(()))
}

/// What the host knows of an exec.
pub(super) async fn state_of(gateway: &Gateway, container: &ContainerRecord, exec: &ExecId) -> Result<ExecState> {
    let path = format!("{EXECS}/{exec}");
    let asked = [("container", container.id.as_str())];
    gateway.agents.of(container)?.get_with(&path, &asked).await.map_err(tenant_error)
}
