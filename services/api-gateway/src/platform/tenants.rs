//! Tenants, for operators.

use axum::{Json, http::StatusCode};
use chassis::{Problems, ids};
use model::{Slug, TenantId};
use serde::Deserialize;
use store::Tenant;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Answer,
    caller::{Administration, Id},
    input::{Body, List, Position},
};
use crate::Gateway;

pub(crate) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(create, list)).routes(routes!(show, delete))
}

/// A tenant to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTenant {
    /// Unique on the platform.
    name: Slug,
}

/// Make a tenant
#[utoipa::path(post, path = "/api/v1/tenants", operation_id = "TenantCreate", tag = "Tenant",
    request_body = NewTenant, responses((status = 201, description = "Made", body = Tenant), Problems))]
async fn create(call: Administration, Body(new): Body<NewTenant>) -> Answer<(StatusCode, Json<Tenant>)> {
    let mut tx = call.tx().await?;
    let tenant = tx.create_tenant(TenantId(ids::uuid_v7()), &new.name).await?;
    tx.commit().await?;
    tracing::info!(tenant = %tenant.id, operator = %call.operator.token(), "tenant made");
    Ok((StatusCode::CREATED, Json(tenant)))
}

/// List tenants by name
#[utoipa::path(get, path = "/api/v1/tenants", operation_id = "TenantList", tag = "Tenant",
    params(Position), responses((status = 200, description = "Tenants", body = List<Tenant>), Problems))]
async fn list(call: Administration, position: Position) -> Answer<Json<List<Tenant>>> {
    let page = position.page()?;
    let mut tx = call.tx().await?;
    let tenants = tx.tenants(&page).await?;
    Ok(Json(List::sliced(tenants, page.limit, |tenant| tenant.name.to_string())))
}

/// Show a tenant
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}", operation_id = "TenantShow", tag = "Tenant",
    params(("tenant" = TenantId, Path, description = "Its id")),
    responses((status = 200, description = "The tenant", body = Tenant), Problems))]
async fn show(call: Administration, Id(tenant): Id<TenantId>) -> Answer<Json<Tenant>> {
    let mut tx = call.tx().await?;
    Ok(Json(tx.tenant(tenant).await?))
}

/// Remove a tenant that has no projects
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}", operation_id = "TenantDelete", tag = "Tenant",
    params(("tenant" = TenantId, Path, description = "Its id")),
    responses((status = 204, description = "Removed"), Problems))]
async fn delete(call: Administration, Id(tenant): Id<TenantId>) -> Answer<StatusCode> {
    let mut tx = call.tx().await?;
    tx.delete_tenant(tenant).await?;
    tx.commit().await?;
    tracing::info!(%tenant, operator = %call.operator.token(), "tenant removed");
    Ok(StatusCode::NO_CONTENT)
}
