//! Making the entries of a layer in a directory. Every path is resolved by the kernel inside that
//! directory (`openat2` with `RESOLVE_IN_ROOT`), and every object is made relative to the descriptor
//! of its parent by a single name: no path of an archive ever reaches a system call whole, and no
//! link leads out. What lies outside the rules is refused with the entry's name.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat,
        chownat, fchmod, fchown, fsetxattr, linkat, mkdirat, mknodat, openat, openat2, renameat, statat, symlinkat,
        unlinkat, utimensat,
    },
    io::Errno,
};

use super::{
    archive::{Archive, Entry, Kind},
    decode::refuse,
};

/// Directories below each other; far more than any image has.
const MAX_DEPTH: usize = 256;
/// Bytes of directory names remembered to set their times at the end; beyond it they keep today's.
const MAX_REMEMBERED_BYTES: usize = 32 << 20;

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Makes entries below one root.
pub(super) struct Placer {
    root: OwnedFd,
    /// Outside of the root: where directories go that a later entry replaces.
    junk: OwnedFd,
    cleared: u64,
    /// The parent of the last entry: archives list a directory's files together.
    last: Option<(Vec<u8>, OwnedFd)>,
    /// Directories and their times, set last because making files changes them.
    times: Vec<(Vec<u8>, (i64, u32))>,
    remembered_bytes: usize,
    buffer: Vec<u8>,
}

impl Placer {
    pub(super) fn new(root: &Path, junk: &Path) -> io::Result<Self> {
        let root = openat(CWD, root, DIRECTORY, Mode::empty())?;
        let junk = openat(CWD, junk, DIRECTORY, Mode::empty())?;
        Ok(Self {
            root,
            junk,
            cleared: 0,
            last: None,
            times: Vec::new(),
            remembered_bytes: 0,
            buffer: vec![0; 128 << 10],
        })
    }

    /// Makes one entry; a file's content comes from the archive.
    pub(super) fn place<R: io::Read>(&mut self, entry: &Entry, archive: &mut Archive<R>) -> io::Result<()> {
        self.attempt(entry, archive).map_err(|e| match errno(&e) {
            // The host's own trouble stays an error of the host.
            Some(
                Errno::NOSPC | Errno::DQUOT | Errno::IO | Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::ROFS,
            ) => io::Error::new(e.kind(), format!("{}: {e}", entry.shown())),
            Some(_) => refuse(format!("has an entry that cannot be made: {}: {e}", entry.shown())),
            None => e,
        })
    }

    fn attempt<R: io::Read>(&mut self, entry: &Entry, archive: &mut Archive<R>) -> io::Result<()> {
        let path = parts(&entry.path, entry)?;
        let Some((name, parent)) = path.split_last() else {
            // The root itself: its owner, mode and time.
            return if entry.kind == Kind::Directory { self.dress_directory(b"", entry) } else { Err(outside(entry)) };
        };
        if entry.kind == Kind::Device {
            return Err(refuse(format!("contains a device node: {}", entry.shown())));
        }
        self.enter(parent, entry)?;
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return self.whiteout(hidden, entry);
        }
        let existing = self.look(name)?;
        if existing == Some(FileType::Directory) && entry.kind == Kind::Directory {
            return self.dress_directory(&entry.path, entry);
        }
        if let Some(kind) = existing {
            self.clear(name, kind)?;
        }
        match entry.kind {
            Kind::File => self.file(name, entry, archive),
            Kind::Directory => {
                mkdirat(self.parent(), *name, Mode::RWXU)?;
                self.dress_directory(&entry.path, entry)
            }
            Kind::Symlink => self.symlink(name, entry),
            Kind::Hardlink => self.hardlink(name, entry),
            Kind::Fifo => {
                mknodat(self.parent(), *name, FileType::Fifo, Mode::RUSR, 0)?;
                chownat(self.parent(), *name, Some(uid(entry)), Some(gid(entry)), AtFlags::SYMLINK_NOFOLLOW)?;
                // Just made by us, so not a link; the kernel has no chmod that refuses links.
                chmodat(self.parent(), *name, mode(entry), AtFlags::empty())?;
                self.set_times(name, entry)
            }
            Kind::Device => Err(outside(entry)),
        }
    }

    /// Sets what could not be set before everything was in place.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.last = None;
        for (path, mtime) in self.times.iter().rev() {
            let at =
                openat2(&self.root, path.as_slice(), DIRECTORY, Mode::empty(), inside() | ResolveFlags::NO_SYMLINKS);
            // It may have been replaced since; then its time no longer matters.
            if let Ok(dir) = at {
                utimensat(&dir, "", &timestamps(*mtime), AtFlags::EMPTY_PATH)?;
            }
        }
        Ok(())
    }

    fn parent(&self) -> &OwnedFd {
        self.last.as_ref().map_or(&self.root, |(_, fd)| fd)
    }

    /// Makes `parent` the current directory, creating what is missing of it.
    fn enter(&mut self, parent: &[&[u8]], entry: &Entry) -> io::Result<()> {
        let path = parent.join(&b'/');
        if parent.is_empty() {
            self.last = None;
            return Ok(());
        }
        if self.last.as_ref().is_some_and(|(last, _)| *last == path) {
            return Ok(());
        }
        self.last = None;
        let fd = match self.open(&path) {
            Err(e) if errno(&e) == Some(Errno::NOENT) => self.make_parents(parent, entry)?,
            other => other?,
        };
        self.last = Some((path, fd));
        Ok(())
    }

    fn open(&self, path: &[u8]) -> io::Result<OwnedFd> {
        Ok(openat2(&self.root, path, DIRECTORY, Mode::empty(), inside())?)
    }

    /// As dockerd does: directories an archive does not list are root's, 0755. A dangling link in the
    /// way is an error, not followed to a place that would have to be made up.
    fn make_parents(&self, parent: &[&[u8]], entry: &Entry) -> io::Result<OwnedFd> {
        let mut above = openat(&self.root, ".", DIRECTORY, Mode::empty())?;
        for depth in 1..=parent.len() {
            let path = parent[..depth].join(&b'/');
            above = match self.open(&path) {
                Err(e) if errno(&e) == Some(Errno::NOENT) => {
                    let made = mkdirat(&above, parent[depth - 1], Mode::from_raw_mode(0o755));
                    made.map_err(|e| refuse(format!("has an entry below a link to nowhere: {}: {e}", entry.shown())))?;
                    chmodat(&above, parent[depth - 1], Mode::from_raw_mode(0o755), AtFlags::empty())?;
                    self.open(&path)?
                }
                other => other?,
            };
        }
        Ok(above)
    }

    fn look(&self, name: &[u8]) -> io::Result<Option<FileType>> {
        match statat(self.parent(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Takes away what an earlier entry of the same name made.
    fn clear(&mut self, name: &[u8], kind: FileType) -> io::Result<()> {
        if kind != FileType::Directory {
            return Ok(unlinkat(self.parent(), name, AtFlags::empty())?);
        }
        // Deleting it here would recurse as deep as the archive likes: it is moved aside instead.
        self.cleared += 1;
        Ok(renameat(self.parent(), name, &self.junk, self.cleared.to_string())?)
    }

    fn file<R: io::Read>(&mut self, name: &[u8], entry: &Entry, archive: &mut Archive<R>) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(self.parent(), name, flags, Mode::RUSR | Mode::WUSR)?;
        let mut left = entry.size;
        while left > 0 {
            let n = archive.read_body(&mut self.buffer)?;
            write_all(&file, &self.buffer[..n])?;
            left -= n as u64;
        }
        // Owner before mode: changing the owner clears the set-id bits.
        fchown(&file, Some(uid(entry)), Some(gid(entry)))?;
        fchmod(&file, mode(entry))?;
        set_xattrs(&file, entry)?;
        Ok(rustix::fs::futimens(&file, &timestamps(entry.mtime))?)
    }

    fn symlink(&self, name: &[u8], entry: &Entry) -> io::Result<()> {
        symlinkat(entry.link.as_slice(), self.parent(), name)?;
        chownat(self.parent(), name, Some(uid(entry)), Some(gid(entry)), AtFlags::SYMLINK_NOFOLLOW)?;
        refuse_overlay_xattrs(entry)?;
        self.set_times(name, entry)
    }

    /// The target is a path from the root, whatever the link's own place, and never a directory.
    fn hardlink(&self, name: &[u8], entry: &Entry) -> io::Result<()> {
        let target = parts(&entry.link, entry)?;
        let (target_name, target_parent) = target.split_last().ok_or_else(|| outside(entry))?;
        let from = if target_parent.is_empty() {
            openat(&self.root, ".", DIRECTORY, Mode::empty())?
        } else {
            self.open(&target_parent.join(&b'/'))?
        };
        Ok(linkat(&from, *target_name, self.parent(), name, AtFlags::empty())?)
    }

    /// OCI whiteouts become overlay's own.
    fn whiteout(&mut self, hidden: &[u8], entry: &Entry) -> io::Result<()> {
        if hidden == b".wh..opq" {
            let dir = openat(self.parent(), ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            return Ok(fsetxattr(&dir, "trusted.overlay.opaque", b"y", XattrFlags::empty())?);
        }
        if hidden.starts_with(b".wh.") {
            // Leftovers of aufs, which mean nothing.
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(outside(entry));
        }
        if let Some(kind) = self.look(hidden)? {
            self.clear(hidden, kind)?;
        }
        Ok(mknodat(self.parent(), hidden, FileType::CharacterDevice, Mode::empty(), 0)?)
    }

    /// Owner, mode, xattrs of a directory that exists; `path` is relative to the root.
    fn dress_directory(&mut self, path: &[u8], entry: &Entry) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let parts = parts(path, entry)?;
        let dir = match parts.last() {
            None => openat(&self.root, ".", flags, Mode::empty())?,
            Some(name) => openat(self.parent(), *name, flags, Mode::empty())?,
        };
        fchown(&dir, Some(uid(entry)), Some(gid(entry)))?;
        fchmod(&dir, mode(entry))?;
        set_xattrs(&dir, entry)?;
        let path = if parts.is_empty() { b".".to_vec() } else { parts.join(&b'/') };
        if self.remembered_bytes + path.len() < MAX_REMEMBERED_BYTES {
            self.remembered_bytes += path.len() + 64;
            self.times.push((path, entry.mtime));
        }
        Ok(())
    }

    fn set_times(&self, name: &[u8], entry: &Entry) -> io::Result<()> {
        Ok(utimensat(self.parent(), name, &timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

fn inside() -> ResolveFlags {
    ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV
}

/// The names of a path. `..` is refused: an image has no honest use for it.
fn parts<'a>(path: &'a [u8], entry: &Entry) -> io::Result<Vec<&'a [u8]>> {
    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".").collect();
    if parts.iter().any(|p| *p == b"..") {
        return Err(outside(entry));
    }
    if path.contains(&0) {
        return Err(refuse("has a path with a zero byte"));
    }
    if parts.len() > MAX_DEPTH {
        return Err(refuse(format!("has a path of more than {MAX_DEPTH} directories")));
    }
    Ok(parts)
}

fn outside(entry: &Entry) -> io::Error {
    refuse(format!("has an entry outside of its root: {}", entry.shown()))
}

fn errno(e: &io::Error) -> Option<Errno> {
    Errno::from_io_error(e)
}

fn uid(entry: &Entry) -> Uid {
    Uid::from_raw(entry.uid)
}

fn gid(entry: &Entry) -> Gid {
    Gid::from_raw(entry.gid)
}

fn mode(entry: &Entry) -> Mode {
    Mode::from_raw_mode(entry.mode)
}

fn timestamps((seconds, nanos): (i64, u32)) -> Timestamps {
    let at = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanos) };
    Timestamps { last_access: at, last_modification: at }
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = rustix::io::write(file, bytes)?;
        bytes = &bytes[n..];
    }
    Ok(())
}

/// Overlay reads its own attributes from lower layers: one in an image could redirect a lookup to
/// anywhere in another layer.
fn refuse_overlay_xattrs(entry: &Entry) -> io::Result<()> {
    let overlay = |name: &&String| name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.");
    match entry.xattrs.keys().find(overlay) {
        Some(name) => Err(refuse(format!("sets the attribute {name} on {}", entry.shown()))),
        None => Ok(()),
    }
}

fn set_xattrs(fd: &impl AsFd, entry: &Entry) -> io::Result<()> {
    refuse_overlay_xattrs(entry)?;
    for (name, value) in &entry.xattrs {
        // Labels and ACLs of the machine an image was built on mean nothing here.
        if !name.starts_with("user.") && name != "security.capability" {
            continue;
        }
        match fsetxattr(fd, name.as_str(), value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
