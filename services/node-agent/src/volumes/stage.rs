//! From a volume to a mount. What a tenant can rename is opened once, beneath the volume's root, and
//! from then on there is only a descriptor: the runtime is given a path that only this agent changes.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use nix::mount::{MsFlags, mount};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags},
    mount::{MoveMountFlags, OpenTreeFlags},
};

use crate::rootfs;

/// Opens a volume, or what is at `subpath` in it. Links are followed inside the volume only.
pub(super) fn inside(data: &Path, subpath: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, data, flags | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    if subpath.is_empty() {
        return Ok(root);
    }
    let scope = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    crate::resolve::openat2(&root, subpath, flags, scope)
        .map_err(|e| io::Error::new(io::Error::from(e).kind(), format!("cannot access path {subpath}: {e}")))
}

/// A mount of it that is nowhere yet.
pub(super) fn detach(data: &Path, subpath: &str) -> io::Result<OwnedFd> {
    let place = inside(data, subpath)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(rustix::mount::open_tree(place, "", flags)?)
}

/// Puts it at a path of the agent's own, in place of whatever was mounted there.
pub(super) fn put(tree: &OwnedFd, at: &Path, read_only: bool) -> io::Result<()> {
    rootfs::unmount(at)?;
    if let Some(dir) = at.parent() {
        crate::host::make_private(dir)?;
    }
    make_target(tree, at)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", CWD, at, flags)?;
    seal(at, read_only)
}

/// Puts it at a path inside of somebody else's root; directories that are missing are made there.
pub(super) fn put_inside(tree: &OwnedFd, root: &Path, path: &str, read_only: bool) -> io::Result<()> {
    let target = make_path(root, path)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", &target, "", flags)?;
    // The mount's own root, by descriptor: whatever the path leads to by now.
    let at = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(tree));
    seal(Path::new(&at), read_only)
}

/// No set-user-id, no devices, nothing spreads.
fn seal(at: &Path, read_only: bool) -> io::Result<()> {
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    flags.set(MsFlags::MS_RDONLY, read_only);
    mount(None::<&str>, at, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)?;
    Ok(mount(None::<&str>, at, None::<&str>, flags, None::<&str>)?)
}

/// A directory is mounted on a directory, a file on a file.
fn make_target(tree: &impl AsFd, at: &Path) -> io::Result<()> {
    let is_dir = FileType::from_raw_mode(rustix::fs::fstat(tree)?.st_mode) == FileType::Directory;
    let made = if is_dir { fs::create_dir(at) } else { fs::File::create_new(at).map(drop) };
    match made {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            // Of an earlier start; the volume may have changed its mind since.
            if fs::symlink_metadata(at)?.is_dir() == is_dir {
                return Ok(());
            }
            remove_target(at)?;
            make_target(tree, at)
        }
        made => made,
    }
}

fn remove_target(at: &Path) -> io::Result<()> {
    if fs::symlink_metadata(at)?.is_dir() { fs::remove_dir(at) } else { fs::remove_file(at) }
}

fn make_path(root: &Path, path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let scope = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let root = rustix::fs::openat(CWD, root, flags | OFlags::DIRECTORY, Mode::empty())?;
    let mut so_far = String::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let above = if so_far.is_empty() { ".".to_owned() } else { so_far.clone() };
        so_far = if so_far.is_empty() { part.to_owned() } else { format!("{so_far}/{part}") };
        match crate::resolve::openat2(&root, so_far.as_str(), flags, scope) {
            Err(rustix::io::Errno::NOENT) => {
                let dir = crate::resolve::openat2(&root, above.as_str(), flags | OFlags::DIRECTORY, scope)?;
                rustix::fs::mkdirat(&dir, part, Mode::from_raw_mode(0o755))?;
            }
            found => drop(found?),
        }
    }
    Ok(crate::resolve::openat2(&root, so_far.as_str(), flags, scope)?)
}

/// Unmounts everything below a staging directory and takes it away. Nothing is deleted that could be
/// a volume's: only empty directories and empty files go.
pub(super) fn clear(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let at = entry?.path();
        debug_assert!(at.file_name().is_some_and(|name| name.as_bytes().iter().all(u8::is_ascii_digit)));
        rootfs::unmount(&at)?;
        let meta = fs::symlink_metadata(&at)?;
        if !meta.is_dir() && meta.len() > 0 {
            return Err(io::Error::other("a volume's file is still mounted"));
        }
        remove_target(&at)?;
    }
    fs::remove_dir(dir)
}
