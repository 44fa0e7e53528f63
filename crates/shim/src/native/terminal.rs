//! A terminal of the container's own. Everything below `/dev` there is the container's to replace, so
//! what is opened is checked to be the multiplexer of a devpts, and the other end is asked of it, not of
//! a path.

use std::{
    ffi::c_int,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use nix::{
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2},
    sys::{
        stat::{SFlag, fstat, major, minor},
        statfs::{FsType, fstatfs},
    },
    unistd::{Uid, fchown},
};

use runtime::words;

use super::{document::Size, join::check, report};

const MULTIPLEXER: &str = "/dev/pts/ptmx";
/// `DEVPTS_SUPER_MAGIC`.
const DEVPTS: i64 = 0x1cd1;

/// Makes a terminal of `uid`'s this process's streams and its controlling one; the shim gets the master.
pub(super) fn take(size: Option<Size>, uid: u32, socket: &OwnedFd) -> Result<(), String> {
    let failed = |e: io::Error| format!("open a terminal: {}", words(&e));
    let master = open_master().map_err(failed)?;
    let unlocked: c_int = 0;
    ioctl(&master, libc::TIOCSPTLCK, (&raw const unlocked).expose_provenance()).map_err(failed)?;
    let flags = (OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).bits();
    let slave = ioctl(&master, libc::TIOCGPTPEER, usize::try_from(flags).unwrap_or(0)).map_err(failed)?;
    #[expect(unsafe_code, reason = "a new descriptor arrives as a number")]
    // SAFETY: TIOCGPTPEER has just made it.
    let slave = unsafe { OwnedFd::from_raw_fd(slave) };
    if let Some(size) = size {
        crate::stdio::set_size(&master, (size.height, size.width)).map_err(failed)?;
    }
    fchown(&slave, Some(Uid::from_raw(uid)), None).map_err(|e| failed(e.into()))?;
    ioctl(&slave, libc::TIOCSCTTY, 0).map_err(failed)?;
    for number in 0..3 {
        check(|| {
            #[expect(unsafe_code, reason = "the streams are numbers")]
            // SAFETY: 0 to 2 are this process's streams, and are replaced as such.
            unsafe {
                libc::dup2(slave.as_raw_fd(), number)
            }
        })
        .map_err(failed)?;
    }
    report::terminal(socket, &master);
    Ok(())
}

/// Not followed through links, not waited for if it is a FIFO.
fn open_master() -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let master = openat2(AT_FDCWD, MULTIPLEXER, how)?;
    let stat = fstat(&master)?;
    let is_device = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
    let is_devpts = fstatfs(&master)?.filesystem_type() == FsType(DEVPTS);
    if is_device && is_devpts && (major(stat.st_rdev), minor(stat.st_rdev)) == (5, 2) {
        Ok(master)
    } else {
        Err(io::Error::from_raw_os_error(libc::ENODEV))
    }
}

fn ioctl(fd: &OwnedFd, request: libc::Ioctl, argument: usize) -> io::Result<c_int> {
    check(|| {
        #[expect(unsafe_code, reason = "ioctl")]
        // SAFETY: the descriptor is open; the argument is what the three requests above take.
        unsafe {
            libc::ioctl(fd.as_raw_fd(), request, argument)
        }
    })
}
