//! A project's view of itself, and its own say in its policy; with [`super::repositories`], what a
//! project's credential opens here.

use axum::Json;
use chassis::Problems;
use serde::{Deserialize, Serialize};
use store::{PolicyChange, Project};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Answer, caller::OwnCall, input::Body};
use crate::Gateway;

pub(crate) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(show, change))
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
async fn show(call: OwnCall) -> Answer<Json<OwnProject>> {
    let mut tx = call.tx().await?;
    let project = tx.own_project().await?;
    let summary = tx.summary().await?;
    Ok(Json(OwnProject {
        project,
        containers_running: summary.running,
        containers_stopped: summary.stopped,
        images: summary.images,
    }))
}

/// What a project may decide for itself; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnPolicy {
    /// Its containers may mount `/var/run/docker.sock`. Off means now: sockets that are mounted answer nothing more.
    docker_socket: Option<bool>,
}

/// Change what the project's containers may have
#[utoipa::path(patch, path = "/api/v1/project", operation_id = "ProjectOwnChange", tag = "Project",
    request_body = OwnPolicy,
    responses((status = 200, description = "The project as it is now", body = Project), Problems))]
async fn change(call: OwnCall, Body(policy): Body<OwnPolicy>) -> Answer<Json<Project>> {
    let mut tx = call.tx().await?;
    let change = PolicyChange { docker_socket: policy.docker_socket, ..PolicyChange::default() };
    let project = tx.change_policy(&change).await?;
    tx.commit().await?;
    tracing::info!(project = %project.id, policy = ?project.policy, "a project changed its policy");
    Ok(Json(project))
}
