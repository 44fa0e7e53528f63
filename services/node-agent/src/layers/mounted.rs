//! Layers that are images: mounted read-only and nowhere, held by a descriptor. No mount is left behind by
//! an agent that dies; what runs keeps what it has, and the next agent mounts again. One mount serves all
//! projects and containers, so that what they read of it is in memory once.

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use erofs::{Attributes, Image, Made, Tree};
use rustix::{
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount,
        fsopen,
    },
};

/// Mounts an image.
///
/// # Errors
/// In the kernel's words.
pub(super) fn mount(image: &Path) -> io::Result<OwnedFd> {
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", image)?;
    fsconfig_set_flag(context.as_fd(), "ro")?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Whether the kernel's answer to a mount means that the file is no image.
pub(super) fn is_broken(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::UCLEAN | Errno::IO))
}

/// An image with one file, `file`, for trying out what a kernel can do.
///
/// # Errors
/// It cannot be written.
pub(super) fn write_trial(at: &Path) -> io::Result<()> {
    let mut image = Image::begin(File::create(at)?)?;
    let mut tree = Tree::new(Attributes { mode: 0o755, ..Attributes::default() });
    let content = image.content(&mut &b"content"[..], 7)?;
    let attributes = Attributes { mode: 0o644, ..Attributes::default() };
    tree.add(Tree::ROOT, b"file", Made::File(content), attributes)?;
    image.finish(&tree, chassis::ids::random_bytes()).map(drop)
}
