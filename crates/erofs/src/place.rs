//! Where each node of a tree will be: its inode's offset, what stands behind the inode, and the blocks
//! of what does not fit there. Pure.

use std::io;

use crate::{BLOCK_BYTES, Kind, NodeId, Tree, encode};

/// Inodes begin at multiples of this; their number is how many of them are before.
pub(crate) const SLOT_BYTES: u64 = 32;
/// Numbers before the root's: no inode has the number 0, which readers of directories take for none.
const FIRST_SLOT: u64 = 2;

/// One node's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    /// Of the inode, from the first block of inodes on.
    pub(crate) offset: u64,
    /// The first block of a directory or link that has blocks of its own.
    pub(crate) block: u32,
    /// Whether it stands behind the inode instead.
    pub(crate) is_inline: bool,
    /// Names that lead to it.
    pub(crate) links: u32,
    pub(crate) number: u32,
}

/// All nodes'.
#[derive(Debug)]
pub(crate) struct Places {
    places: Vec<Place>,
    order: Vec<NodeId>,
    pub(crate) inodes_block: u32,
}

impl Places {
    /// Of every node that a directory names. Blocks begin at `first_block`.
    pub(crate) fn of(tree: &Tree, first_block: u32) -> io::Result<Self> {
        let mut all = Self { places: vec![Place::default(); tree.len()], order: Vec::new(), inodes_block: first_block };
        all.count(tree);
        let mut offset = FIRST_SLOT * SLOT_BYTES;
        for at in 0..all.order.len() {
            let id = all.order[at];
            let beside = encode::inode_bytes(tree, id) as u64;
            let content = encode::content_bytes(tree, id);
            let whole = beside + content as u64;
            let is_inline = content > 0 && whole <= BLOCK_BYTES as u64;
            let block_bytes = BLOCK_BYTES as u64;
            let together = if is_inline { whole } else { beside };
            if together <= block_bytes && offset % block_bytes + together > block_bytes {
                offset = offset.next_multiple_of(block_bytes);
            }
            let place = &mut all.places[id.index()];
            (place.offset, place.is_inline) = (offset, is_inline);
            place.number = u32::try_from(at + 1).map_err(io::Error::other)?;
            offset = (offset + together).next_multiple_of(SLOT_BYTES);
            if content > 0 && !is_inline {
                place.block = all.inodes_block;
                let blocks = u32::try_from(content.div_ceil(BLOCK_BYTES)).map_err(io::Error::other)?;
                let too_large = || io::Error::from(io::ErrorKind::FileTooLarge);
                all.inodes_block = all.inodes_block.checked_add(blocks).ok_or_else(too_large)?;
            }
        }
        Ok(all)
    }

    /// Every node once, those of one directory together.
    fn count(&mut self, tree: &Tree) {
        self.order.push(Tree::ROOT);
        self.places[Tree::ROOT.index()].links = 2;
        let mut next = 0;
        while let Some(id) = self.order.get(next).copied() {
            next += 1;
            let Kind::Directory { children, .. } = tree.kind(id) else { continue };
            for child in children.values() {
                if matches!(tree.kind(*child), Kind::Directory { .. }) {
                    self.places[id.index()].links += 1;
                    self.places[child.index()].links = 2;
                    self.order.push(*child);
                    continue;
                }
                self.places[child.index()].links += 1;
                if self.places[child.index()].links == 1 {
                    self.order.push(*child);
                }
            }
        }
    }

    pub(crate) fn order(&self) -> &[NodeId] {
        &self.order
    }

    pub(crate) fn place(&self, id: NodeId) -> Place {
        self.places[id.index()]
    }

    pub(crate) fn offset(&self, id: NodeId) -> u64 {
        self.place(id).offset
    }

    /// The inode's number as directories tell it.
    pub(crate) fn nid(&self, id: NodeId) -> u64 {
        self.offset(id) / SLOT_BYTES
    }
}
