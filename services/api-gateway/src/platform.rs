//! The platform API, `/api/v1/…`: what Docker has no word for. Tenants, projects, credentials,
//! hosts, and of a project's repositories what the registry's own API has no word for. Errors are problem documents (RFC 9457). Operators administer; a project's credential
//! sees its own project here and nothing more.

mod caller;
mod hosts;
mod input;
mod own;
mod projects;
mod repositories;
mod tenants;
mod tokens;

use axum::{Router, middleware};
use chassis::{Problem, problem};
use model::Error;
use utoipa_axum::router::OpenApiRouter;

use crate::{Gateway, auth, edge, openapi};

/// What a platform handler returns.
pub(crate) type Answer<T> = Result<T, Problem>;

/// All operations and their description.
pub(crate) fn documented() -> OpenApiRouter<Gateway> {
    let mut router = OpenApiRouter::default()
        .merge(tenants::routes())
        .merge(projects::routes())
        .merge(tokens::routes())
        .merge(hosts::routes())
        .merge(own::routes())
        .merge(repositories::routes());
    openapi::add_schema::<problem::Problem>(router.get_openapi_mut());
    router
}

/// The face, ready to serve, with the document and the reference page.
pub(crate) fn router(gateway: &Gateway) -> Router {
    let (router, _) = documented().split_for_parts();
    router
        .merge(openapi::pages())
        .route_layer(middleware::from_fn_with_state(gateway.clone(), auth::require_principal))
        .route_layer(middleware::from_fn(edge::tell_route))
        .method_not_allowed_fallback(|| async {
            let detail = "this path does not know the method".to_owned();
            let problem = Problem::from(Error::InvalidArgument(detail));
            Problem { status: 405, title: "Method not allowed".into(), ..problem }
        })
        .fallback(|| async { Problem::from(Error::NotFound("no such path".into())) })
        .with_state(gateway.clone())
}
