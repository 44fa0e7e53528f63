//! The `/dev/shm` of a container that others may share: a tmpfs of the host's that is bound into each of
//! them. It lives as long as the run, and longer in those who share it.

use std::{fs, io, path::Path};

use nix::mount::{MsFlags, mount};

use crate::rootfs;

/// dockerd's.
const DEFAULT_BYTES: u64 = 64 << 20;

/// Makes an empty one at `at`, for a container whose root is `owner` outside.
///
/// # Errors
/// The kernel's.
pub(crate) fn make(at: &Path, size_bytes: Option<u64>, owner: Option<u32>) -> io::Result<()> {
    // Of a run that ended without a word.
    rootfs::unmount(at)?;
    match fs::create_dir(at) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let (size, owner) = (size_bytes.unwrap_or(DEFAULT_BYTES), owner.unwrap_or(0));
    let options = format!("mode=1777,size={size},uid={owner},gid={owner}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("shm"), at, Some("tmpfs"), flags, Some(options.as_str()))?;
    Ok(mount(None::<&str>, at, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)?)
}
