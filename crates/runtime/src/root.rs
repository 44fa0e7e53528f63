//! A root file system that leads a runtime elsewhere: links where it mounts the kernel's file systems,
//! or links that bring a tenant's mount over one of them. Both are refused before the runtime looks.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat2, readlinkat},
    sys::stat::{FileStat, Mode, SFlag, fstat, fstatat},
};

use crate::{Error, Result};

/// Tries when the kernel met a rename on its way.
const ATTEMPTS: u32 = 128;
/// The kernel's own bound is 40.
const MAX_LINKS: usize = 40;

/// Refuses an image whose mount points for the kernel's file systems are links: runtimes have been
/// led elsewhere by them (CVE-2023-27561, CVE-2025-52565).
///
/// # Errors
/// `Invalid` naming the path, or the rootfs cannot be opened.
pub fn refuse_hostile(rootfs: &Path) -> Result<()> {
    let root = open_root(rootfs)?;
    for name in ["dev", "proc", "sys"] {
        match fstatat(&root, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) if kind(&stat) == SFlag::S_IFDIR => {}
            Err(Errno::ENOENT) => {}
            Ok(_) => return Err(Error::Invalid(format!("/{name} of the image is not a directory"))),
            Err(e) => return Err(Error::io(format!("stat /{name} of the image"), io::Error::from(e))),
        }
    }
    Ok(())
}

/// Refuses to mount at a path that the image's links turn into one of the runtime's own places: what
/// the runtime makes there (devices, masks) would be made in the tenant's files (CVE-2025-31133).
///
/// # Errors
/// `Invalid` naming the path and the place, or the rootfs cannot be read.
pub fn refuse_disguised(rootfs: &Path, path: &str) -> Result<()> {
    let end = resolve(&open_root(rootfs)?, path)?;
    match end.to_str().and_then(model::runtimes_own) {
        Some(own) => Err(Error::Invalid(format!("mount path {path:?}: {own} is the runtime's own on Wharfage"))),
        None => Ok(()),
    }
}

/// Where a path ends as a runtime would find it, also where nothing is there yet.
///
/// # Errors
/// Too many links, or the root cannot be read.
pub fn resolve(root: &OwnedFd, path: &str) -> Result<PathBuf> {
    let mut ahead: VecDeque<OsString> = names(Path::new(path)).into();
    let mut end = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            end.pop();
            continue;
        }
        end.push(&name);
        let Some(target) = link(root, &end)? else { continue };
        links += 1;
        if links > MAX_LINKS {
            return Err(Error::Invalid(format!("mount path {path:?}: too many levels of symbolic links")));
        }
        end.pop();
        if target.is_absolute() {
            end = PathBuf::from("/");
        }
        for name in names(&target).into_iter().rev() {
            ahead.push_front(name);
        }
    }
    Ok(end)
}

fn names(path: &Path) -> Vec<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// What a path, itself free of links up to its last name, points at.
fn link(root: &OwnedFd, path: &Path) -> Result<Option<PathBuf>> {
    let what = |e: Errno| Error::io(format!("look at {} of the image", path.display()), io::Error::from(e));
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let fd = match open_below(root, path, how) {
        Ok(fd) => fd,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
        Err(e) => return Err(what(e)),
    };
    if kind(&fstat(&fd).map_err(what)?) != SFlag::S_IFLNK {
        return Ok(None);
    }
    Ok(Some(readlinkat(&fd, "").map_err(what)?.into()))
}

/// `openat2`, again when anything on the machine was renamed on its way (`EAGAIN`): a tenant who renames all
/// the time must not have his neighbours' starts fail.
pub(crate) fn open_below(root: &OwnedFd, path: &Path, how: OpenHow) -> nix::Result<OwnedFd> {
    for _ in 1..ATTEMPTS {
        match openat2(root, path, how) {
            Err(Errno::EAGAIN) => {}
            other => return other,
        }
    }
    openat2(root, path, how)
}

fn open_root(rootfs: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(rootfs, flags, Mode::empty()).map_err(|e| Error::io(format!("open {}", rootfs.display()), io::Error::from(e)))
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_root_with_a_linked_proc_is_refused() {
        let root = tempfile::tempdir().expect("temporary directory");
        refuse_hostile(root.path()).expect("nothing there is fine");
        symlink("/tmp", root.path().join("proc")).expect("link");
        assert!(matches!(refuse_hostile(root.path()), Err(Error::Invalid(_))));
    }

    #[test]
    fn b06_links_that_bring_a_mount_over_the_runtimes_places_are_refused() {
        let root = tempfile::tempdir().expect("temporary directory");
        let link = |to: &str, at: &str| symlink(to, root.path().join(at)).expect("link");
        fs::create_dir_all(root.path().join("srv/www")).expect("creates");
        for (to, at) in [("dev", "x"), ("../../../proc", "srv/p"), ("/sys/fs/cgroup", "c"), ("/dev/pts", "gone")] {
            link(to, at);
        }
        link("srv/p", "chain");
        link("www", "srv/here");
        link("loop", "loop");
        let refused = |path| match refuse_disguised(root.path(), path) {
            Err(Error::Invalid(why)) => why,
            other => panic!("{path}: {other:?}"),
        };
        for (path, own) in [
            ("/x", "/dev"),
            ("/srv/p", "/proc"),
            ("/srv/p/sys/kernel", "/proc"),
            ("/chain/1", "/proc"),
            ("/c/memory", "/sys"),
            ("/gone", "/dev/pts"),
            ("/x/pts", "/dev/pts"),
            ("/srv/../proc", "/proc"),
        ] {
            assert_eq!(refused(path), format!("mount path {path:?}: {own} is the runtime's own on Wharfage"));
        }
        assert!(refused("/loop").contains("symbolic links"));
        // The control: what only looks like it is fine.
        for path in ["/data", "/srv/here", "/srv/here/new/deep", "/x/shm", "/procedure", "/srv/www/../x"] {
            refuse_disguised(root.path(), path).expect(path);
        }
    }
}
