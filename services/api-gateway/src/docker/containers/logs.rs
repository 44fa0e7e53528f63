//! `GET /containers/{id}/logs`: what the container said, from its host, byte for byte.

mod resume;

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderValue, Method, header},
    response::{IntoResponse as _, Response},
};
use contract::agent::{CONTAINERS, LogsQuery};
use model::{Error, Result};
use time::OffsetDateTime;

use crate::{
    Gateway,
    agents::tenant_error,
    auth::Project,
    docker::{body::DockerResponse, instant, query::Query, streams, version::RequestedVersion},
};

/// The container's output.
#[utoipa::path(get, path = "/containers/{id}/logs", operation_id = "ContainerLogs", tag = "Container",
    params(("id" = String, Path, description = "Id, name or unique id prefix"),
        ("follow" = Option<bool>, Query, description = "Stay for what comes"),
        ("stdout" = Option<bool>, Query, description = "Send stdout"),
        ("stderr" = Option<bool>, Query, description = "Send stderr"),
        ("since" = Option<String>, Query, description = "Only from this instant on"),
        ("until" = Option<String>, Query, description = "Only before this instant"),
        ("timestamps" = Option<bool>, Query, description = "A time before every line"),
        ("details" = Option<bool>, Query, description = "Labels, variables and the tag of the log options before every line"),
        ("tail" = Option<String>, Query, description = "Only so many last lines, or `all`")),
    responses((status = 200, description = "Frames, or raw bytes of a terminal", content_type = "application/vnd.docker.multiplexed-stream"),
        (status = 400, description = "Neither stream chosen"), (status = 404, description = "No such container")))]
pub(crate) async fn logs(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    version: RequestedVersion,
    query: Query,
    Path(reference): Path<String>,
) -> DockerResponse {
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(Error::InvalidArgument("must specify at least one of 'stdout' or 'stderr'".into()).into());
    }
    let now = gateway.clock.now();
    let asked = LogsQuery {
        follow: query.flag("follow"),
        stdout,
        stderr,
        since_ns: nanos(&query, "since", now)?,
        until_ns: nanos(&query, "until", now)?,
        timestamps: query.flag("timestamps"),
        // As dockerd: what is no number is all.
        tail: query.text("tail").and_then(|tail| tail.parse().ok()),
        details: query.flag("details"),
        marks: query.flag("follow"),
        resume: None,
    };
    let container = gateway.store.project_tx(&scope).await?.find_container(&reference).await?;
    if !container.spec.log.keep {
        return Err(Error::NotImplemented("configured logging driver does not support reading".into()).into());
    }
    let path = format!("{CONTAINERS}/{}/logs", container.id);
    let agent = gateway.agents.of(&container)?;
    let body = match agent.stream(Method::GET, &path, Some(&asked), None::<&()>).await.map_err(tenant_error) {
        Ok(reply) if asked.follow => {
            Body::from_stream(resume::follow(agent, path, asked.clone(), container.spec.tty, reply))
        }
        Ok(reply) => Body::from_stream(reply.bytes_stream()),
        // Its host has not heard of it yet: it cannot have said anything.
        Err(Error::NotFound(_)) if !asked.follow => Body::empty(),
        Err(error) => return Err(error.into()),
    };
    let mut response: Response = body.into_response();
    let kind = streams::content_type(container.spec.tty, version);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if asked.follow {
        response.extensions_mut().insert(chassis::Endless);
    }
    Ok(response)
}

/// An instant in nanoseconds; `0` is none, as clients send it for "not given".
fn nanos(query: &Query, key: &str, now: OffsetDateTime) -> Result<Option<i64>> {
    let Some(written) = query.text(key).filter(|text| *text != "0") else { return Ok(None) };
    let at = instant::parse(key, written, now)?;
    i64::try_from(at.unix_timestamp_nanos()).map(Some).map_err(|_| Error::invalid(key, "is out of range"))
}
