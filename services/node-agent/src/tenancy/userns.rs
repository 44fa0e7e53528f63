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

    /// A process inside, that takes inotify instances until there are no more and holds them until the
    /// returned pipe is dropped. How many it got.
    fn hoard(userns: &File) -> (usize, OwnedFd, Pid) {
        let (told, tell) = pipe2(OFlag::O_CLOEXEC).expect("pipe");
        let (released, release) = pipe2(OFlag::O_CLOEXEC).expect("pipe");
        #[expect(unsafe_code, reason = "fork")]
        // SAFETY: the child makes system calls only and allocates nothing.
        let child = match unsafe { fork() }.expect("forks") {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                #[expect(unsafe_code, reason = "raw system calls")]
                // SAFETY: numbers, and pointers to locals that outlive the calls.
                unsafe {
                    libc::close(release.as_raw_fd());
                    libc::setns(userns.as_raw_fd(), libc::CLONE_NEWUSER);
                    libc::syscall(libc::SYS_setresgid, 0, 0, 0);
                    libc::syscall(libc::SYS_setresuid, 0, 0, 0);
                    let mut got: usize = 0;
                    while libc::inotify_init1(libc::IN_CLOEXEC) >= 0 {
                        got += 1;
                    }
                    libc::write(tell.as_raw_fd(), (&raw const got).cast(), size_of::<usize>());
                    let mut end = 0u8;
                    libc::read(released.as_raw_fd(), (&raw mut end).cast(), 1);
                    libc::_exit(0)
                }
            }
        };
        let mut got = [0; size_of::<usize>()];
        drop(tell);
        File::from(told).read_exact(&mut got).expect("it tells");
        (usize::from_ne_bytes(got), release, child)
    }

    fn hoard_one_after_the_other(first: &File, second: &File) -> (usize, usize) {
        let (one, hold_one, first) = hoard(first);
        let (two, hold_two, second) = hoard(second);
        for (hold, child) in [(hold_one, first), (hold_two, second)] {
            nix::unistd::write(&hold, b"x").expect("it waits");
            waitpid(child, None).expect("it ends");
        }
        (one, two)
    }

    #[test]
    fn e03_one_project_cannot_use_up_anothers_inotify_instances() {
        let limit: u64 = fs::read_to_string("/proc/sys/fs/inotify/max_user_instances")
            .map_or(0, |text| text.trim().parse().expect("a number"));
        let (_, most) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).expect("a limit");
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, most, most).expect("raises");
        assert!(limit > 0 && limit + 100 < most, "this machine cannot tell: {limit} instances, {most} descriptors");
        let (one, two) = (transient(FIRST).expect("makes"), transient(FIRST - PROJECT_IDS).expect("makes"));
        let (got_one, got_two) = hoard_one_after_the_other(&one, &two);
        assert_eq!((got_one as u64, got_two as u64), (limit, limit));
        // Positive control: the same ids, but root was the maker.
        let (one, two) = (made_by_root(FIRST), made_by_root(FIRST - PROJECT_IDS));
        let (got_one, got_two) = hoard_one_after_the_other(&one, &two);
        assert!(got_one > 0 && got_two == 0, "{got_one} and {got_two}: the kernel counts otherwise now");
    }

    fn made_by_root(first_id: u32) -> File {
        let mut holder =
            std::process::Command::new("unshare").args(["--user", "sleep", "60"]).spawn().expect("unshare");
        let file = |name: &str| format!("/proc/{}/{name}", holder.id());
        let ours = fs::read_link("/proc/self/ns/user").expect("ours");
        while fs::read_link(file("ns/user")).is_ok_and(|theirs| theirs == ours) {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        for map in ["uid_map", "gid_map"] {
            fs::write(file(map), format!("0 {first_id} {PROJECT_IDS}")).expect("maps");
        }
        let userns = File::open(file("ns/user")).expect("opens");
        holder.kill().and_then(|()| holder.wait()).expect("ends");
        userns
    }
}
