//! The pinned root of a container's file system, and the only ways into it. Every path is resolved by
//! the kernel below the root's descriptor (`openat2`, `RESOLVE_IN_ROOT`, no magic links), so neither
//! links nor renames that happen meanwhile lead out. A running container's root is taken from its first
//! process, with everything that is mounted there; kernel file systems (proc, sysfs, cgroups…) are not
//! entered, because this agent would read and write them with the host's privileges.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, StatxAttributes, StatxFlags, fstat, fstatfs, openat,
        statx,
    },
    io::Errno,
};

use super::{at_rest::Space, owners::Owners};
use crate::rootfs::Visit;

/// A directory to resolve names in; gives no right to read it.
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// File systems whose content is a container's own: overlay, tmpfs, and what hosts keep data on.
const ADMITTED: [i64; 10] = [
    0x794c_7630, // overlay
    0x0102_1994, // tmpfs
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683e, // btrfs
    0x2fc1_2fc1, // zfs
    0xf2f5_2010, // f2fs
    0x6969,      // nfs
    0xca45_1a4e, // bcachefs
    0xe0f5_e1e2, // erofs: layers
];

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Root {
    dir: OwnedFd,
    owners: Owners,
    // Before the visit: its mounts go first.
    _space: Option<Space>,
    // The mount stays as long as the root is open.
    _visit: Option<std::sync::Arc<Visit>>,
}

/// An object of a container's file system, pinned but not opened.
#[derive(Debug)]
pub(crate) struct Node {
    fd: OwnedFd,
    pub(crate) stat: Stat,
    /// Its file system is one whose content is taken.
    pub(crate) admitted: bool,
}

impl Root {
    /// The root of a process that is in `cgroup_path`. The descriptor of its `/proc` directory is
    /// bound to the process, so its number may be anybody's later.
    ///
    /// # Errors
    /// `NotFound` if there is no such process in the container any more.
    pub(crate) fn of_process(pid: u32, cgroup_path: &str, visit: std::sync::Arc<Visit>) -> io::Result<Self> {
        let process = openat(CWD, format!("/proc/{pid}"), DIRECTORY, Mode::empty())?;
        if !is_in_cgroup(&process, cgroup_path)? {
            return Err(io::ErrorKind::NotFound.into());
        }
        let owners = Owners::of_maps(&read_small(&process, "uid_map")?, &read_small(&process, "gid_map")?)?;
        let dir = openat(&process, "root", DIRECTORY, Mode::empty())?;
        Ok(Self { dir, owners, _space: None, _visit: Some(visit) })
    }

    /// A mounted root file system, without what a run mounts into it.
    ///
    /// # Errors
    /// It is not there.
    pub(crate) fn mounted(rootfs: &Path, owners: Owners, visit: Option<std::sync::Arc<Visit>>) -> io::Result<Self> {
        let dir = openat(CWD, rootfs, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
        Ok(Self { dir, owners, _space: None, _visit: visit })
    }

    /// A root in a mount namespace of its own.
    pub(super) fn private(dir: OwnedFd, owners: Owners, visit: std::sync::Arc<Visit>, space: Space) -> Self {
        Self { dir, owners, _space: Some(space), _visit: Some(visit) }
    }

    /// How its owners are to be read and set.
    pub(crate) fn owners(&self) -> &Owners {
        &self.owners
    }

    /// The root directory itself.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub(crate) fn top(&self) -> io::Result<Node> {
        Node::pin(self.dir.try_clone()?)
    }

    /// What a path names; a link at its end is the link, unless a slash follows it.
    ///
    /// # Errors
    /// Nothing is there, or it is in a file system that is not entered.
    pub(crate) fn find(&self, path: &[u8]) -> io::Result<Node> {
        let node = Node::pin(self.resolve(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)?)?;
        if !node.admitted && !node.is_mount_root()? {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(node)
    }

    /// The directory a path leads to, links followed.
    ///
    /// # Errors
    /// `NotADirectory`, or nothing is there.
    pub(crate) fn directory(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let fd = self.resolve(path, DIRECTORY)?;
        if is_admitted(&fd)? { Ok(fd) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn resolve(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { b".".as_slice() } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(crate::resolve::openat2(&self.dir, path, flags, resolve)?)
    }
}

impl Node {
    /// Takes a descriptor opened with `O_PATH`.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub(crate) fn pin(fd: OwnedFd) -> io::Result<Self> {
        let stat = fstat(&fd)?;
        Ok(Self { admitted: is_admitted(&fd)?, stat, fd })
    }

    /// A child of a directory by its one name; `None` if it is gone.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub(crate) fn child(dir: &impl AsFd, name: &std::ffi::CStr) -> io::Result<Option<Self>> {
        match openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => Self::pin(fd).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// What it is.
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// A directory whose entries may be listed.
    pub(crate) fn is_open_directory(&self) -> bool {
        self.admitted && self.kind() == FileType::Directory
    }

    /// A directory's descriptor for listing.
    ///
    /// # Errors
    /// It is none, or may not be entered.
    pub(crate) fn list(&self) -> io::Result<OwnedFd> {
        if !self.is_open_directory() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(openat(&self.fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// The content of a regular file. Nothing else is ever opened: a device acts on it, a FIFO waits.
    ///
    /// # Errors
    /// It is no regular file of an admitted file system.
    pub(crate) fn read(&self) -> io::Result<File> {
        if !self.admitted || self.kind() != FileType::RegularFile {
            return Err(io::Error::other("not a regular file"));
        }
        // Not blocking: somebody may hold a lease on it.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(File::from(openat(CWD, self.own_path(), flags, Mode::empty())?))
    }

    /// The target of a link.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn link(&self) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&self.fd, "", Vec::new())?.into_bytes())
    }

    /// An extended attribute; `None` where there is none.
    pub(crate) fn attribute(&self, name: &str) -> Option<Vec<u8>> {
        if !matches!(self.kind(), FileType::RegularFile | FileType::Directory) {
            return None;
        }
        let mut value = [0_u8; 256];
        let length = rustix::fs::getxattr(self.own_path(), name, &mut value).ok()?;
        Some(value[..length].to_vec())
    }

    /// This agent's own name for what it has pinned.
    fn own_path(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }

    fn is_mount_root(&self) -> io::Result<bool> {
        let told = statx(&self.fd, "", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
        Ok(told.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    }
}

impl AsFd for Node {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether a descriptor is on a file system whose content is taken.
pub(crate) fn is_admitted(fd: &impl AsFd) -> io::Result<bool> {
    Ok(ADMITTED.contains(&fstatfs(fd)?.f_type))
}

/// Whether the process whose `/proc` directory this is belongs to the cgroup, or to one below.
///
/// # Errors
/// There is no such process any more.
pub(crate) fn is_in_cgroup(process: &OwnedFd, cgroup_path: &str) -> io::Result<bool> {
    let below = format!("{cgroup_path}/");
    let ours = |line: &str| line.splitn(3, ':').nth(2).is_some_and(|at| at == cgroup_path || at.starts_with(&below));
    Ok(read_small(process, "cgroup")?.lines().any(ours))
}

fn read_small(dir: &OwnedFd, name: &str) -> io::Result<String> {
    let gone = |e: Errno| if e == Errno::SRCH { io::ErrorKind::NotFound.into() } else { io::Error::from(e) };
    let file = File::from(openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(gone)?);
    let mut text = String::new();
    file.take(64 << 10).read_to_string(&mut text)?;
    Ok(text)
}
