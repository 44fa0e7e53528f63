//! Network namespaces and the files they are mounted on. A namespace is dropped by unmounting its
//! file: the kernel then takes its end of the pair, and with it ours, without the lock that
//! deleting a link would hold for many milliseconds.

use std::{
    cell::Cell,
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    },
    path::Path,
};

use model::ContainerId;
use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, clone, setns, unshare},
    sys::{
        stat::Mode,
        statfs::{NSFS_MAGIC, TMPFS_MAGIC, statfs},
        wait::waitpid,
    },
};

use super::{
    error::{Doing as _, KernelError, Result},
    links,
    netlink::Netlink,
    sysctl,
};

/// The calling thread's namespace, by thread: other threads may be elsewhere.
const OWN: &str = "/proc/thread-self/ns/net";
/// For a few system calls.
const CHILD_STACK_BYTES: usize = 64 * 1024;

/// A namespace that was just made.
pub(super) struct NewNamespace {
    /// Holds it, and names it in netlink messages.
    pub(super) handle: File,
    /// A socket inside it.
    pub(super) netlink: Netlink,
}

/// A handle on the namespace the calling thread is in.
pub(super) fn current() -> Result<File> {
    File::open(OWN).doing(|| "opening the network namespace".to_owned())
}

/// Makes a namespace with `lo` up, owned by the user namespace `owner` or by the host. The thread
/// visits it and is back in `host` afterwards. Nothing but the handles keeps it until it is mounted.
pub(super) fn make(host: &File, owner: Option<&File>) -> Result<NewNamespace> {
    let what = || "making a network namespace".to_owned();
    match owner {
        None => unshare(CloneFlags::CLONE_NEWNET).doing(what)?,
        Some(owner) => setns(born_in(owner).doing(what)?, CloneFlags::CLONE_NEWNET).doing(what)?,
    }
    let inside = || {
        // What is born here later has no IPv6; `lo` keeps its ::1, which programs expect.
        sysctl::set_if_there("net/ipv6/conf/default/disable_ipv6", "1")?;
        Ok(NewNamespace { handle: current()?, netlink: Netlink::open()? })
    };
    let made = inside();
    return_to(host);
    let mut namespace: NewNamespace = made?;
    namespace.netlink.run_one(links::lo_up())?;
    Ok(namespace)
}

/// A new network namespace that belongs to the user namespace `owner`. Only a process inside makes
/// such a one, and a thread cannot go there: a child that shares our memory and descriptors does, as
/// `vfork` has it, and leaves the handle in our table.
fn born_in(owner: &File) -> nix::Result<OwnedFd> {
    let mut stack = vec![0; CHILD_STACK_BYTES];
    let born = Cell::new(Err(Errno::ECHILD));
    let inside = || -> nix::Result<OwnedFd> {
        setns(owner, CloneFlags::CLONE_NEWUSER)?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        open(OWN, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
    };
    let child = Box::new(|| {
        born.set(inside());
        0
    });
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK | CloneFlags::CLONE_FILES;
    #[expect(unsafe_code, reason = "clone")]
    // SAFETY: this thread waits until the child has exited, and everything the child touches outlives
    // it. The child makes three system calls on a stack of its own and allocates nothing.
    let pid = unsafe { clone(child, &mut stack, flags, Some(libc::SIGCHLD)) }?;
    waitpid(pid, None)?;
    born.into_inner()
}

/// Mounts a namespace on `path`, which is made for it.
pub(super) fn mount_on(namespace: &NewNamespace, path: &Path) -> Result<()> {
    let new = OpenOptions::new().write(true).create_new(true).mode(0o400).open(path);
    new.doing(|| format!("creating {}", path.display()))?;
    let (source, none) = (format!("/proc/thread-self/fd/{}", namespace.handle.as_raw_fd()), None::<&str>);
    let mounted = mount(Some(source.as_str()), path, none, MsFlags::MS_BIND, none);
    if mounted.is_err() {
        remove(path)?;
    }
    mounted.doing(|| format!("mounting {}", path.display()))
}

/// The namespace mounted on `path`.
pub(super) fn mounted(host: &File, path: &Path) -> Result<NewNamespace> {
    let handle = File::open(path).doing(|| format!("opening {}", path.display()))?;
    let netlink = inside(host, &handle, Netlink::open)?;
    Ok(NewNamespace { handle, netlink })
}

/// Runs `work` inside a namespace. The calling thread belongs in `host`.
pub(crate) fn inside<T>(host: &File, namespace: &File, work: impl FnOnce() -> Result<T>) -> Result<T> {
    setns(namespace, CloneFlags::CLONE_NEWNET).doing(|| "entering a network namespace".to_owned())?;
    let done = work();
    return_to(host);
    done
}

/// A thread that stayed in a container's namespace would go on to make links there: better to die
/// and be restarted.
fn return_to(host: &File) {
    if let Err(error) = setns(host, CloneFlags::CLONE_NEWNET) {
        tracing::error!(%error, "cannot return to the host's network namespace");
        std::process::abort();
    }
}

/// Unmounts a namespace and removes its file. Nothing there is fine.
pub(super) fn remove(path: &Path) -> Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::Error::ENOENT | nix::Error::EINVAL) => {}
        Err(e) => return Err(KernelError::new(format!("unmounting {}", path.display()), e)),
    }
    // Also drops the copies of the mount that other mount namespaces hold.
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::new(format!("removing {}", path.display()), e))
        }
        _ => Ok(()),
    }
}

/// The containers that have a file here, and whether a namespace is mounted on it.
pub(super) fn list(dir: &Path) -> Result<Vec<(ContainerId, bool)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(KernelError::new(format!("reading {}", dir.display()), e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.doing(|| format!("reading {}", dir.display()))?;
        let Ok(container) = entry.file_name().to_string_lossy().parse::<ContainerId>() else { continue };
        let mounted = statfs(&entry.path()).is_ok_and(|s| s.filesystem_type() == NSFS_MAGIC);
        found.push((container, mounted));
    }
    Ok(found)
}

/// Makes the directory for the files, a file system in memory: on a disk, making and removing a file
/// costs as much as the pair of links does. Only root may look: a namespace's file is a door into it.
pub(super) fn make_dir(dir: &Path) -> Result<()> {
    let what = || format!("creating {}", dir.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).doing(what)?;
    let there = statfs(dir).doing(what)?;
    if there.filesystem_type() == TMPFS_MAGIC {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("wharfage-netns"), dir, Some("tmpfs"), flags, Some("mode=0700,size=1m")).doing(what)
}

/// Drops every namespace and the directory.
pub(super) fn remove_all(dir: &Path) -> Result<()> {
    let mut result = Ok(());
    for (container, _) in list(dir)? {
        result = result.and(remove(&dir.join(container.as_str())));
    }
    match umount2(dir, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::Error::ENOENT | nix::Error::EINVAL) => {}
        Err(e) => return result.and(Err(KernelError::new(format!("unmounting {}", dir.display()), e))),
    }
    match fs::remove_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            result.and(Err(KernelError::new(format!("removing {}", dir.display()), e)))
        }
        _ => result,
    }
}
