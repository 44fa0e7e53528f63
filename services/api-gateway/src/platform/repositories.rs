//! A project's repositories: listed with their size, opened to the public, removed. For the project's
//! own credentials; what is in them is the registry's.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use chassis::Problems;
use model::{Error, RepositoryId, Result};
use serde::{Deserialize, Serialize};
use store::{Principal, ProjectScope, Repository};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Answer,
    input::{Body, List, Position, id},
};
use crate::{Gateway, auth::Caller};

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

fn scope(caller: &Principal) -> Result<ProjectScope> {
    match caller {
        Principal::Project(scope) => Ok(*scope),
        Principal::Operator(_) => Err(Error::Forbidden("an operator's credential opens no project".into())),
        Principal::Container(..) => Err(Error::Forbidden("a container opens the Docker API and nothing else".into())),
    }
}

/// List the project's repositories by name
#[utoipa::path(get, path = "/api/v1/project/repositories", operation_id = "RepositoryList", tag = "Repository",
    params(Position), responses((status = 200, description = "Repositories", body = List<NamedRepository>), Problems))]
async fn list(
    State(gateway): State<Gateway>,
    Caller(caller): Caller,
    position: Position,
) -> Answer<Json<List<NamedRepository>>> {
    let scope = scope(&caller)?;
    let page = position.page()?;
    let prefix = gateway.store.registry_namespace(scope.project()).await?.unwrap_or_default();
    let mut tx = gateway.store.project_tx(&scope).await?;
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
    State(gateway): State<Gateway>,
    Caller(caller): Caller,
    Path(repository): Path<String>,
    Body(change): Body<RepositoryChange>,
) -> Answer<Json<Repository>> {
    let scope = scope(&caller)?;
    let repository: RepositoryId = id(&repository)?;
    let mut tx = gateway.store.project_tx(&scope).await?;
    tx.set_repository_public(repository, change.public).await?;
    let now = tx.repository(repository).await?;
    tx.commit().await?;
    tracing::info!(%repository, public = change.public, project = %scope.project(), "repository changed");
    Ok(Json(now))
}

/// Remove a repository with its tags and manifests
#[utoipa::path(delete, path = "/api/v1/project/repositories/{repository}", operation_id = "RepositoryDelete", tag = "Repository",
    params(("repository" = RepositoryId, Path, description = "Its id")),
    responses((status = 204, description = "Removed"), Problems))]
async fn delete(
    State(gateway): State<Gateway>,
    Caller(caller): Caller,
    Path(repository): Path<String>,
) -> Answer<StatusCode> {
    let scope = scope(&caller)?;
    let repository: RepositoryId = id(&repository)?;
    let mut tx = gateway.store.project_tx(&scope).await?;
    tx.delete_repository(repository).await?;
    tx.commit().await?;
    tracing::info!(%repository, project = %scope.project(), "repository removed");
    Ok(StatusCode::NO_CONTENT)
}
