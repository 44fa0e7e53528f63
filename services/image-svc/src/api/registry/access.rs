//! What every call of the registry begins with: that it is the gateway's, in which project, and on what.
//! Extractors run in the order in which a handler names them, so access comes first.

use std::str::FromStr;

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::request::Parts,
};
use chassis::Caller;
use contract::registry::{Code, Refusal, RegistryQuery};
use model::{Digest, RepositoryId, UploadId};
use store::ProjectScope;

use super::Refused;
use crate::{api::AppState, registry::upload::Upload};

/// A project, and what is asked of it.
pub(crate) struct InProject {
    pub(super) scope: ProjectScope,
    pub(super) query: RegistryQuery,
}

/// A repository that is there.
pub(crate) struct InRepository {
    pub(super) scope: ProjectScope,
    pub(super) repository: RepositoryId,
    pub(super) query: RegistryQuery,
}

/// A repository that is pushed to: made, if this is the first push.
pub(crate) struct Push {
    pub(super) scope: ProjectScope,
    pub(super) repository: RepositoryId,
    pub(super) query: RegistryQuery,
}

/// An upload to a repository; whether there is one is seen when it is used.
pub(crate) struct ToUpload {
    pub(super) upload: Upload,
    pub(super) query: RegistryQuery,
}

/// A digest in the path.
pub(crate) struct PathDigest(pub(super) Digest);

impl FromRequestParts<AppState> for InProject {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Refused> {
        let Ok(caller) = Caller::from_request_parts(parts, state).await;
        caller.require("service:gateway")?;
        let query = Query::<RegistryQuery>::from_request_parts(parts, state).await;
        let Query(query) = query.map_err(|no| Refusal::new(Code::Unsupported, no.body_text()))?;
        let project = query.project.ok_or_else(Refusal::name_unknown)?;
        Ok(Self { scope: ProjectScope::delegated(project), query })
    }
}

impl FromRequestParts<AppState> for InRepository {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Refused> {
        let InProject { scope, query } = InProject::from_request_parts(parts, state).await?;
        Ok(Self { scope, repository: query.repository.ok_or_else(Refusal::name_unknown)?, query })
    }
}

impl FromRequestParts<AppState> for Push {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Refused> {
        let InProject { scope, query } = InProject::from_request_parts(parts, state).await?;
        if let Some(repository) = query.repository {
            return Ok(Self { scope, repository, query });
        }
        let mut tx = state.store.project_tx(&scope).await?;
        let repository = tx.repository_for_push(&query.path, RepositoryId(chassis::ids::uuid_v7())).await?;
        tx.commit().await?;
        Ok(Self { scope, repository, query })
    }
}

impl FromRequestParts<AppState> for ToUpload {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Refused> {
        let InRepository { scope, repository, query } = InRepository::from_request_parts(parts, state).await?;
        // What can be no id names no upload.
        let unknown = || Refusal::new(Code::BlobUploadUnknown, "blob upload unknown to registry");
        let id: UploadId = in_path(parts, state).await.ok_or_else(unknown)?;
        Ok(Self { upload: Upload { scope, repository, id }, query })
    }
}

impl FromRequestParts<AppState> for PathDigest {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Refused> {
        let digest = in_path(parts, state).await;
        Ok(Self(digest.ok_or_else(|| Refusal::new(Code::DigestInvalid, "invalid digest"))?))
    }
}

async fn in_path<T: FromStr>(parts: &mut Parts, state: &AppState) -> Option<T> {
    let Ok(Path(written)) = Path::<String>::from_request_parts(parts, state).await else { return None };
    written.parse().ok()
}
