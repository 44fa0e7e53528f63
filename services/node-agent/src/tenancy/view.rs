//! Directories as a project sees them: detached mounts whose ids are mapped, and the overlay that is
//! made of them. What a container writes as its root is written as root's on disk.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
    thread,
};

use nix::{libc, unistd};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_fd,
        fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
    },
};

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// A range for the probe that no project has: it is below the pool.
const PROBE_ID: u32 = 65_536;

/// A directory and what is below it, with the ids of `userns`. Not attached anywhere.
///
/// # Errors
/// The kernel's.
pub(super) fn of(dir: &Path, userns: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let tree = open_tree(CWD, dir, flags)?;
    map_ids(&tree, userns)?;
    Ok(tree)
}

/// All of a file system that is mounted nowhere, with the ids of `userns`. Not attached either.
///
/// # Errors
/// The kernel's.
pub(super) fn of_mount(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(mount, "", flags)?;
    map_ids(&tree, userns)?;
    Ok(tree)
}

pub(super) fn map_ids(tree: &OwnedFd, userns: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(userns.as_raw_fd()).unwrap_or(u64::MAX),
    };
    let here = c"".as_ptr();
    #[expect(unsafe_code, reason = "mount_setattr has no safe wrapper")]
    // SAFETY: both descriptors are open, the path is a terminated string, and the size is the struct's.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            here,
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// An overlay in the making.
pub(crate) struct Overlay<'a> {
    /// Topmost first, below `layers`.
    pub(crate) lower: Vec<OwnedFd>,
    /// Holds `upper` and `work`; both come from one mount, as overlay demands.
    pub(crate) writable: BorrowedFd<'a>,
    /// Nothing of it is needed after a power loss.
    pub(crate) volatile: bool,
    /// Layers are of several file systems, and what is inside is to be of one device.
    pub(crate) one_device: bool,
    /// What root of the container is outside.
    pub(crate) root_id: u32,
}

impl Overlay<'_> {
    /// Mounts it on a directory, `nodev`.
    ///
    /// # Errors
    /// In the kernel's words.
    pub(crate) fn mount(&self, on: &Path) -> io::Result<()> {
        // What is made while mounting is made as the container's root: the host's has no name in the
        // mapped directories. Credentials are a thread's own, so the change ends with a thread.
        thread::scope(|scope| scope.spawn(|| self.mount_as_root_of_container(on)).join())
            .unwrap_or_else(|_| Err(io::Error::other("the mounting thread died")))
    }

    fn mount_as_root_of_container(&self, on: &Path) -> io::Result<()> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let told = |e: rustix::io::Errno| io::Error::other(why(&context, e));
        for layer in &self.lower {
            fsconfig_set_fd(context.as_fd(), "lowerdir+", layer.as_fd()).map_err(told)?;
        }
        for (key, name) in [("upperdir", "upper"), ("workdir", "work")] {
            let dir = openat(self.writable, name, DIRECTORY, Mode::empty())?;
            fsconfig_set_fd(context.as_fd(), key, dir.as_fd()).map_err(told)?;
        }
        fsconfig_set_string(context.as_fd(), "source", "overlay").map_err(told)?;
        // Without redirects and metacopies the upper directory alone tells what was changed.
        for (key, value) in [("index", "off"), ("redirect_dir", "off"), ("metacopy", "off")] {
            fsconfig_set_string(context.as_fd(), key, value).map_err(told)?;
        }
        if self.volatile {
            fsconfig_set_flag(context.as_fd(), "volatile").map_err(told)?;
        }
        if self.one_device {
            fsconfig_set_string(context.as_fd(), "xino", "on").map_err(told)?;
        }
        become_user(self.root_id)?;
        fsconfig_create(context.as_fd()).map_err(told)?;
        let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)?;
        become_user(0)?;
        Ok(move_mount(&mount, "", CWD, on, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
    }
}

/// What the kernel says of a mount that failed, else the error's own name.
fn why(context: &OwnedFd, error: rustix::io::Errno) -> String {
    let mut text = [0; 512];
    let said = rustix::io::read(context, &mut text).ok().and_then(|n| std::str::from_utf8(text.get(..n)?).ok());
    said.map_or_else(|| error.to_string(), |said| format!("{}: {error}", said.trim()))
}

/// Files are made as `id` from here on, by this thread, and nothing is given up for it.
///
/// # Errors
/// The kernel's.
pub(crate) fn become_user(id: u32) -> io::Result<()> {
    // Keeps the capabilities when the user changes.
    const SECBIT_NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
    #[expect(unsafe_code, reason = "prctl")]
    // SAFETY: numbers only.
    let kept = unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) };
    if kept < 0 {
        return Err(io::Error::last_os_error());
    }
    unistd::setfsgid(id.into());
    unistd::setfsuid(id.into());
    Ok(())
}

/// Whether this kernel can do all of it on the file system of `place`, a directory of the probe's own:
/// mounts an overlay as containers have it and writes a file in it. Over `layer`, if there is one: it has
/// one file, `file`, which is written to then.
///
/// # Errors
/// What it cannot do.
pub(super) fn probe(place: &Path, layer: Option<BorrowedFd<'_>>) -> io::Result<()> {
    // An agent that was killed while it probed has left its mount.
    clear(place);
    let outcome = try_out(place, layer);
    clear(place);
    outcome
}

fn clear(place: &Path) {
    let _ = nix::mount::umount2(&place.join("merged"), nix::mount::MntFlags::MNT_DETACH);
    let _ = std::fs::remove_dir_all(place);
}

fn try_out(place: &Path, layer: Option<BorrowedFd<'_>>) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;

    let named = |what: &'static str| move |e: io::Error| io::Error::new(e.kind(), format!("{what}: {e}"));
    for name in ["lower", "upper", "work", "merged"] {
        std::fs::create_dir_all(place.join(name))?;
    }
    let userns = super::userns::transient(PROBE_ID).map_err(named("user namespaces"))?;
    let view = of(place, userns.as_fd()).map_err(named("idmapped mounts"))?;
    let lower = match layer {
        Some(layer) => of_mount(layer, userns.as_fd()).map_err(named("idmapped mounts of images"))?,
        None => openat(&view, "lower", DIRECTORY, Mode::empty())?,
    };
    let (lower, one_device) = (vec![lower], layer.is_some());
    let overlay = Overlay { lower, writable: view.as_fd(), volatile: false, one_device, root_id: PROBE_ID };
    let merged = place.join("merged");
    overlay.mount(&merged).map_err(named("overlay over idmapped mounts"))?;
    thread::scope(|scope| {
        let write = || {
            become_user(PROBE_ID)?;
            std::fs::write(merged.join("file"), "")
        };
        scope.spawn(write).join().unwrap_or_else(|_| Err(io::Error::other("the probing thread died")))
    })
    .map_err(named("writing through an idmapped overlay"))?;
    let (inside, on_disk) = (merged.join("file").metadata()?.uid(), place.join("upper/file").metadata()?.uid());
    if (inside, on_disk) == (PROBE_ID, 0) {
        Ok(())
    } else {
        Err(io::Error::other(format!("ids are not mapped: {inside} in the overlay is {on_disk} on disk")))
    }
}

/// Opens a directory of a view by its path below.
///
/// # Errors
/// The kernel's.
pub(super) fn open_below(view: BorrowedFd<'_>, base: &Path, path: &Path) -> io::Result<OwnedFd> {
    let inner = path.strip_prefix(base).map_err(io::Error::other)?;
    Ok(openat(view, inner, DIRECTORY, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_was_cut_short_is_cleared_by_the_next() {
        let dir = tempfile::tempdir().expect("tempdir");
        let place = dir.path().join("probe");
        try_out(&place, None).expect("this kernel can");
        assert!(place.join("merged/file").exists(), "left mounted, as by a killed agent");
        probe(&place, None).expect("probes again");
        assert!(!place.exists(), "nothing stays, mounted or not");
    }
}
