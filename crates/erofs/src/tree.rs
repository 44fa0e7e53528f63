//! What an image is to hold, while it is being put together: nodes by number, directories by name. A
//! node that no directory names any more is not written.

use std::{collections::BTreeMap, io};

use crate::{Content, NAME_BYTES_MAX, XATTR_BYTES_MAX};

/// Names a node of one tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeId(u32);

impl NodeId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What every node has.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    /// Permissions with the set-id and sticky bits; not the type.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When it was changed: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes by full name: `user.`, `trusted.` and `security.` ones.
    pub xattrs: BTreeMap<Box<str>, Box<[u8]>>,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Its names, and the directory it is in.
    Directory {
        /// The nodes in it.
        children: BTreeMap<Box<[u8]>, NodeId>,
        /// Where `..` leads; the root's is itself.
        parent: NodeId,
    },
    /// A file's content, written to the image already.
    File(Content),
    /// Where it leads.
    Symlink(Box<[u8]>),
    /// A named pipe.
    Fifo,
    /// A character device 0:0: overlay's mark for what is gone.
    Whiteout,
}

/// What is to be made.
#[derive(Clone, Debug)]
pub enum Made {
    /// An empty one.
    Directory,
    /// With a content of the image.
    File(Content),
    /// To there.
    Symlink(Box<[u8]>),
    /// A named pipe.
    Fifo,
    /// Overlay's mark.
    Whiteout,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) attributes: Attributes,
}

/// All nodes.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    bytes: usize,
}

/// What a node costs besides what it points to: itself, its place in a directory, and its address while
/// the image is written.
const NODE_BYTES: usize = size_of::<Node>() + 48;
const XATTR_BYTES: usize = 80;

impl Tree {
    /// The directory everything is in.
    pub const ROOT: NodeId = NodeId(0);

    /// An empty root.
    #[must_use]
    pub fn new(attributes: Attributes) -> Self {
        let root = Node { kind: Kind::Directory { children: BTreeMap::new(), parent: Self::ROOT }, attributes };
        Self { nodes: vec![root], bytes: NODE_BYTES }
    }

    /// Bytes of memory it takes, roughly; what was unlinked is counted on.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What a node is.
    #[must_use]
    pub fn kind(&self, node: NodeId) -> &Kind {
        &self.nodes[node.index()].kind
    }

    /// What a directory has under a name. Nothing is in what is no directory.
    #[must_use]
    pub fn child(&self, dir: NodeId, name: &[u8]) -> Option<NodeId> {
        match self.kind(dir) {
            Kind::Directory { children, .. } => children.get(name).copied(),
            Kind::File(_) | Kind::Symlink(_) | Kind::Fifo | Kind::Whiteout => None,
        }
    }

    /// Makes a node under a name that is free.
    ///
    /// # Errors
    /// The name cannot be one or is not free, `dir` is no directory, or the attributes are too many.
    pub fn add(&mut self, dir: NodeId, name: &[u8], kind: Made, attributes: Attributes) -> io::Result<NodeId> {
        check_xattrs(&attributes)?;
        let id = NodeId(u32::try_from(self.nodes.len()).map_err(io::Error::other)?);
        let kind = match kind {
            Made::Directory => Kind::Directory { children: BTreeMap::new(), parent: dir },
            Made::File(content) => Kind::File(content),
            Made::Symlink(to) => Kind::Symlink(to),
            Made::Fifo => Kind::Fifo,
            Made::Whiteout => Kind::Whiteout,
        };
        let link_bytes = if let Kind::Symlink(to) = &kind { to.len() } else { 0 };
        self.bytes += NODE_BYTES + link_bytes + xattr_bytes(&attributes);
        self.nodes.push(Node { kind, attributes });
        self.link(dir, name, id)?;
        Ok(id)
    }

    /// Gives a node another name.
    ///
    /// # Errors
    /// As for [`Tree::add`].
    pub fn link(&mut self, dir: NodeId, name: &[u8], node: NodeId) -> io::Result<()> {
        let invalid = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        if matches!(name, b"" | b"." | b"..") || name.len() > NAME_BYTES_MAX || name.iter().any(|b| b"/\0".contains(b))
        {
            return invalid("not a name");
        }
        let Kind::Directory { children, .. } = &mut self.nodes[dir.index()].kind else {
            return invalid("not a directory");
        };
        if children.insert(name.into(), node).is_some() {
            return invalid("there already");
        }
        self.bytes += 32 + name.len();
        Ok(())
    }

    /// Takes a name away, and what only it led to.
    pub fn unlink(&mut self, dir: NodeId, name: &[u8]) {
        if let Kind::Directory { children, .. } = &mut self.nodes[dir.index()].kind {
            children.remove(name);
        }
    }

    /// Changes what a node has.
    ///
    /// # Errors
    /// The attributes are too many.
    pub fn change(&mut self, node: NodeId, change: impl FnOnce(&mut Attributes)) -> io::Result<()> {
        let attributes = &mut self.nodes[node.index()].attributes;
        let before = xattr_bytes(attributes);
        change(attributes);
        self.bytes += xattr_bytes(attributes).saturating_sub(before);
        check_xattrs(&self.nodes[node.index()].attributes)
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }
}

fn xattr_bytes(attributes: &Attributes) -> usize {
    attributes.xattrs.iter().map(|(name, value)| XATTR_BYTES + name.len() + value.len()).sum()
}

fn check_xattrs(attributes: &Attributes) -> io::Result<()> {
    let invalid = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    let bytes: usize = attributes.xattrs.iter().map(|(name, value)| 8 + name.len() + value.len()).sum();
    if bytes > XATTR_BYTES_MAX {
        return invalid("too many bytes of attributes");
    }
    match attributes.xattrs.keys().find(|name| crate::encode::xattr_name(name).is_none()) {
        Some(_) => invalid("an attribute of a kind that is not kept"),
        None => Ok(()),
    }
}
