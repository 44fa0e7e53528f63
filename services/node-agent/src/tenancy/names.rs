//! A UTS namespace with a domain name: inside a user namespace the name cannot be written where
//! runtimes write it (`/proc/sys/kernel/domainname` is for the host's root), only by the system call.

use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::{
        fd::{AsRawFd as _, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::Path,
};

use nix::{
    fcntl::OFlag,
    libc,
    mount::{MsFlags, mount},
    sys::wait::waitpid,
    unistd::{ForkResult, fork, pipe2},
};

/// Makes one that belongs to `userns`, called `host` and `domain`, and pins it on `pin`.
///
/// # Errors
/// The kernel's.
pub(crate) fn make_uts(userns: BorrowedFd<'_>, host: &str, domain: &str, pin: &Path) -> io::Result<()> {
    super::userns::unpin(pin)?;
    OpenOptions::new().write(true).create_new(true).mode(0o400).open(pin)?;
    let (host, domain) = (CString::new(host)?, CString::new(domain)?);
    let (told, tell) = pipe2(OFlag::O_CLOEXEC)?;
    let (released, release) = pipe2(OFlag::O_CLOEXEC)?;
    #[expect(unsafe_code, reason = "fork")]
    // SAFETY: the child makes system calls only, on values made before, and allocates nothing.
    let child = match unsafe { fork() }? {
        ForkResult::Child => {
            drop(release);
            name_it(userns, &host, &domain, &tell, &released)
        }
        ForkResult::Parent { child } => child,
    };
    drop((tell, released));
    let mut errno = [0; 4];
    let pinned = File::from(told).read_exact(&mut errno).and_then(|()| match i32::from_ne_bytes(errno) {
        0 => {
            let source = format!("/proc/{child}/ns/uts");
            Ok(mount(Some(source.as_str()), pin, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
        }
        errno => Err(io::Error::from_raw_os_error(errno)),
    });
    // A byte, not the end of the pipe: other children may hold copies of our end.
    let _ = nix::unistd::write(&release, b"x");
    waitpid(child, None)?;
    pinned
}

/// The child's part; never returns.
fn name_it(userns: BorrowedFd<'_>, host: &CString, domain: &CString, tell: &OwnedFd, released: &OwnedFd) -> ! {
    #[expect(unsafe_code, reason = "the child of a process with threads makes system calls only")]
    // SAFETY: descriptors are open, strings are terminated and live, lengths are theirs.
    unsafe {
        let done = libc::setns(userns.as_raw_fd(), libc::CLONE_NEWUSER) == 0
            && libc::unshare(libc::CLONE_NEWUTS) == 0
            && libc::sethostname(host.as_ptr(), host.count_bytes()) == 0
            && libc::setdomainname(domain.as_ptr(), domain.count_bytes()) == 0;
        let errno: i32 = if done { 0 } else { *libc::__errno_location() };
        libc::write(tell.as_raw_fd(), (&raw const errno).cast(), size_of::<i32>());
        let mut go = 0u8;
        libc::read(released.as_raw_fd(), (&raw mut go).cast(), 1);
        libc::_exit(0)
    }
}
