//! From a reference to one platform's manifest, at the first upstream that has it.

use model::{DEFAULT_REGISTRY, Digest, ImageReference};

use super::source::Source;
use crate::{
    limits::INDEX_DEPTH_MAX,
    upstream::{Document, Fetched, ImageManifest, Platform, Repository, UpstreamError, select},
};

/// What a reference means.
pub(super) struct Resolved {
    /// Digest of what the tag names: an index or the manifest itself.
    pub(super) named_by: Digest,
    /// The platform's manifest as it was sent.
    pub(super) manifest: Fetched,
    /// The same, read.
    pub(super) image: ImageManifest,
}

/// Asks the upstreams in order. If none has it, the answer is the one that tells most.
pub(super) async fn resolve(
    sources: Vec<Source>,
    reference: &ImageReference,
    wanted: &Platform,
) -> Result<(Source, Resolved), UpstreamError> {
    let mut worst = UpstreamError::Unreachable(format!("no upstream is configured for {}", reference.registry));
    for source in sources {
        match resolve_at(&source, reference, wanted).await {
            Ok(resolved) => return Ok((source, resolved)),
            Err(error) => {
                tracing::debug!(%error, %reference, "not resolved here");
                let error = match &source {
                    Source::Upstream(repository) => as_hub_words_it(error, repository, reference).await,
                    Source::Hosted(_) => error,
                };
                if error.tells_more_than(&worst) || matches!(worst, UpstreamError::Unreachable(_)) {
                    worst = error;
                }
            }
        }
    }
    Err(worst)
}

async fn resolve_at(source: &Source, reference: &ImageReference, wanted: &Platform) -> Result<Resolved, UpstreamError> {
    let name = match (&reference.digest, &reference.tag) {
        (Some(digest), _) => digest.to_string(),
        (None, Some(tag)) => tag.clone(),
        (None, None) => "latest".to_owned(),
    };
    let mut fetched = source.manifest(&name).await?;
    let named_by = fetched.digest.clone();
    for _ in 0..=INDEX_DEPTH_MAX {
        match Document::parse(&fetched)? {
            Document::Manifest(image) => return Ok(Resolved { named_by, manifest: fetched, image }),
            Document::Index(entries) => {
                let entry = select(&entries, wanted)?;
                fetched = source.manifest(entry.digest.as_str()).await?;
                if fetched.body.len() as u64 != entry.size {
                    return Err(UpstreamError::Invalid(format!(
                        "manifest {} has {} bytes where the index says {}",
                        entry.digest,
                        fetched.body.len(),
                        entry.size
                    )));
                }
            }
        }
    }
    Err(UpstreamError::Invalid(format!("the index is nested more than {INDEX_DEPTH_MAX} deep")))
}

/// Docker Hub denies access to repositories that do not exist; a plain registry that mirrors it does
/// not know the difference to an absent tag unless asked for the tags.
async fn as_hub_words_it(error: UpstreamError, repository: &Repository, reference: &ImageReference) -> UpstreamError {
    let unknown = error == UpstreamError::ManifestUnknown && reference.registry == DEFAULT_REGISTRY;
    if unknown && !repository.exists().await { UpstreamError::Denied } else { error }
}
