//! The platform API, `/api/v1/…`: what Docker has no word for. Tenants, projects, credentials,
//! hosts. Errors are problem documents (RFC 9457).

use axum::{Router, middleware};
use utoipa_axum::router::OpenApiRouter;

use crate::{Gateway, auth, openapi};

/// All operations and their description.
pub(crate) fn documented() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default()
}

/// The face, ready to serve, with the document and the reference page.
pub(crate) fn router(gateway: &Gateway) -> Router {
    let (router, _) = documented().split_for_parts();
    router
        .merge(openapi::pages())
        .route_layer(middleware::from_fn_with_state(gateway.clone(), auth::require_principal))
        .with_state(gateway.clone())
}
