//! What nearly every handler begins with: who asks, in which version, and with which query.

use axum::{
    extract::FromRequestParts,
    http::request::Parts,
    response::{IntoResponse, Response},
};
use contract::wake::Topic;
use model::Result;
use store::{ProjectScope, ProjectTx};

use super::{query::Query, version::RequestedVersion};
use crate::{Gateway, auth::Project};

/// A request of a project, but for its path and body.
pub(crate) struct Call {
    pub(crate) gateway: Gateway,
    pub(crate) scope: ProjectScope,
    pub(crate) version: RequestedVersion,
    pub(crate) query: Query,
}

impl Call {
    /// Opens a transaction in the caller's project.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub(crate) async fn tx(&self) -> Result<ProjectTx> {
        self.gateway.store.project_tx(&self.scope).await
    }

    /// Tells whoever follows the project's history that there is something new in it.
    pub(crate) fn tell_project(&self) {
        self.gateway.bus.publish(&Topic::Project(self.scope.project()));
    }
}

impl FromRequestParts<Gateway> for Call {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> std::result::Result<Self, Response> {
        let Project(scope) = Project::from_request_parts(parts, gateway).await.map_err(IntoResponse::into_response)?;
        let Ok(version) = RequestedVersion::from_request_parts(parts, gateway).await;
        let query = Query::from_request_parts(parts, gateway).await?;
        Ok(Self { gateway: gateway.clone(), scope, version, query })
    }
}
