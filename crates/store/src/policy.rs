//! What a project's containers may have beyond what all may: off until somebody switches it on.

use model::{Error, ProjectId, Result};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{OperatorTx, Project, ProjectTx, on_constraint, projects};

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
        "UPDATE projects SET docker_socket = coalesce($2, docker_socket), runtimes = coalesce($3, runtimes) WHERE id = $1",
        id.0,
        change.docker_socket,
        change.runtimes.as_deref()
    )
    .execute(&mut *connection)
    .await
    .map_err(on_constraint("projects_runtimes_check", || {
        Error::invalid("runtimes", "are `runc`, and of `crun`, `youki`, `runsc` those that may be named")
    }))?;
    projects::read(connection, id).await
}
