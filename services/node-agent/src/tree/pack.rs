//! Packing what is below a descriptor into a tar, as dockerd names and orders it. Links are packed,
//! never followed; of devices, FIFOs and what a kernel file system holds only the header is told;
//! sockets, which a tar cannot hold, are left out.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use rustix::fs::{FileType, major, minor};
use tar::EntryType;

use super::{
    owners::Owners,
    root::Node,
    tar::{Entry, Writer},
    walk::Listing,
};

/// Bytes of names remembered to write a file's second name as a link; beyond it the file comes again.
const MAX_REMEMBERED_BYTES: usize = 32 << 20;
const CAPABILITY: &str = "security.capability";

/// Packs into one tar.
pub(crate) struct Packer<'a, W> {
    out: Writer<W>,
    owners: &'a Owners,
    /// The first name of each file that has several.
    names: HashMap<(u64, u64), Vec<u8>>,
    remembered_bytes: usize,
}

impl<'a, W: Write> Packer<'a, W> {
    pub(crate) fn new(out: W, owners: &'a Owners) -> Self {
        Self { out: Writer::new(out), owners, names: HashMap::new(), remembered_bytes: 0 }
    }

    /// A file, or a directory with all below it, under a name. dockerd calls the root `/`, and what is
    /// asked for by `path/.` it calls `.`.
    ///
    /// # Errors
    /// It cannot be read, or nobody takes it.
    pub(crate) fn resource(&mut self, node: Node, name: &[u8]) -> io::Result<()> {
        if node.kind() != FileType::Directory {
            return self.node(&node, name);
        }
        let prefix = if name == b"/" { b"".as_slice() } else { name };
        let top = [prefix, b"/"].concat();
        self.node(&node, &top)?;
        self.children(node, &top)
    }

    /// All below a directory; `prefix` ends with a slash or is empty.
    ///
    /// # Errors
    /// It cannot be read, or nobody takes it.
    pub(crate) fn children(&mut self, dir: Node, prefix: &[u8]) -> io::Result<()> {
        if !dir.is_open_directory() {
            return Ok(());
        }
        let mut path = prefix.to_vec();
        let mut above = vec![(Listing::new(dir.list()?, 0)?, path.len())];
        drop(dir);
        while let Some((listing, length)) = above.last_mut() {
            path.truncate(*length);
            let Some(name) = listing.next()? else {
                above.pop();
                continue;
            };
            let Some(node) = Node::child(&listing.dir, &name)? else { continue };
            path.extend_from_slice(name.to_bytes());
            if node.kind() == FileType::Directory {
                path.push(b'/');
            }
            self.node(&node, &path)?;
            if node.is_open_directory() {
                let below = Listing::new(node.list()?, above.len())?;
                above.push((below, path.len()));
            }
        }
        Ok(())
    }

    /// One entry.
    ///
    /// # Errors
    /// It cannot be read, or nobody takes it.
    pub(crate) fn node(&mut self, node: &Node, name: &[u8]) -> io::Result<()> {
        let stat = &node.stat;
        let mut entry = Entry {
            kind: EntryType::Regular,
            name,
            link: b"",
            size: 0,
            mode: stat.st_mode,
            owner: self.owners.inside(stat.st_uid, stat.st_gid),
            mtime_s: stat.st_mtime,
            device: (0, 0),
            xattrs: &[],
        };
        let directory = node.kind() == FileType::Directory;
        if !directory && stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.names.get(&key) {
                let (kind, link) = (EntryType::Link, first.as_slice());
                return self.out.entry(&Entry { kind, link, ..entry }, &mut io::empty());
            }
            if self.remembered_bytes < MAX_REMEMBERED_BYTES {
                self.remembered_bytes += name.len() + 64;
                self.names.insert(key, name.to_vec());
            }
        }
        match node.kind() {
            FileType::RegularFile if node.admitted => return self.file(node, entry),
            FileType::Directory => entry.kind = EntryType::Directory,
            FileType::Symlink => {
                let target = node.link()?;
                let link = Entry { kind: EntryType::Symlink, link: &target, ..entry };
                return self.out.entry(&link, &mut io::empty());
            }
            FileType::Fifo => entry.kind = EntryType::Fifo,
            FileType::CharacterDevice => entry.kind = EntryType::Char,
            FileType::BlockDevice => entry.kind = EntryType::Block,
            FileType::RegularFile | FileType::Socket | FileType::Unknown => return Ok(()),
        }
        entry.device = (major(stat.st_rdev), minor(stat.st_rdev));
        self.out.entry(&entry, &mut io::empty())
    }

    /// A mark of an image layer.
    ///
    /// # Errors
    /// Nobody takes it.
    pub(super) fn mark(&mut self, name: &[u8]) -> io::Result<()> {
        self.out.entry(&Entry::mark(name), &mut io::empty())
    }

    /// The end of the tar.
    ///
    /// # Errors
    /// Nobody takes it.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.out.finish()
    }

    fn file(&mut self, node: &Node, entry: Entry<'_>) -> io::Result<()> {
        let mut file = node.read()?;
        let size = u64::try_from(node.stat.st_size).unwrap_or(0);
        let capability = node.attribute(CAPABILITY).map(|value| (CAPABILITY, value));
        let xattrs: Vec<_> = capability.into_iter().collect();
        self.out.entry(&Entry { size, xattrs: &xattrs, ..entry }, &mut file)
    }
}
