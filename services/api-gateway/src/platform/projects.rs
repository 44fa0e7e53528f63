//! Projects, for operators.

use axum::{Json, http::StatusCode};
use chassis::{Problems, ids};
use model::{NetworkId, ProjectId, Slug, TenantId};
use serde::Deserialize;
use store::{PolicyChange, Project};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Answer,
    caller::{Administration, Id},
    input::{Body, List, Position},
};
use crate::Gateway;

pub(crate) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(create, list)).routes(routes!(show, change, delete))
}

/// A project to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewProject {
    /// Unique within its tenant.
    name: Slug,
}

/// Make a project, with its default network
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/projects", operation_id = "ProjectCreate", tag = "Project",
    params(("tenant" = TenantId, Path, description = "Its owner")),
    request_body = NewProject, responses((status = 201, description = "Made", body = Project), Problems))]
async fn create(
    call: Administration,
    Id(tenant): Id<TenantId>,
    Body(new): Body<NewProject>,
) -> Answer<(StatusCode, Json<Project>)> {
    let network = NetworkId::from_bytes(ids::random_hex_id());
    let wanted = store::NewProject { id: ProjectId(ids::uuid_v7()), tenant, name: &new.name, network: &network };
    let mut tx = call.tx().await?;
    let project = tx.create_project(&wanted).await?;
    tx.commit().await?;
    tracing::info!(project = %project.id, operator = %call.operator.token(), "project made");
    Ok((StatusCode::CREATED, Json(project)))
}

/// List a tenant's projects by name
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/projects", operation_id = "ProjectList", tag = "Project",
    params(("tenant" = TenantId, Path, description = "Their owner"), Position),
    responses((status = 200, description = "Projects", body = List<Project>), Problems))]
async fn list(call: Administration, Id(tenant): Id<TenantId>, position: Position) -> Answer<Json<List<Project>>> {
    let page = position.page()?;
    let mut tx = call.tx().await?;
    let projects = tx.projects(tenant, &page).await?;
    Ok(Json(List::sliced(projects, page.limit, |project| project.name.to_string())))
}

/// Show a project
#[utoipa::path(get, path = "/api/v1/projects/{project}", operation_id = "ProjectShow", tag = "Project",
    params(("project" = ProjectId, Path, description = "Its id")),
    responses((status = 200, description = "The project", body = Project), Problems))]
async fn show(call: Administration, Id(project): Id<ProjectId>) -> Answer<Json<Project>> {
    let mut tx = call.tx().await?;
    Ok(Json(tx.project(project).await?))
}

/// Change a project's policy
#[utoipa::path(patch, path = "/api/v1/projects/{project}", operation_id = "ProjectChange", tag = "Project",
    params(("project" = ProjectId, Path, description = "Its id")),
    request_body = PolicyChange,
    responses((status = 200, description = "The project as it is now", body = Project), Problems))]
async fn change(
    call: Administration,
    Id(project): Id<ProjectId>,
    Body(wanted): Body<PolicyChange>,
) -> Answer<Json<Project>> {
    let mut tx = call.tx().await?;
    let project = tx.change_policy(project, &wanted).await?;
    tx.commit().await?;
    tracing::info!(project = %project.id, operator = %call.operator.token(), policy = ?project.policy, "policy changed");
    Ok(Json(project))
}

/// Remove a project that has no containers, with its images, credentials, network and history
#[utoipa::path(delete, path = "/api/v1/projects/{project}", operation_id = "ProjectDelete", tag = "Project",
    params(("project" = ProjectId, Path, description = "Its id")),
    responses((status = 204, description = "Removed"), Problems))]
async fn delete(call: Administration, Id(project): Id<ProjectId>) -> Answer<StatusCode> {
    let mut tx = call.tx().await?;
    tx.delete_project(project).await?;
    tx.commit().await?;
    tracing::info!(%project, operator = %call.operator.token(), "project removed");
    Ok(StatusCode::NO_CONTENT)
}
