//! The writable layer as an image layer: overlay's marks become those of the OCI image spec
//! (`.wh.name`, `.wh..wh..opq`). What no layer may hold is refused by name.

use std::{
    ffi::CString,
    io::{self, Write},
    os::fd::OwnedFd,
};

use rustix::fs::FileType;

use super::{
    changes::is_furniture,
    lower::{Lower, is_opaque, is_whiteout},
    pack::Packer,
    root::Node,
    walk::Listing,
};

/// One thing a layer says.
enum Item<'a> {
    Entry(&'a Node),
    /// It, or what was below it, is gone.
    Mark,
}

/// Packs an upper directory. `lower` are the layers below it, topmost first.
///
/// # Errors
/// It cannot be read, or holds what no layer can.
pub(super) fn pack<W: Write>(packer: &mut Packer<'_, W>, upper: &OwnedFd, lower: Vec<OwnedFd>) -> io::Result<()> {
    walk(upper, lower, &mut |path, item| match item {
        Item::Entry(node) => packer.node(node, path),
        Item::Mark => packer.mark(path),
    })
}

/// Whether it can be packed, before the first byte is out.
///
/// # Errors
/// As for [`pack`].
pub(super) fn check(upper: &OwnedFd, lower: Vec<OwnedFd>) -> io::Result<()> {
    walk(upper, lower, &mut |_, _| Ok(()))
}

fn walk(
    upper: &OwnedFd,
    lower: Vec<OwnedFd>,
    tell: &mut dyn FnMut(&[u8], Item<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let lower = Lower::new(lower);
    let upper = Node::pin(upper.try_clone()?)?;
    let mut path = Vec::new();
    let mut above = vec![(Listing::new(upper.list()?, 0)?, 0)];
    while let Some((listing, length)) = above.last_mut() {
        path.truncate(*length);
        let Some(name) = listing.next()? else {
            above.pop();
            continue;
        };
        let Some(node) = Node::child(&listing.dir, &name)? else { continue };
        if is_whiteout(&node.stat) {
            path.extend_from_slice(b".wh.");
            path.extend_from_slice(name.to_bytes());
            tell(&path, Item::Mark)?;
            continue;
        }
        path.extend_from_slice(name.to_bytes());
        check_one(&path, name.to_bytes(), &node)?;
        if is_furniture(&[b"/", path.as_slice()].concat(), &node)? && !has(&lower, &path)? {
            continue;
        }
        if node.kind() != FileType::Directory {
            tell(&path, Item::Entry(&node))?;
            continue;
        }
        path.push(b'/');
        tell(&path, Item::Entry(&node))?;
        if is_opaque(&node) {
            tell(&[path.as_slice(), b".wh..wh..opq"].concat(), Item::Mark)?;
        }
        let below = Listing::new(node.list()?, above.len())?;
        above.push((below, path.len()));
    }
    Ok(())
}

fn check_one(path: &[u8], name: &[u8], node: &Node) -> io::Result<()> {
    let what = if name.starts_with(b".wh.") {
        "a file whose name begins with .wh."
    } else if matches!(node.kind(), FileType::BlockDevice | FileType::CharacterDevice) {
        "a device node"
    } else {
        return Ok(());
    };
    let shown: String = String::from_utf8_lossy(path).chars().take(200).collect();
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the container has {what}, which no image layer can hold: /{shown}"),
    ))
}

/// Whether the layers have a path.
fn has(lower: &Lower, path: &[u8]) -> io::Result<bool> {
    let mut inside = None::<Lower>;
    for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
        let name = CString::new(name)?;
        match inside.as_ref().unwrap_or(lower).child(&name)? {
            Some(below) => inside = Some(below.inside),
            None => return Ok(false),
        }
    }
    Ok(true)
}
