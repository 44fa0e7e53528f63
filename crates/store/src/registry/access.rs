//! Whose a repository's name is, before any project is known. What the asker may not know is not there.

use model::{ProjectId, RepositoryId, RepositoryName, Result};

use crate::{Store, store_error};

/// What an asker may know of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepositoryAccess {
    /// The project it belongs to.
    pub project: ProjectId,
    /// The repository; none if nothing was pushed there yet (the asker's own project only).
    pub repository: Option<RepositoryId>,
    /// It is the asker's own project's. Otherwise it is public, to be read only.
    pub owned: bool,
}

impl Store {
    /// What `asking` may know of a name; `None` for what is another project's and for what never was.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn registry_repository(
        &self,
        name: &RepositoryName,
        asking: Option<ProjectId>,
    ) -> Result<Option<RepositoryAccess>> {
        let row = sqlx::query!(
            r#"SELECT project_id AS "project_id!", repository_id, owned AS "owned!"
               FROM registry_repository($1, $2, $3, $4)"#,
            name.tenant.as_str(),
            name.project.as_str(),
            name.path,
            asking.map(|project| project.0)
        )
        .fetch_optional(self.pool())
        .await
        .map_err(store_error)?;
        Ok(row.map(|row| RepositoryAccess {
            project: ProjectId(row.project_id),
            repository: row.repository_id.map(RepositoryId),
            owned: row.owned,
        }))
    }

    /// `tenant/project`: how the names of a project's repositories begin.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn registry_namespace(&self, project: ProjectId) -> Result<Option<String>> {
        sqlx::query_scalar!("SELECT registry_namespace($1)", project.0)
            .fetch_one(self.pool())
            .await
            .map_err(store_error)
    }
}
