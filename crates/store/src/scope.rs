//! Who is asking, as a value that only a checked credential can make.

use contract::socket::Claim;
use model::{ContainerId, HostId, ProjectId, Result, TenantId, TokenId};
use uuid::Uuid;

use crate::{Store, docker_socket_is_off, store_error};

/// What a credential opens.
#[derive(Clone, Debug)]
pub enum Principal {
    /// One project.
    Project(ProjectScope),
    /// One project, to a container of it that has the Docker socket.
    Container(ProjectScope, ContainerId),
    /// The platform itself, but no project's content.
    Operator(OperatorScope),
}

/// The right to act in one project. Its fields are private to this crate: nobody can make one up.
#[derive(Clone, Copy, Debug)]
pub struct ProjectScope {
    project: ProjectId,
    tenant: Option<TenantId>,
    token: Option<TokenId>,
}

/// The right to administer tenants, projects, tokens and hosts.
#[derive(Clone, Copy, Debug)]
pub struct OperatorScope {
    pub(crate) token: TokenId,
}

impl ProjectScope {
    /// For a service that was asked by the gateway, over mTLS, to act in a project the gateway has
    /// authorized. The gateway itself never calls this.
    #[must_use]
    pub fn delegated(project: ProjectId) -> Self {
        Self { project, tenant: None, token: None }
    }

    /// For the look of [`Store::registry_look`], which has checked the credential.
    pub(crate) fn of_token(project: ProjectId, tenant: Option<TenantId>, token: Option<TokenId>) -> Self {
        Self { project, tenant, token }
    }

    /// The project.
    #[must_use]
    pub fn project(&self) -> ProjectId {
        self.project
    }

    /// The tenant that owns it; `None` for a delegated scope.
    #[must_use]
    pub fn tenant(&self) -> Option<TenantId> {
        self.tenant
    }

    /// The credential used; `None` for a delegated scope, and for a container's.
    #[must_use]
    pub fn token(&self) -> Option<TokenId> {
        self.token
    }
}

impl OperatorScope {
    /// The credential used.
    #[must_use]
    pub fn token(&self) -> TokenId {
        self.token
    }
}

impl Store {
    /// Which principal holds this credential (`kind`: `bearer` or `certificate`)? Always asked of
    /// Postgres, never of a cache: a revoked token is refused from the next request on.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn authenticate(&self, kind: &str, secret_sha256: &[u8; 32]) -> Result<Option<Principal>> {
        let row = sqlx::query!(
            r#"SELECT token_id AS "token_id!", project_id, tenant_id FROM authenticate($1, $2)"#,
            kind,
            secret_sha256
        )
        .fetch_optional(self.pool())
        .await
        .map_err(store_error)?;
        Ok(row.map(|row| principal(row.token_id, row.project_id, row.tenant_id)))
    }

    /// The principal of a credential that was checked before, and from which a signed, short-lived one
    /// was made: it lives no longer than what it was made from.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn authenticate_again(&self, made_from: TokenId) -> Result<Option<Principal>> {
        let row = sqlx::query!(
            r#"SELECT token_id AS "token_id!", project_id, tenant_id FROM authenticate_again($1)"#,
            made_from.0
        )
        .fetch_optional(self.pool())
        .await
        .map_err(store_error)?;
        Ok(row.map(|row| principal(row.token_id, row.project_id, row.tenant_id)))
    }

    /// For which project does this host ask, on behalf of this run of one of its containers? `None`: it
    /// is not there, does not run so, or has no Docker socket. Always asked of Postgres.
    ///
    /// # Errors
    /// `Forbidden` where the project's policy does not allow the socket (any more).
    pub async fn authenticate_container(&self, host: HostId, claim: &Claim) -> Result<Option<Principal>> {
        let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
        let row = sqlx::query!(
            r#"SELECT project_id AS "project_id!", tenant_id AS "tenant_id!", is_allowed AS "is_allowed!"
               FROM authenticate_container($1, $2, $3, $4)"#,
            host.0,
            claim.container.as_str(),
            number(claim.run),
            number(claim.restart)
        )
        .fetch_optional(self.pool())
        .await
        .map_err(store_error)?;
        let Some(row) = row else { return Ok(None) };
        if !row.is_allowed {
            return Err(docker_socket_is_off());
        }
        let (project, tenant) = (ProjectId(row.project_id), Some(TenantId(row.tenant_id)));
        let scope = ProjectScope { project, tenant, token: None };
        Ok(Some(Principal::Container(scope, claim.container.clone())))
    }
}

fn principal(token: Uuid, project: Option<Uuid>, tenant: Option<Uuid>) -> Principal {
    match project {
        Some(project) => Principal::Project(ProjectScope {
            project: ProjectId(project),
            tenant: tenant.map(TenantId),
            token: Some(TokenId(token)),
        }),
        None => Principal::Operator(OperatorScope { token: TokenId(token) }),
    }
}
