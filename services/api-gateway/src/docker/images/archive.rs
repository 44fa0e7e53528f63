//! `docker save` and `docker load`: image-svc packs and unpacks, the bytes pass through here.

use axum::{
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use chassis::client::stream_lines;
use contract::image::{LOAD, LoadQuery, PullProgress, SAVE, SaveRequest};
use futures::StreamExt as _;
use model::{Error, Result};
use store::ProjectScope;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::pull::{rendered, streamed};
use crate::{
    Gateway,
    auth::Project,
    docker::{
        body::DockerResponse,
        error::{DockerError, ErrorResponse},
        platform,
        query::Query,
        version::RequestedVersion,
    },
};

pub(crate) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(save)).routes(routes!(save_several)).routes(routes!(load))
}

/// Pack an image
#[utoipa::path(get, path = "/images/{name}/get", operation_id = "ImageGet", tag = "Image",
    params(("name" = String, Path, description = "Reference, id or prefix of one; a name without tag means all of its tags"),
        ("platform" = Option<String>, Query, description = "JSON of an OCI platform (1.48); the image must be of it")),
    responses((status = 200, description = "An OCI layout and `docker save` archive in one", content_type = "application/x-tar"),
        (status = 404, description = "No such image", body = ErrorResponse)))]
async fn save(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    version: RequestedVersion,
    Path(name): Path<String>,
    query: Query,
) -> DockerResponse {
    packed(&gateway, scope, version, vec![name], &query).await
}

/// Pack several images
#[utoipa::path(get, path = "/images/get", operation_id = "ImageGetAll", tag = "Image",
    params(("names" = Option<Vec<String>>, Query, description = "As one is named"),
        ("platform" = Option<String>, Query, description = "JSON of an OCI platform (1.48); every image must be of it")),
    responses((status = 200, description = "An OCI layout and `docker save` archive in one", content_type = "application/x-tar"),
        (status = 404, description = "No such image", body = ErrorResponse)))]
async fn save_several(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    version: RequestedVersion,
    query: Query,
) -> DockerResponse {
    let names = query.all("names").map(str::to_owned).collect();
    packed(&gateway, scope, version, names, &query).await
}

async fn packed(
    gateway: &Gateway,
    scope: ProjectScope,
    version: RequestedVersion,
    names: Vec<String>,
    query: &Query,
) -> DockerResponse {
    let wanted = SaveRequest { project: scope.project(), names, platforms: platform::all(query, version, 48)? };
    let tar = gateway.image.stream(Method::POST, SAVE, None::<&()>, Some(&wanted)).await.map_err(DockerError)?;
    let mut response = (StatusCode::OK, Body::from_stream(tar.bytes_stream())).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    Ok(response)
}

/// Take images in from an archive
#[utoipa::path(post, path = "/images/load", operation_id = "ImageLoad", tag = "Image",
    params(("quiet" = Option<bool>, Query, description = "No lines about layers; on unless it is said"),
        ("platform" = Option<String>, Query, description = "JSON of an OCI platform (1.48): which one of several")),
    request_body(content = Vec<u8>, content_type = "application/x-tar"),
    responses((status = 200, description = "Progress, one JSON object after another; what is wrong with the archive is told in the last", content_type = "application/json"),
        (status = 400, description = "The platform cannot be read", body = ErrorResponse)))]
async fn load(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    version: RequestedVersion,
    query: Query,
    request: Request,
) -> DockerResponse {
    let quiet = query.get("quiet").is_none() || query.flag("quiet");
    let wanted = LoadQuery { project: scope.project(), quiet, platform: platform::one(&query, version, 48)? };
    let body = request.into_body().into_data_stream();
    let answer = gateway.image.relay(Method::POST, LOAD, &wanted, HeaderMap::new(), Some(body)).await?;
    let lines = stream_lines::<PullProgress>(checked(answer).await?);
    Ok(told(lines))
}

/// A refusal before the first line is an error with a status of its own.
async fn checked(answer: reqwest::Response) -> Result<reqwest::Response> {
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status();
    Err(answer.json().await.unwrap_or_else(|_| Error::internal(format!("image-svc answers {status} to a load"))))
}

fn told(lines: impl futures::Stream<Item = Result<PullProgress>> + Send + 'static) -> Response {
    streamed(Body::from_stream(lines.map(|line| Ok::<_, std::convert::Infallible>(rendered(line)))))
}
