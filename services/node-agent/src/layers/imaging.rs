//! Making the entries of a layer in an image: the same rules as for a directory (`place.rs`), held over a
//! tree in memory instead of the kernel's. Links are followed inside the root, `..` ends at it, and no
//! name of an archive reaches a system call. The kernel is shown the image that is written here, never
//! a byte of the archive as a file system.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use erofs::{Attributes, Image, Kind as NodeKind, Made, NAME_BYTES_MAX, NodeId, Tree};

use super::{
    archive::{Archive, Entry, Kind},
    decode::refuse,
    place::{hidden_by, kept_xattrs, outside, parts, refuse_overlay_xattrs},
};

/// As the kernel counts them on one path.
const MAX_LINKS: usize = 40;
const OPAQUE: &str = "trusted.overlay.opaque";

/// The tree of a layer takes more memory than one may.
#[derive(Debug, thiserror::Error)]
#[error("the tree of a layer takes more than {0} bytes")]
pub(crate) struct TreeTooLarge(u64);

/// Makes entries in an image.
pub(super) struct Imager {
    image: Image,
    tree: Tree,
    tree_bytes_max: u64,
    /// The parent of the last entry: archives list a directory's files together.
    last: Option<(Vec<u8>, NodeId)>,
    /// What no entry tells a time for has today's.
    now: (i64, u32),
}

/// Why a path leads to no directory.
enum Unresolved {
    Missing,
    No(&'static str),
}

impl Imager {
    /// Begins an image in a new file.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn begin(file: &Path, tree_bytes_max: u64) -> io::Result<Self> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = (i64::try_from(since.as_secs()).unwrap_or_default(), since.subsec_nanos());
        let tree = Tree::new(Attributes { mode: 0o755, mtime: now, ..Attributes::default() });
        Ok(Self { image: Image::begin(File::create_new(file)?)?, tree, tree_bytes_max, last: None, now })
    }

    /// Makes one entry; a file's content comes from the archive.
    ///
    /// # Errors
    /// The entry is refused, with its name; the archive ends; the disk is full; the tree is too large.
    pub(super) fn place<R: Read>(&mut self, entry: &Entry, archive: &mut Archive<R>) -> io::Result<()> {
        if self.tree.bytes() as u64 > self.tree_bytes_max {
            return Err(io::Error::other(TreeTooLarge(self.tree_bytes_max)));
        }
        let path = parts(&entry.path, entry, true)?;
        let Some((name, parent)) = path.split_last() else {
            return match entry.kind {
                Kind::Directory => self.dress(Tree::ROOT, entry),
                Kind::File | Kind::Symlink | Kind::Hardlink | Kind::Fifo | Kind::Device => Err(outside(entry)),
            };
        };
        if entry.kind == Kind::Device {
            return Err(refuse(format!("contains a device node: {}", entry.shown())));
        }
        let parent = self.enter(parent, entry)?;
        if let Some(hidden) = hidden_by(name) {
            return self.whiteout(parent, hidden, entry);
        }
        let existing = self.tree.child(parent, name);
        let is_directory = |node| matches!(self.tree.kind(node), NodeKind::Directory { .. });
        if let Some(node) = existing.filter(|node| entry.kind == Kind::Directory && is_directory(*node)) {
            return self.dress(node, entry);
        }
        self.tree.unlink(parent, name);
        let made = match entry.kind {
            Kind::File => Made::File(self.image.content(&mut Body(archive), entry.size)?),
            Kind::Directory => Made::Directory,
            Kind::Symlink => Made::Symlink(target(entry)?),
            Kind::Fifo => Made::Fifo,
            Kind::Hardlink => return self.hardlink(parent, name, entry),
            Kind::Device => return Err(outside(entry)),
        };
        let attributes = attributes(entry)?;
        self.tree.add(parent, name, made, attributes).map_err(|e| cannot_be_made(entry, &e)).map(drop)
    }

    /// Writes the rest. `uuid` tells the image from others.
    ///
    /// # Errors
    /// The disk is full.
    pub(super) fn finish(self, uuid: [u8; 16]) -> io::Result<()> {
        self.image.finish(&self.tree, uuid).map(drop)
    }

    /// The directory of that path; what is missing of it is made.
    fn enter(&mut self, parent: &[&[u8]], entry: &Entry) -> io::Result<NodeId> {
        let path = parent.join(&b'/');
        if let Some((last, node)) = &self.last
            && *last == path
        {
            return Ok(*node);
        }
        self.last = None;
        let mut above = Tree::ROOT;
        for depth in 1..=parent.len() {
            above = match self.resolve(&parent[..depth]) {
                Ok(node) => node,
                Err(Unresolved::No(why)) => return Err(cannot_be_made(entry, &why)),
                // A dangling link in the way is an error, not followed to a place that would have to be
                // made up.
                Err(Unresolved::Missing) if self.tree.child(above, parent[depth - 1]).is_some() => {
                    return Err(refuse(format!("has an entry below a link to nowhere: {}", entry.shown())));
                }
                Err(Unresolved::Missing) => {
                    let attributes = Attributes { mode: 0o755, mtime: self.now, ..Attributes::default() };
                    let made = self.tree.add(above, parent[depth - 1], Made::Directory, attributes);
                    made.map_err(|e| cannot_be_made(entry, &e))?
                }
            };
        }
        if !parent.is_empty() {
            self.last = Some((path, above));
        }
        Ok(above)
    }

    /// The directory a path leads to, as `openat2` with `RESOLVE_IN_ROOT` would find it.
    fn resolve(&self, path: &[&[u8]]) -> Result<NodeId, Unresolved> {
        let (mut at, mut links) = (Tree::ROOT, 0);
        let mut ahead: Vec<&[u8]> = path.iter().rev().copied().collect();
        while let Some(name) = ahead.pop() {
            if name.len() > NAME_BYTES_MAX {
                return Err(Unresolved::No("File name too long"));
            }
            let NodeKind::Directory { parent, .. } = self.tree.kind(at) else {
                return Err(Unresolved::No("Not a directory"));
            };
            match name {
                b"" | b"." => continue,
                b".." => {
                    at = *parent;
                    continue;
                }
                _ => {}
            }
            let child = self.tree.child(at, name).ok_or(Unresolved::Missing)?;
            match self.tree.kind(child) {
                NodeKind::Directory { .. } => at = child,
                NodeKind::Symlink(to) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Unresolved::No("Too many levels of symbolic links"));
                    }
                    if to.starts_with(b"/") {
                        at = Tree::ROOT;
                    }
                    ahead.extend(to.rsplit(|b| *b == b'/'));
                }
                NodeKind::File(_) | NodeKind::Fifo | NodeKind::Whiteout => {
                    return Err(Unresolved::No("Not a directory"));
                }
            }
        }
        Ok(at)
    }

    /// The target is a path from the root, whatever the link's own place, and never a directory.
    fn hardlink(&mut self, parent: NodeId, name: &[u8], entry: &Entry) -> io::Result<()> {
        let target = parts(&entry.link, entry, true)?;
        let (target_name, target_parent) = target.split_last().ok_or_else(|| outside(entry))?;
        let dir = self.resolve(target_parent).map_err(|e| match e {
            Unresolved::Missing => cannot_be_made(entry, &"No such file or directory"),
            Unresolved::No(why) => cannot_be_made(entry, &why),
        })?;
        let node = self.tree.child(dir, target_name);
        let node = node.ok_or_else(|| cannot_be_made(entry, &"No such file or directory"))?;
        if matches!(self.tree.kind(node), NodeKind::Directory { .. }) {
            return Err(cannot_be_made(entry, &"Operation not permitted"));
        }
        self.tree.link(parent, name, node).map_err(|e| cannot_be_made(entry, &e))
    }

    /// OCI whiteouts become overlay's own.
    fn whiteout(&mut self, parent: NodeId, hidden: &[u8], entry: &Entry) -> io::Result<()> {
        if hidden == b".wh..opq" {
            let opaque = self.tree.change(parent, |has| {
                has.xattrs.insert(OPAQUE.into(), b"y".as_slice().into());
            });
            return opaque.map_err(|e| cannot_be_made(entry, &e));
        }
        if hidden.starts_with(b".wh.") {
            // Leftovers of aufs, which mean nothing.
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(outside(entry));
        }
        self.tree.unlink(parent, hidden);
        let attributes = Attributes { mtime: self.now, ..Attributes::default() };
        let made = self.tree.add(parent, hidden, Made::Whiteout, attributes);
        made.map_err(|e| cannot_be_made(entry, &e)).map(drop)
    }

    /// Owner, mode, time and attributes of a directory that exists.
    fn dress(&mut self, node: NodeId, entry: &Entry) -> io::Result<()> {
        let Attributes { mode, uid, gid, mtime, xattrs } = attributes(entry)?;
        let dressed = self.tree.change(node, |has| {
            (has.mode, has.uid, has.gid, has.mtime) = (mode, uid, gid, mtime);
            has.xattrs.extend(xattrs);
        });
        dressed.map_err(|e| cannot_be_made(entry, &e))
    }
}

/// The current entry's content.
struct Body<'a, R>(&'a mut Archive<R>);

impl<R: Read> Read for Body<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_body(buf)
    }
}

fn attributes(entry: &Entry) -> io::Result<Attributes> {
    let mode = u16::try_from(entry.mode & 0o7777).unwrap_or_default();
    let mut all = Attributes { mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime, ..Attributes::default() };
    match entry.kind {
        Kind::File | Kind::Directory => {
            refuse_overlay_xattrs(entry)?;
            all.xattrs = kept_xattrs(entry).map(|(name, value)| (name.into(), value.into())).collect();
        }
        Kind::Symlink => {
            refuse_overlay_xattrs(entry)?;
            all.mode = 0o777;
        }
        Kind::Fifo | Kind::Hardlink | Kind::Device => {}
    }
    Ok(all)
}

fn target(entry: &Entry) -> io::Result<Box<[u8]>> {
    if entry.link.is_empty() || entry.link.contains(&0) {
        return Err(cannot_be_made(entry, &"it leads nowhere"));
    }
    Ok(entry.link.as_slice().into())
}

fn cannot_be_made(entry: &Entry, why: &dyn std::fmt::Display) -> io::Error {
    refuse(format!("has an entry that cannot be made: {}: {why}", entry.shown()))
}
