//! Tenants: who owns projects. Operators make them; nothing of a project shows here.

use model::{Error, Result, Slug, TenantId};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{OperatorTx, on_constraint, store_error, stored::parsed};

/// An organisation that owns projects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Tenant {
    /// Id.
    pub id: TenantId,
    /// Unique on the platform.
    pub name: Slug,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// A slice of a list that is ordered by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<'a> {
    /// Only names after this one.
    pub after: &'a str,
    /// At most so many.
    pub limit: i64,
}

impl OperatorTx {
    /// Makes a tenant.
    ///
    /// # Errors
    /// `Conflict` if the name is taken.
    pub async fn create_tenant(&mut self, id: TenantId, name: &Slug) -> Result<Tenant> {
        let created_at = sqlx::query_scalar!(
            "INSERT INTO tenants (id, name) VALUES ($1, $2) RETURNING created_at",
            id.0,
            name.as_str()
        )
        .fetch_one(self.connection())
        .await
        .map_err(on_constraint("tenants_name_key", || Error::Conflict(format!("there is a tenant {name} already"))))?;
        Ok(Tenant { id, name: name.clone(), created_at })
    }

    /// Tenants by name.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn tenants(&mut self, page: &Page<'_>) -> Result<Vec<Tenant>> {
        let rows = sqlx::query!(
            "SELECT id, name, created_at FROM tenants WHERE name > $1 ORDER BY name LIMIT $2",
            page.after,
            page.limit
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        rows.into_iter()
            .map(|row| Ok(Tenant { id: TenantId(row.id), name: parsed(&row.name)?, created_at: row.created_at }))
            .collect()
    }

    /// One tenant.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn tenant(&mut self, id: TenantId) -> Result<Tenant> {
        let row = sqlx::query!("SELECT name, created_at FROM tenants WHERE id = $1", id.0)
            .fetch_optional(self.connection())
            .await
            .map_err(store_error)?
            .ok_or_else(|| Error::NotFound(format!("no such tenant: {id}")))?;
        Ok(Tenant { id, name: parsed(&row.name)?, created_at: row.created_at })
    }

    /// Removes a tenant that has no projects.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while it has projects.
    pub async fn delete_tenant(&mut self, id: TenantId) -> Result<()> {
        let gone = sqlx::query!("DELETE FROM tenants WHERE id = $1", id.0)
            .execute(self.connection())
            .await
            .map_err(on_constraint("projects_tenant_id_fkey", || {
                Error::Conflict("the tenant still has projects".into())
            }))?
            .rows_affected();
        if gone == 0 { Err(Error::NotFound(format!("no such tenant: {id}"))) } else { Ok(()) }
    }
}
