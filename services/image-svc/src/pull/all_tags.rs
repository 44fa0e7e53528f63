//! A pull of a whole repository: the upstream names its tags, and each is pulled as it would be alone.

use std::sync::Arc;

use contract::image::PullRequest;
use model::{Error, ImageReference, Result};
use tokio::sync::OwnedSemaphorePermit;

use super::{Progress, Puller, source::Source};
use crate::upstream::UpstreamError;

/// A repository whose tags are known.
pub(crate) struct AllTags {
    pub(super) puller: Puller,
    pub(super) request: PullRequest,
    pub(super) reference: ImageReference,
    pub(super) tags: Vec<String>,
    pub(super) permit: Arc<OwnedSemaphorePermit>,
}

/// The tags, at the first source that has the repository.
pub(super) async fn find(sources: Vec<Source>, reference: &ImageReference) -> Result<Vec<String>> {
    let mut worst = UpstreamError::Unreachable(format!("no upstream is configured for {}", reference.registry));
    for source in sources {
        match source.tags().await {
            Ok(tags) => return Ok(tags),
            Err(error) if error.tells_more_than(&worst) || matches!(worst, UpstreamError::Unreachable(_)) => {
                worst = error;
            }
            Err(_) => {}
        }
    }
    Err(worst.about(reference))
}

impl AllTags {
    /// Pulls one after the other; the first that fails ends it. What came before stays.
    pub(crate) async fn run(self, progress: &Progress) -> Result<()> {
        let mut newer = false;
        for tag in &self.tags {
            let reference = self.reference.with_tag(tag);
            // As it is written there: a name that is no tag is nobody's to pull.
            if reference.to_string().parse::<ImageReference>().as_ref() != Ok(&reference) {
                return Err(Error::Failed(format!("the registry has a tag that is none: {tag:?}")));
            }
            let pull = self.puller.resolve(&self.request, reference, self.permit.clone()).await?;
            newer |= pull.bring(progress).await?;
        }
        let outcome = if newer { "Downloaded newer image for" } else { "Image is up to date for" };
        progress.line(&format!("Status: {outcome} {}", self.reference.familiar_name()), None).await;
        Ok(())
    }
}
