//! Nodes as bytes, little-endian. The kernel's `fs/erofs/erofs_fs.h` is what they have to be.

use crate::{
    BLOCK_BYTES, Kind, NodeId, Tree,
    place::{Places, SLOT_BYTES},
};

/// Where the superblock is.
pub(crate) const SUPERBLOCK_AT: u64 = 1024;
const MAGIC: u32 = 0xE0F5_E1E2;
/// Inodes have times of their own.
const COMPAT_MTIME: u32 = 0x2;

const INODE_BYTES: usize = 64;
const IS_EXTENDED: u16 = 1;
const FLAT_PLAIN: u16 = 0;
const FLAT_INLINE: u16 = 2 << 1;

const DIRENT_BYTES: usize = 12;
const XATTR_HEADER_BYTES: usize = 12;
const XATTR_ALIGN: usize = 4;

/// Types as `st_mode` and as directories tell them.
fn types(kind: &Kind) -> (u16, u8) {
    match kind {
        Kind::File(_) => (0o100_000, 1),
        Kind::Directory { .. } => (0o040_000, 2),
        Kind::Whiteout => (0o020_000, 3),
        Kind::Fifo => (0o010_000, 5),
        Kind::Symlink(_) => (0o120_000, 7),
    }
}

/// The number of a name's prefix, and the rest of it; `None` if there is none for it.
pub(crate) fn xattr_name(name: &str) -> Option<(u8, &str)> {
    let (index, rest) = [("user.", 1), ("trusted.", 4), ("security.", 6)]
        .into_iter()
        .find_map(|(prefix, index)| Some((index, name.strip_prefix(prefix)?)))?;
    (1..=255).contains(&rest.len()).then_some((index, rest))
}

/// Bytes of a directory's entries or a link's target; of nothing else there are any to place.
pub(crate) fn content_bytes(tree: &Tree, id: NodeId) -> usize {
    match tree.kind(id) {
        Kind::Directory { .. } => {
            let blocks = entries_by_block(tree, id);
            let last = blocks.last().map_or(0, |block| block_bytes(block));
            blocks.len().saturating_sub(1) * BLOCK_BYTES + last
        }
        Kind::Symlink(to) => to.len(),
        Kind::File(_) | Kind::Fifo | Kind::Whiteout => 0,
    }
}

/// Bytes of the inode with its attributes.
pub(crate) fn inode_bytes(tree: &Tree, id: NodeId) -> usize {
    INODE_BYTES + xattrs(tree, id).len()
}

/// What stands in blocks of its own; nothing if it stands behind the inode.
pub(crate) fn blocks(tree: &Tree, id: NodeId, places: &Places) -> Vec<u8> {
    if places.place(id).is_inline { Vec::new() } else { content(tree, id, places) }
}

/// The inode with what stands behind it.
pub(crate) fn inode(tree: &Tree, id: NodeId, places: &Places) -> Vec<u8> {
    let (node, place) = (tree.node(id), places.place(id));
    let xattrs = xattrs(tree, id);
    let (size, at) = match &node.kind {
        Kind::File(content) => (content.bytes, content.block),
        Kind::Directory { .. } | Kind::Symlink(_) => (content_bytes(tree, id) as u64, place.block),
        // The device is 0:0.
        Kind::Fifo | Kind::Whiteout => (0, 0),
    };
    let layout = if place.is_inline { FLAT_INLINE } else { FLAT_PLAIN };
    let attributes = &node.attributes;
    let mut out = Vec::with_capacity(INODE_BYTES + xattrs.len());
    out.extend((IS_EXTENDED | layout).to_le_bytes());
    out.extend(xattr_count(xattrs.len()).to_le_bytes());
    out.extend((types(&node.kind).0 | attributes.mode & 0o7777).to_le_bytes());
    out.extend([0; 2]);
    out.extend(size.to_le_bytes());
    out.extend(at.to_le_bytes());
    out.extend(place.number.to_le_bytes());
    out.extend(attributes.uid.to_le_bytes());
    out.extend(attributes.gid.to_le_bytes());
    out.extend(attributes.mtime.0.to_le_bytes());
    out.extend(attributes.mtime.1.to_le_bytes());
    out.extend(place.links.to_le_bytes());
    out.resize(INODE_BYTES, 0);
    out.extend(xattrs);
    if place.is_inline {
        out.extend(content(tree, id, places));
    }
    out
}

/// The superblock, which is written last.
pub(crate) fn superblock(places: &Places, blocks: u32, uuid: [u8; 16]) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend(MAGIC.to_le_bytes());
    // No checksum: whoever mounts it knows that the file is whole.
    out.extend(0_u32.to_le_bytes());
    out.extend(COMPAT_MTIME.to_le_bytes());
    out.push(BLOCK_BYTES.ilog2().to_le_bytes()[0]);
    out.push(0);
    let root = places.nid(Tree::ROOT).to_le_bytes();
    out.extend(&root[..2]);
    out.extend((places.order().len() as u64).to_le_bytes());
    out.extend([0; 12]);
    out.extend(blocks.to_le_bytes());
    out.extend(places.inodes_block.to_le_bytes());
    out.extend(0_u32.to_le_bytes());
    out.extend(uuid);
    out.resize(128, 0);
    out
}

fn content(tree: &Tree, id: NodeId, places: &Places) -> Vec<u8> {
    match tree.kind(id) {
        Kind::Directory { .. } => directory(tree, id, places),
        Kind::Symlink(to) => to.to_vec(),
        Kind::File(_) | Kind::Fifo | Kind::Whiteout => Vec::new(),
    }
}

type DirectoryEntry<'a> = (&'a [u8], NodeId);

/// In order of their bytes, `.` and `..` too: the kernel looks a name up by halving.
fn entries_by_block(tree: &Tree, id: NodeId) -> Vec<Vec<DirectoryEntry<'_>>> {
    let Kind::Directory { children, parent } = tree.kind(id) else { return Vec::new() };
    let own: [DirectoryEntry<'_>; 2] = [(b".", id), (b"..", *parent)];
    let mut entries: Vec<DirectoryEntry<'_>> =
        own.into_iter().chain(children.iter().map(|(name, node)| (&**name, *node))).collect();
    entries.sort_unstable_by_key(|(name, _)| *name);
    let (mut blocks, mut bytes): (Vec<Vec<DirectoryEntry<'_>>>, usize) = (vec![Vec::new()], 0);
    for entry in entries {
        let takes = DIRENT_BYTES + entry.0.len();
        if bytes + takes > BLOCK_BYTES {
            blocks.push(Vec::new());
            bytes = 0;
        }
        bytes += takes;
        if let Some(block) = blocks.last_mut() {
            block.push(entry);
        }
    }
    blocks
}

fn block_bytes(entries: &[DirectoryEntry<'_>]) -> usize {
    entries.iter().map(|(name, _)| DIRENT_BYTES + name.len()).sum()
}

/// Blocks of entries, each with its names behind them; the last one is as long as it needs to be.
fn directory(tree: &Tree, id: NodeId, places: &Places) -> Vec<u8> {
    let mut out = Vec::new();
    for entries in entries_by_block(tree, id) {
        out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
        let mut name_at = entries.len() * DIRENT_BYTES;
        for (name, node) in &entries {
            out.extend(places.nid(*node).to_le_bytes());
            out.extend(&name_at.to_le_bytes()[..2]);
            out.push(types(tree.kind(*node)).1);
            out.push(0);
            name_at += name.len();
        }
        entries.iter().for_each(|(name, _)| out.extend(*name));
    }
    out
}

fn xattrs(tree: &Tree, id: NodeId) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in &tree.node(id).attributes.xattrs {
        let Some((index, rest)) = xattr_name(name) else { continue };
        if out.is_empty() {
            out.resize(XATTR_HEADER_BYTES, 0);
        }
        out.push(rest.len().to_le_bytes()[0]);
        out.push(index);
        out.extend(&value.len().to_le_bytes()[..2]);
        out.extend(rest.as_bytes());
        out.extend(&**value);
        out.resize(out.len().next_multiple_of(XATTR_ALIGN), 0);
    }
    out
}

/// As an inode tells how many bytes of attributes follow.
fn xattr_count(bytes: usize) -> u16 {
    if bytes == 0 {
        return 0;
    }
    u16::try_from((bytes - XATTR_HEADER_BYTES) / XATTR_ALIGN + 1).unwrap_or(u16::MAX)
}

const _: () = assert!((INODE_BYTES as u64).is_multiple_of(SLOT_BYTES), "a short inode fills slots");
