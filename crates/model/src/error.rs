//! The one closed error enum of the suite. Each HTTP face maps it once; internal clients decode it
//! back, so an error keeps its kind across services. Text in a variant may be shown to a tenant;
//! an [`Error::Internal`] source never is: it is logged once, where the answer is rendered.

use serde::{Deserialize, Serialize};

/// The result of anything that can fail with a domain error.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, by kind. The text is complete and fit for the caller's eyes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", content = "message", rename_all = "snake_case")]
pub enum Error {
    /// The thing does not exist in the caller's project (404). Another project's thing is this too.
    #[error("{0}")]
    NotFound(String),
    /// A field or parameter is wrong (400).
    #[error("{0}")]
    InvalidArgument(String),
    /// The state of things forbids it now (409).
    #[error("{0}")]
    Conflict(String),
    /// It is already so; nothing was changed (304 on Docker's start and stop).
    #[error("not modified")]
    NotModified,
    /// No credential, or one that opens nothing (401).
    #[error("{0}")]
    Unauthenticated(String),
    /// The project's policy refuses it, by name (403).
    #[error("{0}")]
    Forbidden(String),
    /// A limit of the project or the service was reached (429 or 413).
    #[error("{0}")]
    LimitExceeded(String),
    /// No host can take it; the text explains why (503).
    #[error("{0}")]
    NoCapacity(String),
    /// A part of the suite, or an upstream, does not answer now; trying again may help (503).
    #[error("{0}")]
    Unavailable(String),
    /// Not built yet (501).
    #[error("{0}")]
    NotImplemented(String),
    /// The host or runtime failed at it, with a cause the caller may see (500).
    #[error("{0}")]
    Failed(String),
    /// A fault of ours. The text goes to the log, not to the caller (500).
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// A wrong field: names it and says why.
    #[must_use]
    pub fn invalid(field: &str, why: &str) -> Self {
        Self::InvalidArgument(format!("invalid {field}: {why}"))
    }

    /// A fault of ours, from whatever raised it.
    pub fn internal(source: impl std::fmt::Display) -> Self {
        Self::Internal(source.to_string())
    }

    /// The HTTP status this kind maps to on every face.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::NotModified => 304,
            Self::InvalidArgument(_) => 400,
            Self::Unauthenticated(_) => 401,
            Self::Forbidden(_) => 403,
            Self::NotFound(_) => 404,
            Self::Conflict(_) => 409,
            Self::LimitExceeded(_) => 429,
            Self::Failed(_) | Self::Internal(_) => 500,
            Self::NotImplemented(_) => 501,
            Self::NoCapacity(_) | Self::Unavailable(_) => 503,
        }
    }

    /// The text a caller may see. Internal faults are not told.
    #[must_use]
    pub fn public_message(&self) -> String {
        match self {
            Self::Internal(_) => "internal error; the request id in the response headers finds it in the logs".into(),
            Self::NotFound(m)
            | Self::InvalidArgument(m)
            | Self::Conflict(m)
            | Self::Unauthenticated(m)
            | Self::Forbidden(m)
            | Self::LimitExceeded(m)
            | Self::NoCapacity(m)
            | Self::Unavailable(m)
            | Self::NotImplemented(m)
            | Self::Failed(m) => m.clone(),
            Self::NotModified => String::new(),
        }
    }
}
