//! Where something is mounted in the root of an image, which is the image's to choose: the end of its
//! links is found first, then gone to name by name without following any, so that whoever exchanges one
//! meanwhile gets a refusal and not a mount elsewhere (CVE-2021-30465).

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2},
    sys::{
        stat::{FileStat, Mode, SFlag, fstat, mkdirat},
        statfs::{FsType, fstatfs},
    },
};

/// Tries when links changed between the two steps.
const ATTEMPTS: u32 = 64;
/// The kernel's own file systems, in which nothing of a tenant's is mounted.
const KERNELS_OWN: [i64; 6] = [
    libc::PROC_SUPER_MAGIC,
    libc::SYSFS_MAGIC,
    libc::CGROUP_SUPER_MAGIC,
    libc::CGROUP2_SUPER_MAGIC,
    // devpts, and POSIX message queues.
    0x1cd1,
    0x1980_0202,
];

/// What is to be mounted there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Directory,
    File,
}

/// A place, and whether it was there before.
pub(super) struct Place {
    pub(super) fd: OwnedFd,
    pub(super) is_new: bool,
}

/// The place of a tenant's mount, made if it is not there.
pub(super) fn of_tenant(root: &OwnedFd, at: &Path, shape: Shape, dev: &OwnedFd) -> Result<Place, String> {
    let text = at.display();
    for _ in 1..ATTEMPTS {
        let end = runtime::root::resolve(root, &at.to_string_lossy()).map_err(|e| e.to_string())?;
        match walk(root, &end, shape) {
            // A link that was not there a moment ago.
            Err(Errno::ELOOP | Errno::EAGAIN) => {}
            Err(e) => return Err(format!("mkdir {text}: {}", runtime::words(&io::Error::from(e)))),
            Ok(place) => {
                refuse_own(&place.fd, dev).map_err(|()| {
                    format!("{:?} cannot be mounted because it is inside a place of the runtime's own", at)
                })?;
                return Ok(place);
            }
        }
    }
    Err(format!("mkdir {text}: its links keep changing"))
}

/// The directory a process shall begin in, made if it is not there; it enters it by itself.
pub(super) fn make_directory(root: &OwnedFd, at: &Path) -> Result<(), String> {
    let refused = |e: Errno| format!("mkdir {}: {}", at.display(), runtime::words(&io::Error::from(e)));
    match std::fs::metadata(at) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(refused(Errno::ENOTDIR)),
        Err(_) => {
            let end = runtime::root::resolve(root, &at.to_string_lossy()).map_err(|e| e.to_string())?;
            walk(root, &end, Shape::Directory).map(drop).map_err(refused)
        }
    }
}

/// The place of one of the kernel's file systems: no link leads to it.
pub(super) fn of_kernel(dir: &impl AsFd, name: &str) -> io::Result<OwnedFd> {
    match step(dir, name) {
        Err(Errno::ENOENT) => {
            mkdirat(dir, name, Mode::from_bits_truncate(0o755))?;
            Ok(step(dir, name)?)
        }
        found => Ok(found?),
    }
}

/// An existing file of one of the kernel's file systems, on that very mount. `None`: there is none.
pub(super) fn within(mount: &OwnedFd, path: &Path, flags: OFlag) -> io::Result<Option<OwnedFd>> {
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS
        | ResolveFlag::RESOLVE_NO_XDEV;
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
    match openat2(mount, path, how) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Something of the container's own `/dev`, with what is mounted over it.
pub(super) fn within_dev(dev: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    Ok(step(dev, name)?)
}

/// A new empty file to mount a file over.
pub(super) fn new_file(dir: &impl AsFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(dir, name, flags, Mode::from_bits_truncate(0o644))?)
}

pub(super) fn is_directory(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
}

/// `end` has no links; if one is met after all, that is `ELOOP`.
fn walk(root: &OwnedFd, end: &Path, shape: Shape) -> Result<Place, Errno> {
    let mut at = openat(root, ".", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut is_new = false;
    let mut names = end.strip_prefix("/").unwrap_or(end).iter().peekable();
    while let Some(name) = names.next() {
        is_new = false;
        let next = match step(&at, name) {
            Err(Errno::ENOENT) => {
                is_new = true;
                if names.peek().is_none() && shape == Shape::File {
                    let flags = OFlag::O_RDONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                    // Somebody who puts a FIFO there in time holds nobody up.
                    openat(&at, name, flags | OFlag::O_NONBLOCK, Mode::from_bits_truncate(0o755)).map(drop)
                } else {
                    mkdirat(&at, name, Mode::from_bits_truncate(0o755))
                }
                .or_else(|e| if e == Errno::EEXIST { Ok(()) } else { Err(e) })?;
                step(&at, name)?
            }
            found => found?,
        };
        if names.peek().is_some() && !is_directory(&fstat(&next)?) {
            return Err(Errno::ENOTDIR);
        }
        at = next;
    }
    Ok(Place { fd: at, is_new })
}

/// One name further, through no link.
fn step<P: nix::NixPath + ?Sized>(dir: &impl AsFd, name: &P) -> Result<OwnedFd, Errno> {
    let found = openat(dir, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    let is_link = SFlag::from_bits_truncate(fstat(&found)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFLNK;
    if is_link { Err(Errno::ELOOP) } else { Ok(found) }
}

fn refuse_own(place: &OwnedFd, dev: &OwnedFd) -> Result<(), ()> {
    let kernels = fstatfs(place).map_err(drop)?.filesystem_type();
    let (here, dev) = (fstat(place).map_err(drop)?, fstat(dev).map_err(drop)?);
    let is_own = KERNELS_OWN.iter().any(|magic| kernels == FsType(*magic));
    if is_own || (here.st_dev, here.st_ino) == (dev.st_dev, dev.st_ino) { Err(()) } else { Ok(()) }
}
