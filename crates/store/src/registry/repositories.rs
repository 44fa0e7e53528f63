//! Repositories of a project: found, made by the first push, shown, opened to the public, removed.

use model::{Error, RepositoryId, Result};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{Page, ProjectTx, store_error};

/// Repositories a project may have.
const REPOSITORIES_PER_PROJECT: i64 = 10_000;

/// A repository of the hosted registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Repository {
    /// Id.
    #[schema(value_type = RepositoryId)]
    pub id: Uuid,
    /// What follows `tenant/project/` in its name.
    pub name: String,
    /// Whether anybody may pull.
    pub public: bool,
    /// Its tags.
    pub tags: i64,
    /// Its manifests.
    pub manifests: i64,
    /// Bytes of the blobs it links, each counted once.
    pub size_bytes: i64,
    /// When something was first pushed.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

impl ProjectTx {
    /// The repository of this name in this project.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn repository_named(&mut self, name: &str) -> Result<Option<RepositoryId>> {
        let id = sqlx::query_scalar!(
            "SELECT id FROM repositories WHERE project_id = $1 AND name = $2",
            self.project.0,
            name
        )
        .fetch_optional(self.connection())
        .await
        .map_err(store_error)?;
        Ok(id.map(RepositoryId))
    }

    /// The same, made under `fresh` if it is not there.
    ///
    /// # Errors
    /// `LimitExceeded` for one too many.
    pub async fn repository_for_push(&mut self, name: &str, fresh: RepositoryId) -> Result<RepositoryId> {
        if let Some(found) = self.repository_named(name).await? {
            return Ok(found);
        }
        let project = self.project.0;
        let id = sqlx::query_scalar!(
            "INSERT INTO repositories (id, project_id, name) SELECT $1, $2, $3
             WHERE (SELECT count(*) FROM repositories WHERE project_id = $2) < $4
             ON CONFLICT (project_id, name) DO NOTHING RETURNING id",
            fresh.0,
            project,
            name,
            REPOSITORIES_PER_PROJECT
        )
        .fetch_optional(self.connection())
        .await
        .map_err(store_error)?;
        // None: another push made it just now, or it is one too many.
        let id = match id {
            Some(id) => Some(RepositoryId(id)),
            None => self.repository_named(name).await?,
        };
        id.ok_or_else(|| {
            Error::LimitExceeded(format!(
                "the project has {REPOSITORIES_PER_PROJECT} repositories, the most it may have"
            ))
        })
    }

    /// Names of the repositories that hold something, in order.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn repository_names(&mut self, page: &Page<'_>) -> Result<Vec<String>> {
        sqlx::query_scalar!(
            "SELECT name FROM repositories r WHERE project_id = $1 AND name > $2
             AND EXISTS (SELECT FROM repository_manifests m WHERE m.repository_id = r.id) ORDER BY name LIMIT $3",
            self.project.0,
            page.after,
            page.limit
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)
    }

    /// The project's repositories by name.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn repositories(&mut self, page: &Page<'_>) -> Result<Vec<Repository>> {
        self.read_repositories(None, page).await
    }

    /// One repository.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn repository(&mut self, id: RepositoryId) -> Result<Repository> {
        let found = self.read_repositories(Some(id), &Page { after: "", limit: 1 }).await?.pop();
        found.ok_or_else(|| no_such_repository(id))
    }

    async fn read_repositories(&mut self, id: Option<RepositoryId>, page: &Page<'_>) -> Result<Vec<Repository>> {
        sqlx::query_as!(
            Repository,
            r#"SELECT id, name, public, created_at,
                      (SELECT count(*) FROM repository_tags t WHERE t.repository_id = r.id) AS "tags!",
                      (SELECT count(*) FROM repository_manifests m WHERE m.repository_id = r.id) AS "manifests!",
                      (SELECT coalesce(sum(size_bytes), 0)::bigint FROM repository_blobs b
                       WHERE b.repository_id = r.id) AS "size_bytes!"
               FROM repositories r
               WHERE project_id = $1 AND ($2::uuid IS NULL OR id = $2) AND name > $3 ORDER BY name LIMIT $4"#,
            self.project.0,
            id.map(|id| id.0) as Option<Uuid>,
            page.after,
            page.limit
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)
    }

    /// Lets anybody pull, or the project alone.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn set_repository_public(&mut self, id: RepositoryId, public: bool) -> Result<()> {
        let found = sqlx::query!(
            "UPDATE repositories SET public = $3 WHERE project_id = $1 AND id = $2",
            self.project.0,
            id.0,
            public
        )
        .execute(self.connection())
        .await
        .map_err(store_error)?
        .rows_affected();
        if found == 0 { Err(no_such_repository(id)) } else { Ok(()) }
    }

    /// Removes a repository with everything in it.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_repository(&mut self, id: RepositoryId) -> Result<()> {
        let gone = sqlx::query!("DELETE FROM repositories WHERE project_id = $1 AND id = $2", self.project.0, id.0)
            .execute(self.connection())
            .await
            .map_err(store_error)?
            .rows_affected();
        if gone == 0 { Err(no_such_repository(id)) } else { Ok(()) }
    }
}

fn no_such_repository(id: RepositoryId) -> Error {
    Error::NotFound(format!("no such repository: {id}"))
}
