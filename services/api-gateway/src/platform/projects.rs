//! Projects, for operators.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use chassis::{Problems, ids};
use model::{NetworkId, ProjectId, Slug, TenantId};
use serde::Deserialize;
use store::{PolicyChange, Project};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Answer,
    input::{Body, List, Position, id},
};
use crate::{Gateway, auth::Operator};

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
    State(gateway): State<Gateway>,
    Operator(operator): Operator,
    Path(tenant): Path<String>,
    Body(new): Body<NewProject>,
) -> Answer<(StatusCode, Json<Project>)> {
    let network = NetworkId::from_bytes(ids::random_hex_id());
    let wanted =
        store::NewProject { id: ProjectId(ids::uuid_v7()), tenant: id(&tenant)?, name: &new.name, network: &network };
    let mut tx = gateway.store.operator_tx(&operator).await?;
    let project = tx.create_project(&wanted).await?;
    tx.commit().await?;
    tracing::info!(project = %project.id, operator = %operator.token(), "project made");
    Ok((StatusCode::CREATED, Json(project)))
}

/// List a tenant's projects by name
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/projects", operation_id = "ProjectList", tag = "Project",
    params(("tenant" = TenantId, Path, description = "Their owner"), Position),
    responses((status = 200, description = "Projects", body = List<Project>), Problems))]
async fn list(
    State(gateway): State<Gateway>,
    Operator(operator): Operator,
    Path(tenant): Path<String>,
    position: Position,
) -> Answer<Json<List<Project>>> {
    let page = position.page()?;
    let mut tx = gateway.store.operator_tx(&operator).await?;
    let projects = tx.projects(id(&tenant)?, &page).await?;
    Ok(Json(List::sliced(projects, page.limit, |project| project.name.to_string())))
}

/// Show a project
#[utoipa::path(get, path = "/api/v1/projects/{project}", operation_id = "ProjectShow", tag = "Project",
    params(("project" = ProjectId, Path, description = "Its id")),
    responses((status = 200, description = "The project", body = Project), Problems))]
async fn show(
    State(gateway): State<Gateway>,
    Operator(operator): Operator,
    Path(project): Path<String>,
) -> Answer<Json<Project>> {
    let mut tx = gateway.store.operator_tx(&operator).await?;
    Ok(Json(tx.project(id(&project)?).await?))
}

/// Change a project's policy
#[utoipa::path(patch, path = "/api/v1/projects/{project}", operation_id = "ProjectChange", tag = "Project",
    params(("project" = ProjectId, Path, description = "Its id")),
    request_body = PolicyChange,
    responses((status = 200, description = "The project as it is now", body = Project), Problems))]
async fn change(
    State(gateway): State<Gateway>,
    Operator(operator): Operator,
    Path(project): Path<String>,
    Body(wanted): Body<PolicyChange>,
) -> Answer<Json<Project>> {
    let mut tx = gateway.store.operator_tx(&operator).await?;
    let project = tx.change_policy(id(&project)?, &wanted).await?;
    tx.commit().await?;
    tracing::info!(project = %project.id, operator = %operator.token(), policy = ?project.policy, "policy changed");
    Ok(Json(project))
}

/// Remove a project that has no containers, with its images, credentials, network and history
#[utoipa::path(delete, path = "/api/v1/projects/{project}", operation_id = "ProjectDelete", tag = "Project",
    params(("project" = ProjectId, Path, description = "Its id")),
    responses((status = 204, description = "Removed"), Problems))]
async fn delete(
    State(gateway): State<Gateway>,
    Operator(operator): Operator,
    Path(project): Path<String>,
) -> Answer<StatusCode> {
    let project = id(&project)?;
    let mut tx = gateway.store.operator_tx(&operator).await?;
    tx.delete_project(project).await?;
    tx.commit().await?;
    tracing::info!(%project, operator = %operator.token(), "project removed");
    Ok(StatusCode::NO_CONTENT)
}
