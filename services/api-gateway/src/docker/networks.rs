//! networks (being written).

use utoipa_axum::router::OpenApiRouter;

use crate::Gateway;

pub(crate) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default()
}
