//! `/_ping`, `/version`, `/info`, `/system/df`: the project as one Docker host. No host of the
//! fleet shows in any of them.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode},
    response::{IntoResponse as _, Response},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::Gateway;

/// Without a credential.
pub(crate) fn open_routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(ping, ping_head))
}

/// With a project's.
pub(crate) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default()
}

/// Is somebody there, and which API do they speak?
#[utoipa::path(get, path = "/_ping", operation_id = "SystemPing", tag = "System", security(()),
    responses((status = 200, description = "OK", content_type = "text/plain")))]
async fn ping() -> Response {
    pong("OK")
}

/// The same without a body; what clients send first.
#[utoipa::path(head, path = "/_ping", operation_id = "SystemPingHead", tag = "System", security(()),
    responses((status = 200, description = "OK")))]
async fn ping_head() -> Response {
    pong("")
}

fn pong(body: &'static str) -> Response {
    let mut response = (StatusCode::OK, Body::from(body)).into_response();
    let headers = response.headers_mut();
    let mut set = |name: &'static str, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
    set("content-type", "text/plain; charset=utf-8");
    set("builder-version", "1");
    set("swarm", "inactive");
    set("cache-control", "no-cache, no-store, must-revalidate");
    set("pragma", "no-cache");
    response
}
