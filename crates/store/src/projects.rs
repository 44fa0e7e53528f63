//! Projects: the unit of isolation. A project is made with its default network, whose segment
//! number and subnet nobody else has: constraints allocate them.

use model::{Error, NetworkId, ProjectId, Result, Slug, TenantId};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{
    DEFAULT_NETWORK, OperatorTx, Page, ProjectPolicy, ProjectTx, RegistryQuota, networks::NUMBER_TRIES, on_constraint,
    store_error, stored::parsed,
};

/// A project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Project {
    /// Id.
    pub id: ProjectId,
    /// Its owner.
    pub tenant_id: TenantId,
    /// Unique within its tenant.
    pub name: Slug,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// What its containers may have.
    pub policy: ProjectPolicy,
    /// What it keeps in its repositories.
    pub registry: RegistryQuota,
}

/// What a new project is made of. The caller draws the ids.
#[derive(Clone, Debug)]
pub struct NewProject<'a> {
    /// Id.
    pub id: ProjectId,
    /// Its owner.
    pub tenant: TenantId,
    /// Its name.
    pub name: &'a Slug,
    /// Id of its default network.
    pub network: &'a NetworkId,
}

impl OperatorTx {
    /// Makes a project and its default network.
    ///
    /// # Errors
    /// `NotFound` for an unknown tenant, `Conflict` for a name that is taken, `LimitExceeded` when
    /// the pool has no network left.
    pub async fn create_project(&mut self, new: &NewProject<'_>) -> Result<Project> {
        let tenant = self.tenant(new.tenant).await?;
        let created_at = sqlx::query_scalar!(
            "INSERT INTO projects (id, tenant_id, name) VALUES ($1, $2, $3) RETURNING created_at",
            new.id.0,
            tenant.id.0,
            new.name.as_str()
        )
        .fetch_one(self.connection())
        .await
        .map_err(on_constraint("projects_tenant_name_key", || {
            Error::Conflict(format!("tenant {} has a project {} already", tenant.name, new.name))
        }))?;
        self.create_default_network(new.id, new.network).await?;
        let (name, policy) = (new.name.clone(), ProjectPolicy::default());
        let registry = RegistryQuota::default();
        Ok(Project { id: new.id, tenant_id: tenant.id, name, created_at, policy, registry })
    }

    /// Takes the lowest number that no network has. Another creation may take it first; then the
    /// insert waits for that one, does nothing, and the next look sees what it took.
    async fn create_default_network(&mut self, project: ProjectId, network: &NetworkId) -> Result<()> {
        for _ in 0..NUMBER_TRIES {
            let slot = sqlx::query!(r#"SELECT vni AS "vni!", subnet::text AS "subnet!" FROM free_network_slot()"#)
                .fetch_optional(self.connection())
                .await
                .map_err(store_error)?
                .ok_or_else(|| Error::LimitExceeded("the platform's pool of networks is used up".into()))?;
            let made = sqlx::query!(
                "INSERT INTO networks (id, project_id, name, vni, subnet) VALUES ($1, $2, $3, $4, $5::text::cidr)
                 ON CONFLICT DO NOTHING",
                network.as_str(),
                project.0,
                DEFAULT_NETWORK,
                slot.vni,
                slot.subnet,
            )
            .execute(self.connection())
            .await
            .map_err(store_error)?
            .rows_affected();
            if made == 1 {
                return Ok(());
            }
        }
        Err(Error::Unavailable("too many projects are being made at once; try again".into()))
    }

    /// A tenant's projects by name.
    ///
    /// # Errors
    /// `NotFound` for an unknown tenant.
    pub async fn projects(&mut self, tenant: TenantId, page: &Page<'_>) -> Result<Vec<Project>> {
        self.tenant(tenant).await?;
        let rows = sqlx::query!(
            r#"SELECT p.id, p.name, p.created_at, p.docker_socket, p.runtimes, q.bytes_max,
                      q.used_bytes AS "used_bytes!", q.reserved_bytes AS "reserved_bytes!"
               FROM projects p CROSS JOIN LATERAL registry_quota(p.id) q
               WHERE p.tenant_id = $1 AND p.name > $2 ORDER BY p.name LIMIT $3"#,
            tenant.0,
            page.after,
            page.limit
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        rows.into_iter()
            .map(|row| {
                let (id, name) = (ProjectId(row.id), parsed(&row.name)?);
                let policy = ProjectPolicy { docker_socket: row.docker_socket, runtimes: row.runtimes };
                let registry = RegistryQuota {
                    bytes_max: row.bytes_max,
                    used_bytes: row.used_bytes,
                    reserved_bytes: row.reserved_bytes,
                };
                Ok(Project { id, tenant_id: tenant, name, created_at: row.created_at, policy, registry })
            })
            .collect()
    }

    /// One project.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn project(&mut self, id: ProjectId) -> Result<Project> {
        read(self.connection(), id).await
    }

    /// Removes a project with its images, credentials, network and history.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while it has containers.
    pub async fn delete_project(&mut self, id: ProjectId) -> Result<()> {
        let gone = sqlx::query!("DELETE FROM projects WHERE id = $1", id.0)
            .execute(self.connection())
            .await
            .map_err(|error| {
                let holds =
                    |what: &str| Error::Conflict(format!("the project still has {what}, or had some a moment ago"));
                match error.as_database_error().and_then(|database| database.constraint()) {
                    Some("containers_project_id_fkey") => holds("containers"),
                    Some("volumes_project_id_fkey") => holds("volumes"),
                    Some(_) | None => store_error(error),
                }
            })?
            .rows_affected();
        if gone == 0 { Err(no_such_project(id)) } else { Ok(()) }
    }
}

impl ProjectTx {
    /// The project itself.
    ///
    /// # Errors
    /// `NotFound` if it is being deleted just now.
    pub async fn own_project(&mut self) -> Result<Project> {
        let id = self.project;
        read(self.connection(), id).await
    }
}

/// One project, as far as the transaction may see it.
pub(crate) async fn read(connection: &mut sqlx::PgConnection, id: ProjectId) -> Result<Project> {
    let row = sqlx::query!(
        r#"SELECT p.tenant_id, p.name, p.created_at, p.docker_socket, p.runtimes, q.bytes_max,
                  q.used_bytes AS "used_bytes!", q.reserved_bytes AS "reserved_bytes!"
           FROM projects p CROSS JOIN LATERAL registry_quota(p.id) q WHERE p.id = $1"#,
        id.0
    )
    .fetch_optional(connection)
    .await
    .map_err(store_error)?
    .ok_or_else(|| no_such_project(id))?;
    let registry =
        RegistryQuota { bytes_max: row.bytes_max, used_bytes: row.used_bytes, reserved_bytes: row.reserved_bytes };
    let policy = ProjectPolicy { docker_socket: row.docker_socket, runtimes: row.runtimes };
    let (tenant_id, name) = (TenantId(row.tenant_id), parsed(&row.name)?);
    Ok(Project { id, tenant_id, name, created_at: row.created_at, policy, registry })
}

fn no_such_project(id: ProjectId) -> Error {
    Error::NotFound(format!("no such project: {id}"))
}
