//! The file system of a container that does not run, with its volumes where a run would have them:
//! mounted in a mount namespace that only this visit has, so nothing of it is in the host's, a run that
//! begins meanwhile does not meet it, and it is gone with the visit or with this agent.

use std::{fs::File, io, os::fd::OwnedFd, path::Path, sync::Arc, thread};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    unistd::{chdir, pivot_root},
};
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::{owners::Owners, root::Root};
use crate::{rootfs::Visit, tenancy::become_user, volumes::Look};

/// Keeps a namespace, and volumes mounted, as long as the root is open.
#[derive(Debug)]
pub(super) struct Space {
    // Without it the kernel takes the namespace's mounts apart.
    _namespace: File,
    _look: Look,
}

/// Opens it. `root_id` is what root of the container is outside.
///
/// # Errors
/// In the kernel's words.
pub(super) fn open(owners: Owners, visit: Arc<Visit>, look: Look, root_id: u32) -> io::Result<Root> {
    // A namespace is a thread's own; this one is left by the end of the thread that made it.
    let entered = thread::scope(|scope| scope.spawn(|| enter(visit.rootfs(), &look, root_id)).join());
    let (dir, namespace) = entered.unwrap_or_else(|_| Err(io::Error::other("the mounting thread died")))?;
    Ok(Root::private(dir, owners, visit, Space { _namespace: namespace, _look: look }))
}

fn enter(rootfs: &Path, look: &Look, root_id: u32) -> io::Result<(OwnedFd, File)> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let everything = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, everything, None::<&str>)?;
    // Directories that are missing on the way are the container's root's.
    become_user(root_id)?;
    look.mount_under(rootfs)?;
    let namespace = File::open("/proc/thread-self/ns/mnt")?;
    // What else the host has mounted leaves the namespace: others' file systems must not be held by it.
    chdir(rootfs)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    let dir = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok((dir, namespace))
}
