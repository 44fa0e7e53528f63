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

/// Packs an upper directory. `lower` are the layers below it, topmost first.
pub(super) fn pack<W: Write>(packer: &mut Packer<'_, W>, upper: OwnedFd, lower: Vec<OwnedFd>) -> io::Result<()> {
    let lower = Lower::new(lower);
    let upper = Node::pin(upper)?;
    let mut path = Vec::new();
    let mut above = vec![(Listing::new(upper.list()?, 0)?, 0)];
    while let Some((listing, length)) = above.last_mut() {
        let length = *length;
        path.truncate(length);
        let Some(name) = listing.next()? else {
            above.pop();
            continue;
        };
        let Some(node) = Node::child(&listing.dir, &name)? else { continue };
        if is_whiteout(&node.stat) {
            path.extend_from_slice(b".wh.");
            path.extend_from_slice(name.to_bytes());
            packer.mark(&path)?;
            continue;
        }
        path.extend_from_slice(name.to_bytes());
        check(&path, name.to_bytes(), &node)?;
        let rooted = [b"/", path.as_slice()].concat();
        if is_furniture(&rooted, &node)? && !has(&lower, &path)? {
            continue;
        }
        if node.kind() != FileType::Directory {
            packer.node(&node, &path)?;
            continue;
        }
        path.push(b'/');
        packer.node(&node, &path)?;
        if is_opaque(&node) {
            packer.mark(&[path.as_slice(), b".wh..wh..opq"].concat())?;
        }
        let below = Listing::new(node.list()?, above.len())?;
        above.push((below, path.len()));
    }
    Ok(())
}

fn check(path: &[u8], name: &[u8], node: &Node) -> io::Result<()> {
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
