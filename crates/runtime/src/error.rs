//! What can go wrong while preparing or running a container, by who can do something about it.

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Either the tenant's input is wrong, or the host failed at something it names.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The container's own settings or image are at fault; the text is for the tenant.
    #[error("{0}")]
    Invalid(String),
    /// The runtime refused, in its own words; the code is what the container's exit code becomes.
    #[error("{}", .0.message)]
    Runtime(crate::StartFailure),
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A document of ours could not be written or read.
    #[error("{what}: {source}")]
    Document {
        /// Which.
        what: String,
        /// Why.
        source: serde_json::Error,
    },
}

impl Error {
    /// Wraps a failed system call with what it was for.
    pub fn io(what: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self::Io { what: what.into(), source: source.into() }
    }
}

impl From<Error> for model::Error {
    fn from(e: Error) -> Self {
        match e {
            Error::Invalid(m) => Self::InvalidArgument(m),
            Error::Runtime(f) => Self::Failed(f.message),
            Error::Io { .. } | Error::Document { .. } => Self::Internal(e.to_string()),
        }
    }
}

/// The words of a system call that failed, as Go prints errno: users know them so.
#[must_use]
pub fn words(e: &std::io::Error) -> String {
    let text = e.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}
