//! A project's repositories: listed with their size, opened to the public, removed. For the project's
//! own credentials; what is in them is the registry's.

use axum::{Json, http::StatusCode};
use chassis::Problems;
use model::RepositoryId;
use serde::{Deserialize, Serialize};
use store::Repository;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Answer,
    caller::{Id, OwnCall},
    input::{Body, List, Position},
};
use crate::Gateway;

pub(crate) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(change, delete))
}

/// A repository as the registry's clients name it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NamedRepository {
    /// `tenant/project/name`
    full_name: String,
    #[serde(flatten)]
    repository: Repository,
}

/// List the project's repositories by name
#[utoipa::path(get, path = "/api/v1/project/repositories", operation_id = "RepositoryList", tag = "Repository",
    params(Position), responses((status = 200, description = "Repositories", body = List<NamedRepository>), Problems))]
async fn list(call: OwnCall, position: Position) -> Answer<Json<List<NamedRepository>>> {
    let page = position.page()?;
    let prefix = call.gateway.store.registry_namespace(call.scope.project()).await?.unwrap_or_default();
    let mut tx = call.tx().await?;
    let found = tx.repositories(&page).await?;
    let named =
        |repository: Repository| NamedRepository { full_name: format!("{prefix}/{}", repository.name), repository };
    let items = found.into_iter().map(named).collect();
    Ok(Json(List::sliced(items, page.limit, |item: &NamedRepository| item.repository.name.clone())))
}

/// What shall change of a repository.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RepositoryChange {
    /// Whether anybody may pull.
    public: bool,
}

/// Let anybody pull from a repository, or the project alone
#[utoipa::path(patch, path = "/api/v1/project/repositories/{repository}", operation_id = "RepositoryChange", tag = "Repository",
    params(("repository" = RepositoryId, Path, description = "Its id")),
    request_body = RepositoryChange, responses((status = 200, description = "The repository now", body = Repository), Problems))]
async fn change(
    call: OwnCall,
    Id(repository): Id<RepositoryId>,
    Body(change): Body<RepositoryChange>,
) -> Answer<Json<Repository>> {
    let mut tx = call.tx().await?;
    tx.set_repository_public(repository, change.public).await?;
    let now = tx.repository(repository).await?;
    tx.commit().await?;
    tracing::info!(%repository, public = change.public, project = %call.scope.project(), "repository changed");
    Ok(Json(now))
}

/// Remove a repository with its tags and manifests
#[utoipa::path(delete, path = "/api/v1/project/repositories/{repository}", operation_id = "RepositoryDelete", tag = "Repository",
    params(("repository" = RepositoryId, Path, description = "Its id")),
    responses((status = 204, description = "Removed"), Problems))]
async fn delete(call: OwnCall, Id(repository): Id<RepositoryId>) -> Answer<StatusCode> {
    let mut tx = call.tx().await?;
    tx.delete_repository(repository).await?;
    tx.commit().await?;
    tracing::info!(%repository, project = %call.scope.project(), "repository removed");
    Ok(StatusCode::NO_CONTENT)
}
