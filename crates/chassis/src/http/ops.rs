//! What operators and probes ask every service: alive, ready, metrics.

use axum::{
    Json, Router,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::run::Ctx;

pub(super) const PATHS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

pub(super) fn router(ctx: &Ctx) -> Router {
    let (health, metrics) = (ctx.health().clone(), ctx.metrics().clone());
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route(
            "/readyz",
            get(async move || -> Response {
                let readiness = health.readiness().await;
                let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                (status, Json(readiness)).into_response()
            }),
        )
        .route("/metrics", get(async move || ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render())))
}
