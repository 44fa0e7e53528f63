//! Making a user namespace as a user, and pinning it on a file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::Path,
};

use contract::host::PROJECT_IDS;
use nix::{
    fcntl::OFlag,
    libc,
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::{
        statfs::{NSFS_MAGIC, fstatfs},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, fork, pipe2},
};

/// The namespace pinned on `pin`, made anew if there is none of this user's.
///
/// # Errors
/// The kernel's.
pub(super) fn find_or_make(pin: &Path, first_id: u32) -> io::Result<File> {
    if let Ok(file) = File::open(pin)
        && fstatfs(&file).is_ok_and(|s| s.filesystem_type() == NSFS_MAGIC)
        && owner(&file)? == first_id
    {
        return Ok(file);
    }
    unpin(pin)?;
    OpenOptions::new().write(true).create_new(true).mode(0o400).open(pin)?;
    with_maker(first_id, |maker| {
        let source = format!("/proc/{maker}/ns/user");
        mount(Some(source.as_str()), pin, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        File::open(source)
    })
}

/// A namespace nobody pins: gone with the last descriptor.
///
/// # Errors
/// The kernel's.
pub(super) fn transient(first_id: u32) -> io::Result<File> {
    with_maker(first_id, |maker| File::open(format!("/proc/{maker}/ns/user")))
}

/// Lets go of it; nothing there is fine.
///
/// # Errors
/// The kernel's.
pub(super) fn unpin(pin: &Path) -> io::Result<()> {
    let _ = umount2(pin, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
    match fs::remove_file(pin) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The user who made a namespace.
fn owner(userns: &File) -> io::Result<u32> {
    const NS_GET_OWNER_UID: libc::c_ulong = 0xb704;
    let mut uid: libc::uid_t = 0;
    #[expect(unsafe_code, reason = "ioctl")]
    // SAFETY: the descriptor is open and the ioctl writes one uid_t.
    let got = unsafe { libc::ioctl(userns.as_raw_fd(), NS_GET_OWNER_UID, &raw mut uid) };
    if got < 0 { Err(io::Error::last_os_error()) } else { Ok(uid) }
}

/// Has a child become the user and make a namespace, maps the project's ids in it, and calls `take`
/// while the child still holds it.
fn with_maker<T>(first_id: u32, take: impl FnOnce(Pid) -> io::Result<T>) -> io::Result<T> {
    let (told, tell) = pipe2(OFlag::O_CLOEXEC)?;
    let (released, release) = pipe2(OFlag::O_CLOEXEC)?;
    #[expect(unsafe_code, reason = "fork")]
    // SAFETY: the child makes system calls only, on values made before, and allocates nothing.
    let child = match unsafe { fork() }? {
        ForkResult::Child => {
            drop(release);
            become_maker(first_id, &tell, &released)
        }
        ForkResult::Parent { child } => child,
    };
    drop((tell, released));
    let taken = read_errno(told).and_then(|()| {
        let map = format!("0 {first_id} {PROJECT_IDS}\n");
        for file in ["uid_map", "gid_map"] {
            OpenOptions::new().write(true).open(format!("/proc/{child}/{file}"))?.write_all(map.as_bytes())?;
        }
        take(child)
    });
    // A byte, not the end of the pipe: other children may hold copies of our end.
    let _ = nix::unistd::write(&release, b"x");
    waitpid(child, None)?;
    taken
}

/// The child's part; never returns.
fn become_maker(id: u32, tell: &OwnedFd, released: &OwnedFd) -> ! {
    #[expect(unsafe_code, reason = "only raw system calls are safe in the child of a process with threads")]
    // SAFETY: each takes numbers, or a pointer to something that lives until the call returns.
    // The library's own setuid family would signal threads that do not exist here.
    unsafe {
        let nothing = std::ptr::null::<libc::gid_t>();
        let done = libc::syscall(libc::SYS_setgroups, 0, nothing) == 0
            && libc::syscall(libc::SYS_setresgid, id, id, id) == 0
            && libc::syscall(libc::SYS_setresuid, id, id, id) == 0
            // Files of an undumpable process in /proc are root's alone, and its maps cannot be written.
            && libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) == 0
            && libc::unshare(libc::CLONE_NEWUSER) == 0;
        let errno: i32 = if done { 0 } else { *libc::__errno_location() };
        libc::write(tell.as_raw_fd(), (&raw const errno).cast(), size_of::<i32>());
        let mut go = 0u8;
        libc::read(released.as_raw_fd(), (&raw mut go).cast(), 1);
        libc::_exit(0)
    }
}

fn read_errno(told: OwnedFd) -> io::Result<()> {
    let mut bytes = [0; 4];
    File::from(told).read_exact(&mut bytes)?;
    match i32::from_ne_bytes(bytes) {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: u32 = 0x7fff_0000;

    #[test]
    fn a_namespace_is_made_by_its_user_and_found_again() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let pin = dir.path().join("pin");
        let made = find_or_make(&pin, FIRST).expect("makes");
        let found = find_or_make(&pin, FIRST).expect("finds");
        let inode = |f: &File| std::os::linux::fs::MetadataExt::st_ino(&f.metadata().expect("stat"));
        assert_eq!(inode(&made), inode(&found));
        assert_eq!(owner(&found).expect("has an owner"), FIRST);
        // Another user's is not this one's.
        let other = find_or_make(&pin, FIRST - PROJECT_IDS).expect("makes");
        assert_eq!(owner(&other).expect("has an owner"), FIRST - PROJECT_IDS);
        unpin(&pin).expect("lets go");
        unpin(&pin).expect("again is fine");
        assert!(!pin.exists());
    }
}
