//! Where a pull takes an image from: an upstream over HTTP, or the hosted registry, which is this very
//! service: its content is here, and the caller's project may read it or it is not there.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt as _;
use model::{Digest, ImageReference, ManifestReference, ProjectId, RepositoryId, RepositoryName};
use store::{ProjectScope, Store};

use crate::{
    blob_store::BlobStore,
    limits::TAGS_MAX,
    upstream::{Descriptor, Fetched, Repository, UpstreamError},
};

/// See above.
#[derive(Clone)]
pub(crate) enum Source {
    Upstream(Arc<Repository>),
    Hosted(Hosted),
}

/// A repository of the hosted registry that the caller may read.
#[derive(Clone)]
pub(crate) struct Hosted {
    store: Store,
    blobs: BlobStore,
    /// The project it belongs to: the caller's own, or another's that lets anybody pull.
    scope: ProjectScope,
    repository: RepositoryId,
}

/// The names clients know the hosted registry by.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostedNames(Arc<Vec<String>>);

impl HostedNames {
    pub(crate) fn new(names: &[String]) -> Self {
        Self(Arc::new(names.iter().map(|name| name.to_ascii_lowercase()).collect()))
    }

    /// Whether a reference means the hosted registry.
    pub(crate) fn has(&self, reference: &ImageReference) -> bool {
        self.0.contains(&reference.registry.to_ascii_lowercase())
    }

    /// The one it is shown by.
    pub(crate) fn first(&self) -> Option<&str> {
        self.0.first().map(String::as_str)
    }

    /// Whether it is one of these.
    pub(crate) fn is(&self, registry: &str) -> bool {
        self.0.iter().any(|name| name == registry)
    }
}

impl Source {
    pub(crate) async fn manifest(&self, tag_or_digest: &str) -> Result<Fetched, UpstreamError> {
        match self {
            Self::Upstream(repository) => repository.manifest(tag_or_digest).await,
            Self::Hosted(hosted) => hosted.manifest(tag_or_digest).await,
        }
    }

    /// Every tag of the repository.
    pub(super) async fn tags(&self) -> Result<Vec<String>, UpstreamError> {
        match self {
            Self::Upstream(repository) => repository.tags().await,
            Self::Hosted(hosted) => hosted.tags().await,
        }
    }

    /// A small blob, whole and verified.
    pub(crate) async fn document(&self, digest: &Digest, size_bytes: u64) -> Result<Bytes, UpstreamError> {
        match self {
            Self::Upstream(repository) => repository.document(digest, size_bytes).await,
            Self::Hosted(hosted) => hosted.document(digest, size_bytes).await,
        }
    }
}

impl Hosted {
    /// The repository a reference names, if `asking` may read it.
    pub(super) async fn find(
        store: &Store,
        blobs: &BlobStore,
        reference: &ImageReference,
        asking: ProjectId,
    ) -> Result<Self, UpstreamError> {
        let name: RepositoryName = reference.repository.parse().map_err(|_| UpstreamError::Denied)?;
        let found = store.registry_repository(&name, Some(asking)).await.map_err(away)?.ok_or(UpstreamError::Denied)?;
        let repository = found.repository.ok_or(UpstreamError::Denied)?;
        let scope = ProjectScope::delegated(found.project);
        Ok(Self { store: store.clone(), blobs: blobs.clone(), scope, repository })
    }

    async fn manifest(&self, tag_or_digest: &str) -> Result<Fetched, UpstreamError> {
        let reference: ManifestReference = tag_or_digest.parse().map_err(|_| UpstreamError::ManifestUnknown)?;
        let mut tx = self.store.project_tx(&self.scope).await.map_err(away)?;
        let found = tx.manifest(self.repository, &reference, true).await.map_err(away)?;
        let found = found.ok_or(UpstreamError::ManifestUnknown)?;
        Ok(Fetched { media_type: found.media_type, body: found.content.into(), digest: found.digest })
    }

    async fn tags(&self) -> Result<Vec<String>, UpstreamError> {
        let mut tx = self.store.project_tx(&self.scope).await.map_err(away)?;
        tx.repository_tags(self.repository, "", TAGS_MAX as i64 + 1).await.map_err(away)
    }

    async fn document(&self, digest: &Digest, size_bytes: u64) -> Result<Bytes, UpstreamError> {
        self.check(digest, size_bytes).await?;
        let body = self.blobs.read(digest, None).await.map_err(away)?;
        let chunks: Vec<Bytes> =
            body.stream.try_collect().await.map_err(|e| UpstreamError::Unreachable(format!("{digest}: {e}")))?;
        Ok(chunks.concat().into())
    }

    /// Whether a layer is linked, and whole.
    pub(super) async fn has(&self, layer: &Descriptor) -> Result<(), UpstreamError> {
        self.check(&layer.digest, layer.size).await
    }

    async fn check(&self, digest: &Digest, size_bytes: u64) -> Result<(), UpstreamError> {
        let mut tx = self.store.project_tx(&self.scope).await.map_err(away)?;
        let linked = tx.linked_blob(self.repository, digest).await.map_err(away)?;
        if linked != Some(size_bytes) || self.blobs.size(digest).await.map_err(away)? != Some(size_bytes) {
            return Err(UpstreamError::Invalid(format!("blob {digest} is not in the repository: unknown blob")));
        }
        Ok(())
    }
}

fn away(error: model::Error) -> UpstreamError {
    chassis::error::log_once(&error);
    UpstreamError::Unreachable(error.public_message())
}
