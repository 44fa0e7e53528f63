//! What a registry has under a name, without bringing it: the descriptor and the platforms.

use contract::image::{DistributionReply, DistributionRequest, OciDescriptor, OciPlatform};
use model::{Error, ImageReference, Result};

use crate::{
    pull::{Puller, Source},
    upstream::{Document, Platform, UpstreamError},
};

/// Asks where a pull would ask, in the same order and with the same rights.
///
/// # Errors
/// In the registry's words: 401, 403 and 404 are its own.
pub(crate) async fn inspect(puller: &Puller, request: &DistributionRequest) -> Result<DistributionReply> {
    let _permit = puller.asking()?;
    let reference: ImageReference = request.reference.parse()?;
    let mut worst = UpstreamError::Unreachable(format!("no upstream is configured for {}", reference.registry));
    let sources = puller.sources(&reference, request.project, request.auth.as_ref()).await;
    let sources = sources.map_err(|error| {
        // Of the hosted registry, which says this of what the caller may not know.
        let unknown = || Error::NotFound("name unknown: repository name not known to registry".into());
        if error == UpstreamError::Denied { unknown() } else { told(error) }
    })?;
    for source in &sources {
        match at(source, &reference).await {
            Ok(reply) => return Ok(reply),
            Err(error) if error.tells_more_than(&worst) || matches!(worst, UpstreamError::Unreachable(_)) => {
                worst = error;
            }
            Err(_) => {}
        }
    }
    Err(told(worst))
}

async fn at(source: &Source, reference: &ImageReference) -> std::result::Result<DistributionReply, UpstreamError> {
    let fetched = source.manifest(&source_name(reference)).await?;
    let platforms = match Document::parse(&fetched)? {
        Document::Index(entries) => entries.into_iter().filter_map(|entry| entry.platform).collect(),
        Document::Manifest(image) => {
            let config = source.document(&image.config.digest, image.config.size).await?;
            // Of an image that says nothing about its platform nothing is said.
            serde_json::from_slice::<Platform>(&config).ok().into_iter().collect::<Vec<_>>()
        }
    };
    let known = platforms.into_iter().filter(|p| !p.os.is_empty() || !p.architecture.is_empty());
    let platform = |p: Platform| OciPlatform { architecture: p.architecture, os: p.os, variant: p.variant };
    Ok(DistributionReply {
        descriptor: OciDescriptor {
            media_type: fetched.media_type,
            digest: fetched.digest,
            size: fetched.body.len() as u64,
        },
        platforms: known.map(platform).collect(),
    })
}

fn source_name(reference: &ImageReference) -> String {
    match (&reference.digest, &reference.tag) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.clone().unwrap_or_else(|| "latest".to_owned()),
    }
}

fn told(error: UpstreamError) -> Error {
    match error {
        UpstreamError::ManifestUnknown => Error::NotFound("manifest unknown: manifest unknown".into()),
        UpstreamError::Denied => Error::Forbidden("denied: requested access to the resource is denied".into()),
        UpstreamError::Unauthorized(text) => Error::Unauthenticated(format!("unauthorized: {text}")),
        UpstreamError::Unreachable(_)
        | UpstreamError::Refused(_)
        | UpstreamError::RateLimited(_)
        | UpstreamError::NoPlatform(_)
        | UpstreamError::Invalid(_) => error.of_registry(),
    }
}
