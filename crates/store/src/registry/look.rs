//! All that a request for something in a repository has to know, in one question to Postgres.

use model::{Digest, ManifestReference, ProjectId, RepositoryId, RepositoryName, Result, TenantId, TokenId};

use super::RepositoryAccess;
use crate::{
    ProjectScope, Store, store_error,
    stored::{number, parsed},
};

/// What is looked for in a repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LookedFor {
    /// Nothing: who asks, and what of the name they may know.
    Access,
    /// A manifest.
    Manifest(ManifestReference),
    /// A blob that the repository links.
    Blob(Digest),
}

/// What a look found.
#[derive(Clone, Debug)]
pub struct Look {
    /// The asker's project; none for somebody unknown.
    pub scope: Option<ProjectScope>,
    /// What the asker may know of the name; `None` for what is another project's and for what never was.
    pub access: Option<RepositoryAccess>,
    /// What was looked for, if it is there.
    pub found: Option<Found>,
}

/// Something in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its digest.
    pub digest: Digest,
    /// Of a manifest; empty of a blob.
    pub media_type: String,
    /// Its length.
    pub size_bytes: u64,
    /// A manifest, or a blob that one needs: it stays without being asked for.
    pub needed: bool,
}

impl Store {
    /// Looks into a repository on behalf of a credential that was checked before (see
    /// [`Store::authenticate_again`]), or of somebody unknown. `None`: the credential opens no project any
    /// more. One round trip, one snapshot.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn registry_look(
        &self,
        made_from: Option<TokenId>,
        name: &RepositoryName,
        wanted: &LookedFor,
    ) -> Result<Option<Look>> {
        let (kind, reference) = match wanted {
            LookedFor::Access => (None, None),
            LookedFor::Manifest(ManifestReference::Tag(tag)) => (Some("tag"), Some(tag.as_str())),
            LookedFor::Manifest(ManifestReference::Digest(digest)) => (Some("manifest"), Some(digest.as_str())),
            LookedFor::Blob(digest) => (Some("blob"), Some(digest.as_str())),
        };
        let row = sqlx::query!(
            "SELECT asker, asker_tenant, owner, repository, owned, digest, media_type, size_bytes, needed
             FROM registry_look($1, $2, $3, $4, $5, $6)",
            made_from.map(|token| token.0),
            name.tenant.as_str(),
            name.project.as_str(),
            name.path,
            kind,
            reference
        )
        .fetch_optional(self.pool())
        .await
        .map_err(store_error)?;
        let Some(row) = row else { return Ok(None) };
        let scope = row
            .asker
            .map(|project| ProjectScope::of_token(ProjectId(project), row.asker_tenant.map(TenantId), made_from));
        let access = row.owner.map(|owner| RepositoryAccess {
            project: ProjectId(owner),
            repository: row.repository.map(RepositoryId),
            owned: row.owned.unwrap_or_default(),
        });
        let found = match row.digest {
            Some(digest) => Some(Found {
                digest: parsed(&digest)?,
                media_type: row.media_type.unwrap_or_default(),
                size_bytes: number(row.size_bytes.unwrap_or_default())?,
                needed: row.needed.unwrap_or_default(),
            }),
            None => None,
        };
        Ok(Some(Look { scope, access, found }))
    }
}
