//! Mounts by descriptor, through the kernel's newer calls: made or copied where nobody sees them,
//! restricted there, and attached to a place that is held open, so that no name decides where they go.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    path::Path,
};

use rustix::{
    fs::CWD,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
        fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
    },
};

/// A copy of what is mounted at, or lies at, a path of the host's.
pub(super) fn copy_of(path: &Path, with_what_is_below: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, with_what_is_below);
    Ok(open_tree(CWD, path, flags)?)
}

/// A copy of what lies at a place that is held open, alone.
pub(super) fn copy_at(place: &impl AsFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(open_tree(place, "", flags)?)
}

/// A file system of its own.
pub(super) fn new(
    kind: &str,
    source: &str,
    options: &[(String, Option<String>)],
    attributes: u64,
) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", source)?;
    for (name, value) in options {
        match value {
            Some(value) => fsconfig_set_string(&context, name.as_str(), value.as_str())?,
            None => fsconfig_set_flag(&context, name.as_str())?,
        }
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::from_bits_retain(u32::try_from(attributes).map_err(io::Error::other)?);
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Adds `MOUNT_ATTR_*` to a mount; what it has it keeps.
pub(super) fn restrict(mount: &OwnedFd, attributes: u64) -> io::Result<()> {
    change(mount, attributes, 0, libc::AT_EMPTY_PATH)
}

/// No mount made elsewhere appears below, and none made below appears elsewhere.
pub(super) fn make_private(mount: &OwnedFd) -> io::Result<()> {
    change(mount, 0, libc::MS_PRIVATE, libc::AT_EMPTY_PATH | libc::AT_RECURSIVE)
}

fn change(mount: &OwnedFd, attributes: u64, propagation: u64, flags: libc::c_int) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation, userns_fd: 0 };
    #[expect(unsafe_code, reason = "mount_setattr has no safe wrapper here")]
    // SAFETY: an empty path, and a structure of the size that is named.
    let got = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if got < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Puts a mount that is nowhere at a place that is held open.
pub(super) fn attach(mount: &OwnedFd, place: &impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", place, "", flags)?)
}

/// Puts a mount over this process's root, which stays what it is.
pub(super) fn attach_over_root(mount: &OwnedFd) -> io::Result<()> {
    Ok(move_mount(mount, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}
