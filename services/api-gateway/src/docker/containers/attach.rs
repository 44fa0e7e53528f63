//! `POST /containers/{id}/attach` and `/resize`: a client on a container's own streams. A container
//! that does not run yet can be attached to: nothing of its output is missed then.

use axum::{
    extract::{Path, Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use contract::agent::{ATTACH_WAIT_MAX_MS, AttachQuery, CONTAINERS, ResizeRequest, STREAM_PROTOCOL};
use model::{Error, Phase, Result};
use store::{ContainerRecord, ProjectScope};

use super::{recorded, state};
use crate::{
    Gateway,
    agents::tenant_error,
    auth::Project,
    docker::{
        body::DockerResponse,
        error::{DockerError, empty},
        headers::Bare,
        query::Query,
        streams::{self, Client, DetachKeys, Ended, Handshake, Input},
        version::RequestedVersion,
    },
};

/// Attaches to a container.
#[utoipa::path(post, path = "/containers/{id}/attach", operation_id = "ContainerAttach", tag = "Container",
    params(("id" = String, Path, description = "Id, name or unique id prefix"),
        ("logs" = Option<bool>, Query, description = "Send what was said so far"),
        ("stream" = Option<bool>, Query, description = "Stay for what comes"),
        ("stdin" = Option<bool>, Query, description = "Forward stdin"),
        ("stdout" = Option<bool>, Query, description = "Send stdout"),
        ("stderr" = Option<bool>, Query, description = "Send stderr"),
        ("detachKeys" = Option<String>, Query, description = "Keys that end the session; ctrl-p,ctrl-q if absent")),
    responses((status = 101, description = "The connection is the stream now"),
        (status = 200, description = "The stream, without an upgrade"),
        (status = 400, description = "Not a key sequence"), (status = 404, description = "No such container")))]
pub(crate) async fn attach(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    version: RequestedVersion,
    query: Query,
    Path(reference): Path<String>,
    request: Request,
) -> Response {
    let keys = match DetachKeys::parse(query.get("detachKeys").unwrap_or_default()) {
        Ok(keys) => keys,
        Err(error) => return DockerError(error).into_response(),
    };
    let (_, client) = Client::of(request);
    match connect(&gateway, &scope, &reference, asked(&query, true)).await {
        Err(error) => streams::plain_error(&error),
        Ok((container, agent)) => {
            let tty = container.spec.tty;
            let (session, input) = Session { gateway, scope, container }.begin(keys, query.flag("stdin")).await;
            let after = move |ended| session.end(ended);
            let mut response = client.connect(agent, streams::content_type(tty, version), input, after);
            response.extensions_mut().insert(Bare);
            response
        }
    }
}

/// Attaches to a container over a WebSocket.
#[utoipa::path(get, path = "/containers/{id}/attach/ws", operation_id = "ContainerAttachWebsocket", tag = "Container",
    params(("id" = String, Path, description = "Id, name or unique id prefix"),
        ("logs" = Option<bool>, Query, description = "Send what was said so far"),
        ("stream" = Option<bool>, Query, description = "Stay for what comes"),
        ("stdin" = Option<bool>, Query, description = "Take stdin; before 1.42 always"),
        ("stdout" = Option<bool>, Query, description = "Send stdout; before 1.42 always"),
        ("stderr" = Option<bool>, Query, description = "Send stderr; before 1.42 always"),
        ("detachKeys" = Option<String>, Query, description = "Keys that end the session; ctrl-p,ctrl-q if absent")),
    responses((status = 101, description = "The connection is a WebSocket now: binary messages, text before 1.28"),
        (status = 400, description = "Not a key sequence, or not the handshake of a WebSocket"),
        (status = 403, description = "A browser, on a page of another site"),
        (status = 404, description = "No such container")))]
pub(crate) async fn attach_websocket(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    version: RequestedVersion,
    query: Query,
    Path(reference): Path<String>,
    request: Request,
) -> Response {
    let asked = asked(&query, version.at_least(42));
    let keys = DetachKeys::parse(query.get("detachKeys").unwrap_or_default());
    let (keys, container) = match (keys, attachable(&gateway, &scope, &reference).await) {
        (Ok(keys), Ok(container)) => (keys, container),
        (Err(error), _) | (_, Err(error)) => return DockerError(error).into_response(),
    };
    // After the container was found, as dockerd has it.
    let handshake = match Handshake::of(request.into_parts().0) {
        Ok(handshake) => handshake,
        Err(failure) => return failure.answer(),
    };
    match reach(&gateway, &container, asked).await {
        Err(error) => DockerError(error).into_response(),
        Ok(agent) => {
            let how = (!container.spec.tty, version.at_least(28));
            let (session, input) = Session { gateway, scope, container }.begin(keys, asked.stdin).await;
            handshake.connect(agent, how, input, move |ended| session.end(ended))
        }
    }
}

fn asked(query: &Query, by_stream: bool) -> AttachQuery {
    AttachQuery {
        stdin: !by_stream || query.flag("stdin"),
        stdout: !by_stream || query.flag("stdout"),
        stderr: !by_stream || query.flag("stderr"),
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        wait_ms: 0,
    }
}

/// Somebody who is attached.
struct Session {
    gateway: Gateway,
    scope: ProjectScope,
    container: ContainerRecord,
}

impl Session {
    /// Records that it begins. With it comes what input may bring about.
    async fn begin(self, keys: DetachKeys, stdin: bool) -> (Self, Input) {
        recorded::alone(&self.gateway, &self.scope, &self.container, "attach", &[]).await;
        let (tty, stdin) = (self.container.spec.tty, stdin && self.container.spec.open_stdin);
        let input = Input { keys: (tty && stdin).then_some(keys), ends_stream: tty && stdin };
        (self, input)
    }

    /// Records how it ended: what is no terminal is not detached from.
    async fn end(self, ended: Ended) {
        if self.container.spec.tty && ended == Ended::Detached {
            recorded::alone(&self.gateway, &self.scope, &self.container, "detach", &[]).await;
        }
    }
}

async fn connect(
    gateway: &Gateway,
    scope: &ProjectScope,
    reference: &str,
    asked: AttachQuery,
) -> Result<(ContainerRecord, reqwest::Upgraded)> {
    let container = attachable(gateway, scope, reference).await?;
    let stream = reach(gateway, &container, asked).await?;
    Ok((container, stream))
}

async fn attachable(gateway: &Gateway, scope: &ProjectScope, reference: &str) -> Result<ContainerRecord> {
    let container = gateway.store.project_tx(scope).await?.find_container(reference).await?;
    // dockerd's words, which differ from those for exec.
    match state::of(&container) {
        state::State::Paused => {
            Err(Error::Conflict(format!("container {reference} is paused, unpause the container before attach")))
        }
        state::State::Restarting => {
            Err(Error::Conflict(format!("container {reference} is restarting, wait until the container is running")))
        }
        state::State::Created | state::State::Running | state::State::Exited | state::State::Removing => Ok(container),
    }
}

/// The container's streams, at its host.
async fn reach(gateway: &Gateway, container: &ContainerRecord, mut asked: AttachQuery) -> Result<reqwest::Upgraded> {
    asked.stdin &= container.spec.open_stdin;
    let agent = gateway.agents.of(container)?;
    let path = format!("{CONTAINERS}/{}/attach", container.id);
    // The word of a new container travels by another way and may come after us.
    asked.wait_ms = if container.observed.progress.phase < Phase::Running { ATTACH_WAIT_MAX_MS } else { 0 };
    agent.upgrade(&path, STREAM_PROTOCOL, Some(&asked), None::<&()>).await.map_err(tenant_error)
}

/// Sets the size of a container's terminal.
#[utoipa::path(post, path = "/containers/{id}/resize", operation_id = "ContainerResize", tag = "Container",
    params(("id" = String, Path, description = "Id, name or unique id prefix"),
        ("h" = u16, Query, description = "Rows"), ("w" = u16, Query, description = "Columns")),
    responses((status = 200, description = "Done"), (status = 400, description = "Not a size"),
        (status = 404, description = "No such container"), (status = 409, description = "It does not run")))]
pub(crate) async fn resize(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    query: Query,
    Path(reference): Path<String>,
) -> DockerResponse {
    let size = size(&query)?;
    let container = gateway.store.project_tx(&scope).await?.find_container(&reference).await?;
    if container.observed.progress.phase != Phase::Running {
        return Err(Error::Conflict(format!("container {} is not running", container.id)).into());
    }
    let path = format!("{CONTAINERS}/{}/resize", container.id);
    gateway.agents.of(&container)?.post::<_, ()>(&path, &size).await.map_err(tenant_error)?;
    let (height, width) = (size.height.to_string(), size.width.to_string());
    recorded::alone(&gateway, &scope, &container, "resize", &[("height", &height), ("width", &width)]).await;
    Ok(empty(StatusCode::OK))
}

/// Rows and columns from the query, with dockerd's texts.
pub(crate) fn size(query: &Query) -> Result<ResizeRequest> {
    let number = |key: &str, word: &str| {
        let written = query.get(key).unwrap_or_default();
        written.parse::<u16>().map_err(|_| {
            let why = if written.parse::<u64>().is_ok() { "value out of range" } else { "invalid syntax" };
            Error::InvalidArgument(format!("invalid resize {word} {written:?}: {why}"))
        })
    };
    Ok(ResizeRequest { height: number("h", "height")?, width: number("w", "width")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_is_none_is_refused_in_dockerds_words() {
        let refusal = |query: &str| size(&Query::parse(query)).expect_err("refused").to_string();
        assert_eq!(refusal(""), "invalid resize height \"\": invalid syntax");
        assert_eq!(refusal("h=24&w=x"), "invalid resize width \"x\": invalid syntax");
        assert_eq!(refusal("h=70000&w=1"), "invalid resize height \"70000\": value out of range");
        assert!(size(&Query::parse("h=24&w=80")).is_ok());
    }
}
