//! Writing an EROFS image: a read-only file system in one file, which Linux mounts as it is. Owns the
//! on-disk format, as far as it is needed here: plain contents, extended inodes, attributes beside them,
//! no compression, blocks of 4096 bytes. Knows nothing of archives or paths.
//!
//! ```text
//! block 0         superblock at byte 1024
//! block 1 ..      contents of files, in the order in which they came, each from a block's start
//! block d ..      directories and links that are too long to stand beside their inode
//! block m ..      inodes; each with its attributes and, if short, its directory or link behind it
//! ```
//!
//! Contents are written as they come, everything else is a [`Tree`] in memory until [`Image::finish`]:
//! where a file's inode will be is known only then. Before that there is no superblock, and the file is
//! no image. The same calls give the same bytes.

mod encode;
mod image;
mod place;
mod tree;

pub use image::{Content, Image};
pub use tree::{Attributes, Kind, Made, NodeId, Tree};

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 4096;
/// Bytes of a name in a directory.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of all attributes of one file with their names.
pub const XATTR_BYTES_MAX: usize = 64 << 10;
