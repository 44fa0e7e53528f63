//! All routes, and the document that describes them: a route that is not described is not reachable.

use axum::{Json, Router, extract::rejection::JsonRejection};
use chassis::Failure;
use model::Error;
use utoipa::{OpenApi, openapi::OpenApi as Document};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{State, host_plan, join, placements, report};

#[derive(OpenApi)]
#[openapi(
    info(title = "Wharfage scheduler", description = "Internal: placements for the gateway, plans and reports of hosts."),
    tags((name = "placements", description = "For the gateway"), (name = "hosts", description = "For hosts"))
)]
struct Described;

fn routes() -> OpenApiRouter<State> {
    OpenApiRouter::with_openapi(Described::openapi())
        .routes(routes!(placements::place))
        .routes(routes!(join::join))
        .routes(routes!(host_plan::plan))
        .routes(routes!(report::report))
}

/// The router with its document.
pub fn api(state: State) -> (Router, Document) {
    let (router, document) = routes().split_for_parts();
    (router.with_state(state), document)
}

/// The document alone, for the checked-in copy.
#[must_use]
pub fn openapi() -> Document {
    routes().split_for_parts().1
}

/// A JSON body, or the error every internal client understands.
pub(crate) fn body<T>(body: Result<Json<T>, JsonRejection>) -> Result<T, Failure> {
    match body {
        Ok(Json(document)) => Ok(document),
        Err(rejection) if rejection.status().as_u16() == 413 => Err(Error::LimitExceeded(rejection.body_text()).into()),
        Err(rejection) => Err(Error::InvalidArgument(rejection.body_text()).into()),
    }
}
