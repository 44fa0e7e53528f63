//! `docker save` and `docker load`: image-svc packs and unpacks, the bytes pass through here.

use axum::{
    body::Body,
    extract::{Path, Request},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::IntoResponse as _,
};
use chassis::client::stream_lines;
use contract::image::{LOAD, LoadQuery, SAVE, SaveRequest};
use model::{Error, Result};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::pull::told;
use crate::{
    Gateway,
    docker::{
        body::DockerResponse,
        call::Call,
        error::{DockerError, ErrorResponse},
        platform,
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
async fn save(call: Call, Path(name): Path<String>) -> DockerResponse {
    packed(&call, vec![name]).await
}

/// Pack several images
#[utoipa::path(get, path = "/images/get", operation_id = "ImageGetAll", tag = "Image",
    params(("names" = Option<Vec<String>>, Query, description = "As one is named"),
        ("platform" = Option<String>, Query, description = "JSON of an OCI platform (1.48); every image must be of it")),
    responses((status = 200, description = "An OCI layout and `docker save` archive in one", content_type = "application/x-tar"),
        (status = 404, description = "No such image", body = ErrorResponse)))]
async fn save_several(call: Call) -> DockerResponse {
    packed(&call, call.query.all("names").map(str::to_owned).collect()).await
}

async fn packed(call: &Call, names: Vec<String>) -> DockerResponse {
    let platforms = platform::all(&call.query, call.version, 48)?;
    let wanted = SaveRequest { project: call.scope.project(), names, platforms };
    let tar = call.gateway.image.stream(Method::POST, SAVE, None::<&()>, Some(&wanted)).await.map_err(DockerError)?;
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
async fn load(call: Call, request: Request) -> DockerResponse {
    let quiet = call.query.get("quiet").is_none() || call.query.flag("quiet");
    let platform = platform::one(&call.query, call.version, 48)?;
    let wanted = LoadQuery { project: call.scope.project(), quiet, platform };
    let body = request.into_body().into_data_stream();
    let answer = call.gateway.image.relay(Method::POST, LOAD, &wanted, HeaderMap::new(), Some(body)).await?;
    Ok(told(stream_lines(checked(answer).await?)))
}

/// A refusal before the first line is an error with a status of its own.
async fn checked(answer: reqwest::Response) -> Result<reqwest::Response> {
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status();
    Err(answer.json().await.unwrap_or_else(|_| Error::internal(format!("image-svc answers {status} to a load"))))
}
