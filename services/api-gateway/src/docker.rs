//! The Docker Engine API, as one project sees it. Each resource has a file that exposes its
//! `routes()`: paths as the OpenAPI document shows them, without a version. Docker's JSON shapes
//! live below this module and nowhere else.

pub(crate) mod body;
pub(crate) mod call;
pub(crate) mod error;
pub(crate) mod filters;
pub(crate) mod headers;
pub(crate) mod instant;
pub(crate) mod instructions;
pub(crate) mod paths;
pub(crate) mod platform;
pub(crate) mod query;
pub(crate) mod version;

mod containers;
mod disk_usage;
mod distribution;
mod events;
mod execs;
mod images;
mod login;
mod networks;
mod streams;
mod system;
mod unbuilt;
mod volumes;

use axum::{Router, middleware};
use utoipa_axum::router::OpenApiRouter;

use crate::{Gateway, auth, edge};

/// Every operation that needs a project's credential.
fn guarded() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default()
        .merge(system::routes())
        .merge(disk_usage::routes())
        .merge(distribution::routes())
        .merge(images::routes())
        .merge(login::routes())
        .merge(networks::routes())
        .merge(containers::routes())
        .merge(execs::routes())
        .merge(events::routes())
        .merge(volumes::routes())
        .merge(unbuilt::routes())
}

/// All operations and their description; handlers still without their layers.
pub(crate) fn documented() -> OpenApiRouter<Gateway> {
    guarded().merge(system::open_routes())
}

/// The face, ready to serve.
pub(crate) fn router(gateway: &Gateway) -> Router {
    let (guarded, _) = guarded().split_for_parts();
    let (open, _) = system::open_routes().split_for_parts();
    guarded
        .route_layer(middleware::from_fn_with_state(gateway.clone(), auth::require_project))
        .merge(open)
        .route_layer(middleware::from_fn(headers::layer))
        .route_layer(middleware::from_fn(edge::tell_route))
        .method_not_allowed_fallback(|| async { error::page_not_found() })
        .fallback(|| async { error::page_not_found() })
        .with_state(gateway.clone())
}
