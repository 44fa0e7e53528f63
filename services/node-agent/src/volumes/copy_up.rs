//! The first content of a volume: what the image has at its path, with owners, modes, times and
//! extended attributes. Image and volume are hostile (another container may be at work in the volume):
//! nothing is opened but by descriptor and name, links are copied and never followed, and no stack grows.

use std::{
    ffi::{CStr, CString},
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use contract::host::PROJECT_IDS;
use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

/// Directories inside directories; each holds two descriptors while it is copied.
const DEPTH_MAX: usize = 1_000;
/// Whom files belong to whose owner has no name in the project.
const NOBODY: u32 = 65_534;

/// What the image has at a path; `None` if it has nothing there.
pub(super) fn source(rootfs: &Path, path: &str) -> io::Result<Option<OwnedFd>> {
    let root = rustix::fs::openat(CWD, rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let scope = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match crate::resolve::openat2(&root, path.trim_start_matches('/'), flags, scope) {
        Ok(source) => Ok(Some(source)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::NOTDIR) => {
            Err(io::Error::other(format!("cannot mount volume over existing file, file exists {path}")))
        }
        Err(e) => Err(e.into()),
    }
}

pub(super) fn is_empty(dir: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(names(dir)?.is_empty())
}

fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

struct Level {
    from: OwnedFd,
    to: OwnedFd,
    stat: Stat,
    left: Vec<CString>,
}

/// How ids in the root file system become those on the disk: the range of the project begins at 0 there.
#[derive(Clone, Copy)]
struct Ids {
    root_id: u32,
}

impl Ids {
    fn owner(self, stat: &Stat) -> (Option<Uid>, Option<Gid>) {
        let back = |id: u32| id.checked_sub(self.root_id).filter(|id| *id < PROJECT_IDS).unwrap_or(NOBODY);
        (Some(Uid::from_raw(back(stat.st_uid))), Some(Gid::from_raw(back(stat.st_gid))))
    }
}

/// Copies the content, and owner and mode of the directory itself. `again`: files an interrupted
/// attempt left are replaced; otherwise what is there stays.
pub(super) fn copy(from: OwnedFd, to: OwnedFd, root_id: u32, again: bool) -> io::Result<()> {
    let ids = Ids { root_id };
    let mut levels = vec![enter(from, to, ids)?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.left.pop() else {
            dress(&level.to, &level.stat, ids)?;
            levels.pop();
            continue;
        };
        let stat = rustix::fs::statat(&level.from, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let deeper = directory(level, &name, ids)?;
            if levels.len() >= DEPTH_MAX {
                return Err(io::Error::other("the image's directories are nested too deeply"));
            }
            levels.push(deeper);
        } else {
            leaf(level, &name, &stat, ids, again)?;
        }
    }
    Ok(())
}

fn enter(from: OwnedFd, to: OwnedFd, ids: Ids) -> io::Result<Level> {
    let (stat, left) = (rustix::fs::fstat(&from)?, names(from.as_fd())?);
    copy_xattrs(from.as_fd(), to.as_fd(), ids)?;
    Ok(Level { from, to, stat, left })
}

fn directory(level: &Level, name: &CStr, ids: Ids) -> io::Result<Level> {
    match rustix::fs::mkdirat(&level.to, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let from = rustix::fs::openat(&level.from, name, flags, Mode::empty())?;
    let to = rustix::fs::openat(&level.to, name, flags, Mode::empty())?;
    enter(from, to, ids)
}

/// Anything but a directory. Sockets and devices mean nothing in a volume.
fn leaf(level: &Level, name: &CStr, stat: &Stat, ids: Ids, again: bool) -> io::Result<()> {
    if again {
        match rustix::fs::unlinkat(&level.to, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let made = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => file(level, name, stat, ids),
        FileType::Symlink => link(level, name, stat, ids),
        FileType::Fifo => fifo(level, name, stat, ids),
        FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Directory
        | FileType::Unknown => Ok(()),
    };
    match made {
        // Somebody else put something there meanwhile: it is theirs.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn file(level: &Level, name: &CStr, stat: &Stat, ids: Ids) -> io::Result<()> {
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut from = fs::File::from(rustix::fs::openat(&level.from, name, read, Mode::empty())?);
    let mut to = fs::File::from(rustix::fs::openat(&level.to, name, write, Mode::RUSR | Mode::WUSR)?);
    io::copy(&mut from, &mut to)?;
    copy_xattrs(from.as_fd(), to.as_fd(), ids)?;
    dress(&to, stat, ids)
}

fn link(level: &Level, name: &CStr, stat: &Stat, ids: Ids) -> io::Result<()> {
    let target = rustix::fs::readlinkat(&level.from, name, Vec::new())?;
    rustix::fs::symlinkat(&target, &level.to, name)?;
    let (uid, gid) = ids.owner(stat);
    Ok(rustix::fs::chownat(&level.to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn fifo(level: &Level, name: &CStr, stat: &Stat, ids: Ids) -> io::Result<()> {
    rustix::fs::mknodat(&level.to, name, FileType::Fifo, Mode::from_raw_mode(stat.st_mode & 0o777), 0)?;
    let (uid, gid) = ids.owner(stat);
    Ok(rustix::fs::chownat(&level.to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Owner before mode: a change of owner takes set-user-id away.
fn dress(to: &impl AsFd, stat: &Stat, ids: Ids) -> io::Result<()> {
    let (uid, gid) = ids.owner(stat);
    rustix::fs::fchown(to, uid, gid)?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let at = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
    };
    let times = Timestamps {
        last_access: at(stat.st_atime, stat.st_atime_nsec),
        last_modification: at(stat.st_mtime, stat.st_mtime_nsec),
    };
    Ok(rustix::fs::futimens(to, &times)?)
}

/// The user's own attributes, and access lists where their ids mean the same on both sides. Capabilities
/// mean nothing in a volume.
fn copy_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>, ids: Ids) -> io::Result<()> {
    let mut list = vec![0_u8; 65_536];
    let length = match rustix::fs::flistxattr(from, &mut list[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    let mut value = vec![0_u8; 65_536];
    for name in list[..length].split(|b| *b == 0).filter(|name| wanted(name, ids)) {
        let size = rustix::fs::fgetxattr(from, name, &mut value[..])?;
        match rustix::fs::fsetxattr(to, name, &value[..size], XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP | Errno::PERM) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn wanted(name: &[u8], ids: Ids) -> bool {
    name.starts_with(b"user.") || (name.starts_with(b"system.posix_acl_") && ids.root_id == 0)
}
