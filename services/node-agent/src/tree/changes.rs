//! What a container changed of its image's files, by dockerd's rules, read from the writable layer's
//! directory: overlay copies what is written to, marks what is gone, and that is all that differs.

use std::{io, os::fd::OwnedFd};

use contract::agent::{Change, ChangeKind};
use model::{Error, Result};
use rustix::fs::{FileType, Stat};

use super::{
    lower::{Below, Lower, is_opaque, is_whiteout, too_many},
    open::Opened,
    root::Node,
    walk::Listing,
};

/// Bytes of paths that are told of one container.
const MAX_BYTES: usize = 64 << 20;
/// Directories of layers held open at once.
const MAX_DESCRIPTORS: usize = 4_096;
/// Mount points and marks that runtimes make where an image has none; dockerd has them in a layer of
/// their own, which nobody sees.
const FURNITURE: [&[u8]; 14] = [
    b"/.dockerenv",
    b"/dev",
    b"/dev/console",
    b"/dev/mqueue",
    b"/dev/pts",
    b"/dev/shm",
    b"/etc",
    b"/etc/hostname",
    b"/etc/hosts",
    b"/etc/mtab",
    b"/etc/resolv.conf",
    b"/proc",
    b"/sys",
    b"/run/.containerenv",
];

/// Every change, sorted by path.
///
/// # Errors
/// It cannot be read, or there are too many.
pub(crate) async fn changes(opened: Opened) -> Result<Vec<Change>> {
    opened
        .work(|tree| {
            let found = tree.lower().and_then(|lower| Ok((pin(tree.upper().map_err(io::Error::other)?)?, lower)));
            let (upper, lower) = found.map_err(Error::internal)?;
            compare(&upper, Lower::new(lower)).map_err(|e| Error::Failed(e.to_string()))
        })
        .await
}

fn pin(dir: OwnedFd) -> io::Result<Node> {
    Node::pin(dir)
}

/// Compares an upper directory with the layers below it.
pub(super) fn compare(upper: &Node, lower: Lower) -> io::Result<Vec<Change>> {
    let mut differ = Differ { changes: Vec::new(), bytes: 0, descriptors: 0 };
    differ.directory(upper, &lower, &mut Vec::new(), 0)?;
    differ.changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(differ.changes)
}

struct Differ {
    changes: Vec<Change>,
    bytes: usize,
    descriptors: usize,
}

impl Differ {
    fn directory(&mut self, upper: &Node, lower: &Lower, path: &mut Vec<u8>, depth: usize) -> io::Result<()> {
        self.descriptors += lower.descriptors() + 1;
        if self.descriptors > MAX_DESCRIPTORS {
            return Err(io::Error::other("the changes are too deep to tell"));
        }
        let mut listing = Listing::new(upper.list()?, depth)?;
        let length = path.len();
        while let Some(name) = listing.next()? {
            path.truncate(length);
            let Some(node) = Node::child(&listing.dir, &name)? else { continue };
            path.push(b'/');
            path.extend_from_slice(name.to_bytes());
            self.entry(&node, lower.child(&name)?, path, depth)?;
        }
        path.truncate(length);
        if is_opaque(upper) {
            for name in lower.names(MAX_BYTES)? {
                if Node::child(&listing.dir, &name)?.is_none() {
                    path.push(b'/');
                    path.extend_from_slice(name.to_bytes());
                    self.tell(path, ChangeKind::Deleted)?;
                    path.truncate(length);
                }
            }
        }
        self.descriptors -= lower.descriptors() + 1;
        Ok(())
    }

    fn entry(&mut self, node: &Node, below: Option<Below>, path: &mut Vec<u8>, depth: usize) -> io::Result<()> {
        if is_whiteout(&node.stat) {
            return if below.is_some() { self.tell(path, ChangeKind::Deleted) } else { Ok(()) };
        }
        let (told, inside) = match below {
            None if is_furniture(path, node)? => return Ok(()),
            None => (Some(ChangeKind::Added), Lower::default()),
            Some(below) => {
                let kind = differs(&below.node, node).then_some(ChangeKind::Modified);
                (kind, below.inside)
            }
        };
        if let Some(kind) = told {
            self.tell(path, kind)?;
        }
        if node.is_open_directory() {
            let before = self.changes.len();
            self.directory(node, &inside, path, depth + 1)?;
            if told.is_none() && self.changes.len() > before {
                self.tell(path, ChangeKind::Modified)?;
            }
        }
        Ok(())
    }

    fn tell(&mut self, path: &[u8], kind: ChangeKind) -> io::Result<()> {
        self.bytes += path.len() + 64;
        if self.bytes > MAX_BYTES {
            return Err(too_many());
        }
        self.changes.push(Change { path: String::from_utf8_lossy(path).into_owned(), kind });
        Ok(())
    }
}

/// dockerd's measure: type, permissions, owner, device, capabilities; of what is no directory also
/// length and time.
fn differs(before: &Node, now: &Node) -> bool {
    let shape = |s: &Stat| (s.st_mode, s.st_uid, s.st_gid, s.st_rdev);
    let content = |s: &Stat| (s.st_size, s.st_mtime);
    // A file system with coarse times has lost the rest of the second.
    let nanos = |a: &Stat, b: &Stat| a.st_mtime_nsec == b.st_mtime_nsec || a.st_mtime_nsec == 0 || b.st_mtime_nsec == 0;
    let directory = before.kind() == FileType::Directory;
    shape(&before.stat) != shape(&now.stat)
        || (!directory && (content(&before.stat) != content(&now.stat) || !nanos(&before.stat, &now.stat)))
        || before.attribute("security.capability") != now.attribute("security.capability")
}

/// Whether something the layers do not have is there only because a runtime needed it.
pub(super) fn is_furniture(path: &[u8], node: &Node) -> io::Result<bool> {
    if !FURNITURE.contains(&path) {
        return Ok(false);
    }
    if node.kind() != FileType::Directory {
        return Ok(node.kind() != FileType::RegularFile || node.stat.st_size == 0);
    }
    let mut listing = Listing::new(node.list()?, 0)?;
    while let Some(name) = listing.next()? {
        let inner = [path, b"/", name.to_bytes()].concat();
        match Node::child(&listing.dir, &name)? {
            Some(child) if !is_furniture(&inner, &child)? => return Ok(false),
            Some(_) | None => {}
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

    use rustix::fs::{CWD, Mode, OFlags, openat};

    use super::*;
    use crate::{
        discard::Trash,
        rootfs::{Rootfs, prepare, unmount},
    };

    fn opened(dir: &Path) -> OwnedFd {
        openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).expect("opens")
    }

    #[test]
    fn what_was_added_changed_and_deleted_is_told_with_the_directories_above() {
        let root = tempfile::tempdir().expect("temporary directory");
        let trash = Trash::open(root.path().join("trash")).expect("trash");
        let layers = ["one", "two"].map(|n| root.path().join(n));
        for (path, content) in [
            ("one/etc/passwd", "root"),
            ("one/etc/group", "root"),
            ("one/gone/file", "x"),
            ("one/gone/deep/er", "x"),
            ("one/var/log/a", "a"),
            ("one/kept", "k"),
            ("one/kind", "file"),
            ("two/etc/group", "root,two"),
            ("two/usr/bin/tool", "t"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("create");
            fs::write(path, content).expect("write");
        }
        let dir = root.path().join("container");
        prepare(&dir).expect("prepares");
        let merged = dir.join("mount/fs");
        let below = layers.clone().map(crate::layers::Layer::of_directory);
        Rootfs { dir: &dir, on: &merged, layers: &below, volatile: false, project: None }
            .mount(&trash)
            .expect("mounts");
        let at = |path: &str| merged.join(path);
        fs::write(at("etc/passwd"), "root and me").expect("write");
        fs::create_dir_all(at("new/dir")).expect("create");
        fs::write(at("new/dir/file"), "n").expect("write");
        fs::remove_file(at("var/log/a")).expect("remove");
        fs::remove_dir_all(at("gone")).expect("remove");
        // Copied up and as it was.
        fs::set_permissions(at("kept"), fs::Permissions::from_mode(0o600)).expect("mode");
        fs::set_permissions(at("kept"), fs::Permissions::from_mode(0o644)).expect("mode");
        fs::remove_file(at("kind")).expect("remove");
        fs::create_dir(at("kind")).expect("create");
        // Replaced by another directory, which hides what was below.
        fs::remove_dir_all(at("usr")).expect("remove");
        fs::create_dir(at("usr")).expect("create");
        fs::create_dir_all(at("proc")).expect("create");
        fs::write(at("etc/hosts"), "").expect("write");
        unmount(&merged).expect("unmounts");
        let lower = Lower::new(layers.iter().rev().map(|l| opened(l)).collect());
        let upper = Node::pin(opened(&dir.join("upper"))).expect("pins");
        let told: Vec<_> = compare(&upper, lower).expect("compares").into_iter().map(|c| (c.path, c.kind)).collect();
        let (a, m, d) = (ChangeKind::Added, ChangeKind::Modified, ChangeKind::Deleted);
        let expected = [
            ("/etc", m),
            ("/etc/passwd", m),
            ("/gone", d),
            ("/kind", m),
            ("/new", a),
            ("/new/dir", a),
            ("/new/dir/file", a),
            ("/usr", m),
            ("/usr/bin", d),
            ("/var", m),
            ("/var/log", m),
            ("/var/log/a", d),
        ];
        assert_eq!(told, expected.map(|(path, kind)| (path.to_owned(), kind)));
    }
}
