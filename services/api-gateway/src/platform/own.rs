//! A project's view of itself; with [`super::repositories`], what a project's credential opens here.

use axum::{Json, extract::State};
use chassis::Problems;
use model::Error;
use serde::Serialize;
use store::{Principal, Project};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Answer;
use crate::{Gateway, auth::Caller};

pub(crate) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(show))
}

/// The caller's project and what is in it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OwnProject {
    #[serde(flatten)]
    project: Project,
    /// Containers that run.
    containers_running: i64,
    /// Containers that do not.
    containers_stopped: i64,
    /// Images.
    images: i64,
}

/// Show the project that the credential opens
#[utoipa::path(get, path = "/api/v1/project", operation_id = "ProjectOwn", tag = "Project",
    responses((status = 200, description = "The caller's project", body = OwnProject), Problems))]
async fn show(State(gateway): State<Gateway>, Caller(caller): Caller) -> Answer<Json<OwnProject>> {
    let Principal::Project(scope) = caller else {
        return Err(Error::Forbidden("an operator's credential opens no project".into()).into());
    };
    let mut tx = gateway.store.project_tx(&scope).await?;
    let project = tx.own_project().await?;
    let summary = tx.summary().await?;
    Ok(Json(OwnProject {
        project,
        containers_running: summary.running,
        containers_stopped: summary.stopped,
        images: summary.images,
    }))
}
