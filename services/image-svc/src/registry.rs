//! The hosted registry: what is pushed here, kept in the same store as what is pulled. The gateway has
//! decided who may do what; what exists is decided here, by Postgres, in one project at a time.

pub(crate) mod collection;
pub(crate) mod document;
pub(crate) mod session;
pub(crate) mod upload;
mod writer;

use std::{sync::Arc, time::Duration};

use contract::registry::{Code, Refusal};
use model::{Digest, Error, RepositoryId};
use store::{NewManifest, ProjectScope, Store};

use crate::blob_store::{BlobStore, Kept};
use session::Sessions;

/// The registry. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Registry {
    pub(crate) store: Store,
    pub(crate) blobs: BlobStore,
    sessions: Arc<Sessions>,
    /// How long a link stays that no manifest needs.
    link_kept: Duration,
}

/// Why the registry says no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// In the spec's words.
    Refused(Refusal),
    /// The part of an upload does not begin where the upload ends.
    OutOfOrder {
        /// Where it ends.
        offset: u64,
    },
    /// Anything else.
    Broken(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What registry operations return.
pub(crate) type Outcome<T> = Result<T, Failure>;

/// A no in the spec's words.
pub(crate) fn refused<T>(code: Code, message: impl Into<String>) -> Outcome<T> {
    Err(Refusal::new(code, message).into())
}

impl Registry {
    pub(crate) fn new(store: Store, blobs: BlobStore, link_kept: Duration) -> Self {
        Self { store, blobs, sessions: Arc::default(), link_kept }
    }

    /// A blob of a repository, for somebody who will count on it: how long it is, and the promise that
    /// its file does not go before the answer is dropped.
    pub(crate) async fn find_blob(
        &self,
        scope: &ProjectScope,
        repository: RepositoryId,
        digest: &Digest,
    ) -> Outcome<Option<(u64, Kept)>> {
        let kept = self.blobs.keep(vec![digest.clone()]).await;
        let mut tx = self.store.project_tx(scope).await?;
        let Some((size, renewed)) = tx.renewed_link(repository, digest, self.link_kept).await? else { return Ok(None) };
        if renewed {
            tx.commit().await?;
        }
        Ok(Some((size, kept)))
    }

    /// Links a blob that the caller may read elsewhere. `None`: there is no such blob there.
    pub(crate) async fn mount(
        &self,
        target: (&ProjectScope, RepositoryId),
        source: &Source,
        digest: &Digest,
    ) -> Outcome<Option<u64>> {
        let found = {
            let (scope, repository) = match source {
                Source::Repository(scope, repository) => (scope, Some(*repository)),
                Source::Project => (target.0, None),
            };
            let mut tx = self.store.project_tx(scope).await?;
            match repository {
                Some(repository) => tx.linked_blob(repository, digest).await?,
                None => tx.blob_linked_in_project(digest).await?,
            }
        };
        let Some(size) = found else { return Ok(None) };
        // Between the look and the link the source may have let go of it, and its bytes with it.
        let _kept = self.blobs.keep(vec![digest.clone()]).await;
        let mut tx = self.store.project_tx(target.0).await?;
        if tx.linked_blob(target.1, digest).await?.is_none() {
            tx.claim_registry_bytes(size).await?;
        }
        if self.blobs.size(digest).await? != Some(size) {
            return Ok(None);
        }
        tx.link_blob(target.1, digest, size).await?;
        tx.commit().await?;
        Ok(Some(size))
    }

    /// Keeps a manifest whose parts are all there.
    pub(crate) async fn put_manifest(
        &self,
        scope: &ProjectScope,
        repository: RepositoryId,
        digest: &Digest,
        content: &[u8],
        document: &document::Checked,
        tag: Option<&str>,
    ) -> Outcome<()> {
        let mut tx = self.store.project_tx(scope).await?;
        let blobs: Vec<Digest> = document.blobs.iter().map(|(digest, _)| digest.clone()).collect();
        let linked = tx.linked_blobs(repository, &blobs).await?;
        for (blob, size) in &document.blobs {
            match linked.get(blob) {
                Some(found) if found == size => {}
                Some(found) => {
                    return refused(
                        Code::ManifestInvalid,
                        format!("blob {blob} has {found} bytes where its descriptor says {size}"),
                    );
                }
                None => return refused(Code::ManifestBlobUnknown, format!("blob unknown to registry: {blob}")),
            }
        }
        let held = tx.manifests_held(repository, &document.manifests).await?;
        if let Some(missing) = document.manifests.iter().find(|child| !held.contains(child)) {
            return refused(Code::ManifestBlobUnknown, format!("manifest unknown to registry: {missing}"));
        }
        let new = NewManifest {
            digest,
            media_type: &document.media_type,
            content,
            subject: document.subject.as_ref(),
            artifact_type: document.artifact_type.as_deref(),
            annotations: document.annotations.as_ref(),
            blobs: &blobs,
        };
        match tx.put_manifest(repository, &new, tag).await {
            Ok(()) => Ok(tx.commit().await?),
            Err(Error::Conflict(text)) => refused(Code::ManifestBlobUnknown, text),
            Err(other) => Err(other.into()),
        }
    }
}

/// Where a blob is mounted from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A repository that the caller may read.
    Repository(ProjectScope, RepositoryId),
    /// Any repository of the project that is pushed to.
    Project,
}
