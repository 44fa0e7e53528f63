//! What can go wrong with an upstream, and what the tenant is told of it: dockerd's words.

use model::{Error, ImageReference};

/// A failure at an upstream registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// No answer, or not in time; the text is the dial error.
    #[error("{0}")]
    Unreachable(String),
    /// The egress policy does not let the request out.
    #[error("{0}")]
    Refused(String),
    /// No such tag or digest.
    #[error("manifest unknown")]
    ManifestUnknown,
    /// No such repository, or not for these credentials.
    #[error("requested access to the resource is denied")]
    Denied,
    /// The credentials are wrong.
    #[error("unauthorized: {0}")]
    Unauthorized(String),
    /// The upstream's own rate limit.
    #[error("toomanyrequests: {0}")]
    RateLimited(String),
    /// The index has nothing for the platform; the text is dockerd's.
    #[error("{0}")]
    NoPlatform(String),
    /// It answered with something that cannot be taken.
    #[error("{0}")]
    Invalid(String),
}

impl UpstreamError {
    /// As an answer to somebody who named a registry and no image.
    pub(crate) fn of_registry(self) -> Error {
        match self {
            Self::Unreachable(text) => Error::Unavailable(text),
            Self::Refused(text) => Error::Forbidden(text),
            Self::RateLimited(text) => Error::LimitExceeded(format!("toomanyrequests: {text}")),
            Self::ManifestUnknown | Self::Denied | Self::Unauthorized(_) | Self::NoPlatform(_) | Self::Invalid(_) => {
                Error::Failed(self.to_string())
            }
        }
    }

    /// As an answer to whoever pushes.
    pub(crate) fn of_push(self) -> Error {
        match self {
            Self::Denied => Error::Forbidden("denied: requested access to the resource is denied".into()),
            Self::Unauthorized(text) => Error::Failed(format!("unauthorized: {text}")),
            Self::Unreachable(_)
            | Self::Refused(_)
            | Self::ManifestUnknown
            | Self::RateLimited(_)
            | Self::NoPlatform(_)
            | Self::Invalid(_) => self.of_registry(),
        }
    }

    /// As an answer to whoever asked for `reference`.
    pub(crate) fn about(self, reference: &ImageReference) -> Error {
        match self {
            Self::Unreachable(text) => Error::Unavailable(text),
            Self::Refused(text) => Error::Forbidden(text),
            Self::ManifestUnknown => {
                Error::NotFound(format!("manifest for {reference} not found: manifest unknown: manifest unknown"))
            }
            Self::Denied => Error::NotFound(format!(
                "pull access denied for {}, repository does not exist or may require 'docker login': \
                 denied: requested access to the resource is denied",
                reference.familiar_name()
            )),
            // Not 401: that would speak of the tenant's credentials here, and make clients drop them.
            Self::Unauthorized(text) => Error::Failed(format!(
                "Head \"https://{}/v2/{}/manifests/{}\": unauthorized: {text}",
                reference.registry,
                reference.repository,
                reference.tag.as_deref().unwrap_or("latest")
            )),
            Self::RateLimited(text) => Error::LimitExceeded(format!("toomanyrequests: {text}")),
            Self::NoPlatform(text) => Error::NotFound(text),
            Self::Invalid(text) => Error::Failed(text),
        }
    }

    /// Of several upstreams' failures, the one that tells most: a clear "no" before silence.
    pub(crate) fn tells_more_than(&self, other: &Self) -> bool {
        self.weight() > other.weight()
    }

    fn weight(&self) -> u8 {
        match self {
            Self::Unreachable(_) => 0,
            Self::Invalid(_) => 1,
            Self::RateLimited(_) => 2,
            Self::Refused(_) => 3,
            Self::ManifestUnknown | Self::Denied | Self::NoPlatform(_) => 4,
            Self::Unauthorized(_) => 5,
        }
    }
}
