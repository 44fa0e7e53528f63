//! What the kernel refused, and what was asked of it.

use std::io;

/// The result of asking the kernel for something.
pub(crate) type Result<T> = std::result::Result<T, KernelError>;

/// What was asked, and the kernel's answer.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub(crate) struct KernelError {
    what: String,
    source: io::Error,
}

impl KernelError {
    /// An answer to `what`.
    pub(super) fn new(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { what: what.into(), source: source.into() }
    }

    /// The kernel's error number, if it was one.
    #[must_use]
    pub(crate) fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// It is there already.
    #[must_use]
    pub(crate) fn is_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// It is not there.
    #[must_use]
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self.errno(), Some(libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::ENXIO))
    }
}

/// Says what was being done when it failed.
pub(super) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| KernelError::new(what(), e))
    }
}
