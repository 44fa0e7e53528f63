//! Kernel settings under `/proc/sys`, of the network namespace the calling thread is in.

use std::{fs, io, path::Path};

use super::error::{Doing as _, Result};

/// Writes a setting.
pub(super) fn set(key: &str, value: &str) -> Result<()> {
    fs::write(Path::new("/proc/sys").join(key), value).doing(|| format!("setting {key}={value}"))
}

/// Writes a setting that a kernel without IPv6 does not have.
pub(super) fn set_if_there(key: &str, value: &str) -> Result<()> {
    match fs::write(Path::new("/proc/sys").join(key), value) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        written => written.doing(|| format!("setting {key}={value}")),
    }
}
