//! What a project's containers may have beyond what all may: off until somebody switches it on.

use model::{Error, ProjectId, Result};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::{OperatorTx, Project, ProjectTx, projects, store_error};

/// A project's policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ProjectPolicy {
    /// Containers may mount `/var/run/docker.sock`, and by it have the project's own Docker API.
    pub docker_socket: bool,
    /// OCI runtimes that containers may name; `runc` is among them, and the one of those that name none.
    pub runtimes: Vec<String>,
}

/// What of a policy shall change; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyChange {
    /// Containers may mount `/var/run/docker.sock`. Off means now: sockets that are mounted answer nothing more.
    pub docker_socket: Option<bool>,
    /// OCI runtimes that containers may name, of `runc`, `crun`, `youki`, `runsc`; `runc` always. For operators.
    pub runtimes: Option<Vec<String>>,
    /// Bytes the project may keep in its repositories; `null`: as many as there is room for. For operators.
    /// What is there already stays, even if it is more.
    #[serde(deserialize_with = "said")]
    #[schema(value_type = Option<i64>, minimum = 0)]
    pub registry_bytes_max: Option<Option<i64>>,
}

/// Tells `null` from what is absent.
fn said<'de, D: Deserializer<'de>>(value: D) -> std::result::Result<Option<Option<i64>>, D::Error> {
    Option::deserialize(value).map(Some)
}

impl Default for ProjectPolicy {
    fn default() -> Self {
        Self { docker_socket: false, runtimes: vec!["runc".into()] }
    }
}

/// Why a container has no socket.
#[must_use]
pub fn docker_socket_is_off() -> Error {
    Error::Forbidden(
        "/var/run/docker.sock is not available in this project: its policy does not allow it. Allow it with PATCH \
         /api/v1/project {\"docker_socket\": true} and a token of the project, or ask your operator"
            .into(),
    )
}

impl ProjectTx {
    /// What the project's containers may have.
    ///
    /// # Errors
    /// `NotFound` if it is being deleted just now.
    pub async fn policy(&mut self) -> Result<ProjectPolicy> {
        Ok(self.own_project().await?.policy)
    }

    /// Changes it.
    ///
    /// # Errors
    /// `NotFound` if the project is being deleted just now.
    pub async fn change_policy(&mut self, change: &PolicyChange) -> Result<Project> {
        let id = self.project();
        update(self.connection(), id, change).await
    }
}

impl OperatorTx {
    /// Changes a project's policy.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn change_policy(&mut self, project: ProjectId, change: &PolicyChange) -> Result<Project> {
        update(self.connection(), project, change).await
    }
}

async fn update(connection: &mut sqlx::PgConnection, id: ProjectId, change: &PolicyChange) -> Result<Project> {
    sqlx::query!(
        "UPDATE projects SET docker_socket = coalesce($2, docker_socket), runtimes = coalesce($3, runtimes),
             registry_bytes_max = CASE WHEN $4 THEN $5 ELSE registry_bytes_max END WHERE id = $1",
        id.0,
        change.docker_socket,
        change.runtimes.as_deref(),
        change.registry_bytes_max.is_some(),
        change.registry_bytes_max.flatten()
    )
    .execute(&mut *connection)
    .await
    .map_err(|error| match error.as_database_error().and_then(|database| database.constraint()) {
        Some("projects_runtimes_check") => {
            Error::invalid("runtimes", "are `runc`, and of `crun`, `youki`, `runsc` those that may be named")
        }
        Some("projects_registry_bytes_max_check") => Error::invalid("registry_bytes_max", "is not below 0"),
        Some(_) | None => store_error(error),
    })?;
    projects::read(connection, id).await
}
