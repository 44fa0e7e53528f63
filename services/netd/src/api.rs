//! The HTTP face: two operations on the plan. Whoever can open the socket is root or the agent.

use axum::{Json, extract::State};
use chassis::{Answer, Failure};
use contract::net::{self, NetDelta, NetPlan, NetStatus};
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::engine::Engine;

#[derive(utoipa::OpenApi)]
#[openapi(info(
    title = "Wharfage netd",
    description = "One per host, over a unix socket: makes the kernel's network match a plan."
))]
struct Description;

/// The routes and their description.
pub fn api() -> (axum::Router<Engine>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(replace_plan))
        .routes(routes!(change_plan))
        .split_for_parts()
}

/// Replace the plan. Whatever is not in it is removed.
#[utoipa::path(
    put,
    path = net::PLAN,
    operation_id = "replace_plan",
    tag = "plan",
    request_body = NetPlan,
    responses(
        (status = 200, description = "The kernel has it, but for what `failed` names", body = NetStatus),
        (status = 400, description = "Not a plan"),
        (status = 503, description = "The plan could not be stored, or the kernel could not be read"),
    ),
)]
async fn replace_plan(State(engine): State<Engine>, Json(plan): Json<NetPlan>) -> Answer<Json<NetStatus>> {
    engine.replace(plan).await.map(Json).map_err(Failure)
}

/// Change the plan. Needs one to change.
#[utoipa::path(
    post,
    path = net::DELTA,
    operation_id = "change_plan",
    tag = "plan",
    request_body = NetDelta,
    responses(
        (status = 200, description = "The kernel has it, but for what `failed` names", body = NetStatus),
        (status = 400, description = "Not a delta"),
        (status = 409, description = "There is no plan yet: send the whole one"),
        (status = 503, description = "The change could not be stored, or the kernel could not be read"),
    ),
)]
async fn change_plan(State(engine): State<Engine>, Json(delta): Json<NetDelta>) -> Answer<Json<NetStatus>> {
    engine.change(delta).await.map(Json).map_err(Failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_names_the_paths_of_the_contract() {
        let (_, document) = api();
        let paths: Vec<_> = document.paths.paths.keys().map(String::as_str).collect();
        assert_eq!(paths, [net::DELTA, net::PLAN]);
    }
}
