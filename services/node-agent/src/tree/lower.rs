//! What an image's layers show at a directory, without mounting them: the layers' own directories of
//! that name, topmost first, down to the one that hides the rest.

use std::{
    collections::HashSet,
    ffi::{CStr, CString},
    io,
    os::fd::OwnedFd,
};

use rustix::fs::{AtFlags, FileType, Stat, statat};

use super::{root::Node, walk::Listing};

/// One merged directory of the layers.
#[derive(Debug, Default)]
pub(super) struct Lower(Vec<OwnedFd>);

/// What the layers have under a name.
pub(super) struct Below {
    pub(super) node: Node,
    /// If it is a directory: itself, merged.
    pub(super) inside: Lower,
}

impl Lower {
    /// The roots of the layers, topmost first.
    pub(super) fn new(roots: Vec<OwnedFd>) -> Self {
        Self(roots)
    }

    pub(super) fn descriptors(&self) -> usize {
        self.0.len()
    }

    /// What is under a name; `None` if nothing is.
    pub(super) fn child(&self, name: &CStr) -> io::Result<Option<Below>> {
        let mut found: Option<Node> = None;
        let mut inside = Vec::new();
        for dir in &self.0 {
            let Some(node) = Node::child(dir, name)? else { continue };
            if is_whiteout(&node.stat) {
                break;
            }
            if node.kind() != FileType::Directory {
                if found.is_none() {
                    found = Some(node);
                }
                break;
            }
            let opaque = is_opaque(&node);
            inside.push(node.list()?);
            found.get_or_insert(node);
            if opaque {
                break;
            }
        }
        Ok(found.map(|node| Below { node, inside: Self(inside) }))
    }

    /// Every name, sorted; at most so many bytes of them.
    pub(super) fn names(&self, mut budget_bytes: usize) -> io::Result<Vec<CString>> {
        let (mut names, mut hidden) = (Vec::new(), HashSet::new());
        for dir in &self.0 {
            let mut listing = Listing::new(rustix::io::fcntl_dupfd_cloexec(dir, 0)?, 0)?;
            rustix::fs::seek(&listing.dir, rustix::fs::SeekFrom::Start(0))?;
            while let Some(name) = listing.next()? {
                let whiteout = is_whiteout(&statat(&listing.dir, &name, AtFlags::SYMLINK_NOFOLLOW)?);
                budget_bytes = budget_bytes.checked_sub(name.as_bytes().len() + 64).ok_or_else(too_many)?;
                if hidden.insert(name.clone()) && !whiteout {
                    names.push(name);
                }
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

/// Too much has changed to be told at once.
pub(super) fn too_many() -> io::Error {
    io::Error::other("too many changes to tell")
}

/// Overlay's mark for what is gone: a character device 0:0.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Overlay's mark for a directory that hides those below.
pub(super) fn is_opaque(node: &Node) -> bool {
    node.attribute("trusted.overlay.opaque").is_some_and(|value| value == b"y")
}
