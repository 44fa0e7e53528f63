//! `HEAD`, `GET` and `PUT /containers/{id}/archive`: files in and out of a container (`docker cp`).
//! Its host does all of it; tars pass through here as they are, never whole.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use contract::agent::{ATTACH_WAIT_MAX_MS, CONTAINERS, PATH_STAT, PathQuery, PathStat, PutQuery};
use model::{Error, Phase, Result};
use store::ContainerRecord;

use super::{path_stat, recorded};
use crate::{
    Gateway,
    agents::tenant_error,
    auth::Project,
    docker::{body::DockerResponse, error::ErrorResponse, query::Query},
};

/// Time until a host begins to answer: it may have to fetch the image first.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a host may take to hear of this container.
pub(super) fn wait_ms(container: &ContainerRecord) -> u64 {
    if container.observed.progress.phase < Phase::Running { ATTACH_WAIT_MAX_MS } else { 0 }
}

/// What to ask a host for, from the query.
fn wanted<'q>(query: &'q Query, container: &ContainerRecord) -> Result<(&'q str, PathQuery)> {
    let path = query.text("path").ok_or_else(|| Error::InvalidArgument("bad parameter: pathcannot be empty".into()))?;
    Ok((path, PathQuery { path: path.to_owned(), wait_ms: wait_ms(container) }))
}

/// A host does not know the name the client used. What it forbids here is forbidden to the tenant, not
/// to this service.
fn named(error: Error, reference: &str) -> Error {
    if let Error::Forbidden(text) = &error
        && text.ends_with("is marked read-only")
    {
        return error;
    }
    let error = tenant_error(error);
    if let Error::NotFound(text) = &error
        && text.starts_with("Could not find the file")
    {
        return Error::NotFound(format!("{text} in container {reference}"));
    }
    error
}

fn with_stat(mut response: Response, stat: &PathStat) -> Result<Response> {
    let value = HeaderValue::from_str(&path_stat::header_value(stat)?).map_err(Error::internal)?;
    response.headers_mut().insert(HeaderName::from_static(path_stat::HEADER), value);
    Ok(response)
}

/// What is at a path of a container.
#[utoipa::path(head, path = "/containers/{id}/archive", operation_id = "ContainerArchiveInfo", tag = "Container",
    params(("id" = String, Path, description = "Id, name or unique id prefix"),
        ("path" = String, Query, description = "Path in the container")),
    responses((status = 200, description = "In the header X-Docker-Container-Path-Stat: base64 of JSON"),
        (status = 400, description = "No path"), (status = 404, description = "No such container, or nothing there")))]
pub(crate) async fn stat(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    query: Query,
    Path(reference): Path<String>,
) -> DockerResponse {
    let container = gateway.store.project_tx(&scope).await?.find_container(&reference).await?;
    let (_, asked) = wanted(&query, &container)?;
    let agent = gateway.agents.of(&container)?.with_timeout(PATIENCE);
    let told = agent.get_with::<_, PathStat>(&format!("{CONTAINERS}/{}/path", container.id), &asked).await;
    let stat = told.map_err(|e| named(e, &reference))?;
    Ok(with_stat(StatusCode::OK.into_response(), &stat)?)
}

/// A file or directory of a container as a tar.
#[utoipa::path(get, path = "/containers/{id}/archive", operation_id = "ContainerArchive", tag = "Container",
    params(("id" = String, Path, description = "Id, name or unique id prefix"),
        ("path" = String, Query, description = "Path in the container")),
    responses((status = 200, description = "A tar", content_type = "application/x-tar"),
        (status = 400, description = "No path", body = ErrorResponse),
        (status = 404, description = "No such container, or nothing there", body = ErrorResponse)))]
pub(crate) async fn get(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    query: Query,
    Path(reference): Path<String>,
) -> DockerResponse {
    let container = gateway.store.project_tx(&scope).await?.find_container(&reference).await?;
    let (_, asked) = wanted(&query, &container)?;
    let agent = gateway.agents.of(&container)?.with_timeout(PATIENCE);
    let path = format!("{CONTAINERS}/{}/archive", container.id);
    let reply = agent.stream(Method::GET, &path, Some(&asked), None::<&()>).await.map_err(|e| named(e, &reference))?;
    let stat = reply.headers().get(PATH_STAT).ok_or_else(|| Error::internal("an archive without its stat"))?;
    let stat = path_stat::decode(stat.as_bytes())?;
    recorded::alone(&gateway, &scope, &container, "archive-path", &[]).await;
    Ok(with_stat(tar(Body::from_stream(reply.bytes_stream())), &stat)?)
}

/// Extract a tar into a directory of a container.
#[utoipa::path(put, path = "/containers/{id}/archive", operation_id = "PutContainerArchive", tag = "Container",
    params(("id" = String, Path, description = "Id, name or unique id prefix"),
        ("path" = String, Query, description = "An existing directory in the container"),
        ("noOverwriteDirNonDir" = Option<bool>, Query, description = "Never put a file over a directory or the other way round"),
        ("copyUIDGID" = Option<bool>, Query, description = "Give everything to the container's own user")),
    request_body(content = Vec<u8>, content_type = "application/x-tar", description = "A tar: plain, gzip or zstd"),
    responses((status = 200, description = "Extracted"),
        (status = 400, description = "No directory, or no tar", body = ErrorResponse),
        (status = 403, description = "Read-only", body = ErrorResponse),
        (status = 404, description = "No such container or directory", body = ErrorResponse)))]
pub(crate) async fn put(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    query: Query,
    Path(reference): Path<String>,
    request: Request,
) -> DockerResponse {
    let container = gateway.store.project_tx(&scope).await?.find_container(&reference).await?;
    let (path, _) = wanted(&query, &container)?;
    let asked = PutQuery {
        path: path.to_owned(),
        no_overwrite_dir_non_dir: query.flag("noOverwriteDirNonDir"),
        copy_uid_gid: query.flag("copyUIDGID"),
        wait_ms: wait_ms(&container),
    };
    let agent = gateway.agents.of(&container)?;
    let body = request.into_body().into_data_stream();
    let path = format!("{CONTAINERS}/{}/archive", container.id);
    agent.upload::<_, _, _, ()>(Method::PUT, &path, &asked, body).await.map_err(|e| named(e, &reference))?;
    recorded::alone(&gateway, &scope, &container, "extract-to-dir", &[]).await;
    Ok(StatusCode::OK.into_response())
}

/// A tar on its way out.
pub(super) fn tar(body: Body) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    response
}
