//! Making the entries of an archive in a directory: a layer's in an empty one, an upload's in one of a
//! container that may run and change it meanwhile. Every path is resolved by the kernel inside the root
//! (`openat2` with `RESOLVE_IN_ROOT`), and every object is made relative to the descriptor of its parent
//! by a single name: no path of an archive ever reaches a system call whole, no link leads out, and what
//! was made is changed through its own descriptor only. What lies outside the rules is refused with the
//! entry's name.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chmod, chownat,
        fchmod, fchown, fsetxattr, fstat, linkat, mkdirat, mknodat, openat, openat2, renameat, statat, symlinkat,
        unlinkat, utimensat,
    },
    io::Errno,
};

use super::{
    archive::{Archive, Entry, Kind},
    clear::remove_tree,
    decode::refuse,
};
use crate::tree::{owners::Owners, root::is_admitted};

/// Directories below each other; far more than any image has.
const MAX_DEPTH: usize = 256;
/// Bytes of directory names remembered to set their times at the end; beyond it they keep today's.
const MAX_REMEMBERED_BYTES: usize = 32 << 20;

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// A directory by its one name, to change it.
const READABLE: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// What differs between a layer and an upload.
#[derive(Debug)]
pub(crate) struct Rules {
    /// `.wh.` names are marks of what is gone, and become overlay's.
    pub(crate) whiteouts: bool,
    /// Neither a file over a directory nor a directory over a file; the directory's own path, to say so.
    pub(crate) keep_kinds: Option<String>,
    /// Everything belongs to this user and group.
    pub(crate) owner: Option<(u32, u32)>,
    /// How owners are set.
    pub(crate) owners: Owners,
    /// Outside of the root, on its file system: where directories go that an entry replaces. Without
    /// one they are deleted where they are.
    pub(crate) junk: Option<OwnedFd>,
}

/// Opens a directory by its path from where entries are made.
pub(crate) type Below<'a> = dyn Fn(&[u8]) -> io::Result<OwnedFd> + 'a;

/// Makes entries below one directory.
pub(super) struct Placer<'a> {
    dir: OwnedFd,
    below: &'a Below<'a>,
    rules: Rules,
    cleared: u64,
    /// The parent of the last entry: archives list a directory's files together.
    last: Option<(Vec<u8>, OwnedFd)>,
    /// Directories and their times, set last because making files changes them.
    times: Vec<(Vec<u8>, (i64, u32))>,
    remembered_bytes: usize,
    buffer: Vec<u8>,
}

/// A directory nobody else writes to: the only one whose root an archive may dress.
pub(super) struct LayerDir {
    pub(super) root: OwnedFd,
    pub(super) junk: OwnedFd,
}

impl LayerDir {
    pub(super) fn open(root: &Path, junk: &Path) -> io::Result<Self> {
        let open = |path: &Path| openat(CWD, path, DIRECTORY, Mode::empty());
        Ok(Self { root: open(root)?, junk: open(junk)? })
    }

    /// The rules of layers.
    pub(super) fn rules(&self) -> io::Result<Rules> {
        let junk = Some(self.junk.try_clone()?);
        Ok(Rules { whiteouts: true, keep_kinds: None, owner: None, owners: Owners::IDENTITY, junk })
    }

    /// Resolves inside, and on the same file system.
    pub(super) fn below(&self, path: &[u8]) -> io::Result<OwnedFd> {
        Ok(crate::resolve::openat2(&self.root, path, DIRECTORY, inside() | ResolveFlags::NO_XDEV)?)
    }
}

impl<'a> Placer<'a> {
    pub(super) fn new(dir: OwnedFd, below: &'a Below<'a>, rules: Rules) -> Self {
        Self {
            dir,
            below,
            rules,
            cleared: 0,
            last: None,
            times: Vec::new(),
            remembered_bytes: 0,
            buffer: vec![0; 128 << 10],
        }
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
        let path = parts(&entry.path, entry, self.rules.whiteouts)?;
        let Some((name, parent)) = path.split_last() else {
            return match entry.kind {
                // The root itself: its owner, mode and time. An upload changes what is below only.
                Kind::Directory if self.rules.whiteouts => self.dress_directory(&[], entry),
                Kind::Directory => Ok(()),
                Kind::File | Kind::Symlink | Kind::Hardlink | Kind::Fifo | Kind::Device => Err(outside(entry)),
            };
        };
        if entry.kind == Kind::Device {
            return Err(refuse(format!("contains a device node: {}", entry.shown())));
        }
        self.enter(parent, entry)?;
        if let Some(hidden) = hidden_by(name).filter(|_| self.rules.whiteouts) {
            return self.whiteout(hidden, entry);
        }
        let existing = self.look(name)?;
        if existing == Some(FileType::Directory) && entry.kind == Kind::Directory {
            return self.dress_directory(&path, entry);
        }
        if let Some(kind) = existing {
            self.check_kind(kind, entry)?;
            self.clear(name, kind)?;
        }
        match entry.kind {
            Kind::File => self.file(name, entry, archive),
            Kind::Directory => {
                mkdirat(self.parent(), *name, Mode::RWXU)?;
                self.dress_directory(&path, entry)
            }
            Kind::Symlink => self.symlink(name, entry),
            Kind::Hardlink => self.hardlink(name, entry),
            Kind::Fifo => {
                mknodat(self.parent(), *name, FileType::Fifo, Mode::RUSR, 0)?;
                self.own(name, entry)?;
                self.set_fifo_mode(name, entry)?;
                self.set_times(name, entry)
            }
            Kind::Device => Err(outside(entry)),
        }
    }

    fn check_kind(&self, existing: FileType, entry: &Entry) -> io::Result<()> {
        let Some(dir) = &self.rules.keep_kinds else { return Ok(()) };
        let shown = entry.shown();
        let (path, dir) = (format!("{dir}/{}", shown.trim_matches('/')), if dir.is_empty() { "/" } else { dir });
        match (existing == FileType::Directory, entry.kind == Kind::Directory) {
            (true, false) => Err(refuse(format!("cannot overwrite directory {path:?} with non-directory {dir:?}"))),
            (false, true) => Err(refuse(format!("cannot overwrite non-directory {path:?} with directory {dir:?}"))),
            (true, true) | (false, false) => Ok(()),
        }
    }

    /// Sets what could not be set before everything was in place.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.last = None;
        for (path, mtime) in &self.times {
            let resolve = inside() | ResolveFlags::NO_SYMLINKS;
            let at = openat2(&self.dir, path.as_slice(), DIRECTORY, Mode::empty(), resolve);
            // It may have been replaced since; then its time no longer matters.
            if let Ok(dir) = at
                && is_admitted(&dir)?
            {
                utimensat(&dir, "", &timestamps(*mtime), AtFlags::EMPTY_PATH)?;
            }
        }
        Ok(())
    }

    fn parent(&self) -> &OwnedFd {
        self.last.as_ref().map_or(&self.dir, |(_, fd)| fd)
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
        let fd = match (self.below)(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.make_parents(parent, entry)?,
            other => other?,
        };
        self.last = Some((path, fd));
        Ok(())
    }

    /// As dockerd does: directories an archive does not list are root's, 0755. A dangling link in the
    /// way is an error, not followed to a place that would have to be made up.
    fn make_parents(&self, parent: &[&[u8]], entry: &Entry) -> io::Result<OwnedFd> {
        let mut above = openat(&self.dir, ".", DIRECTORY, Mode::empty())?;
        for depth in 1..=parent.len() {
            let path = parent[..depth].join(&b'/');
            above = match (self.below)(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    let made = mkdirat(&above, parent[depth - 1], Mode::RWXU);
                    made.map_err(|e| refuse(format!("has an entry below a link to nowhere: {}: {e}", entry.shown())))?;
                    let dir = openat(&above, parent[depth - 1], READABLE, Mode::empty())?;
                    let (uid, gid) = self.owner_of((0, 0))?;
                    fchown(&dir, Some(uid), Some(gid))?;
                    fchmod(&dir, Mode::from_raw_mode(0o755))?;
                    dir
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
        self.cleared += 1;
        match &self.rules.junk {
            // Deleting it here would take as long as the archive likes.
            Some(junk) => Ok(renameat(self.parent(), name, junk, self.cleared.to_string())?),
            None => remove_tree(self.parent(), name),
        }
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
        let (uid, gid) = self.owner(entry)?;
        fchown(&file, Some(uid), Some(gid))?;
        fchmod(&file, mode(entry))?;
        set_xattrs(&file, entry)?;
        Ok(rustix::fs::futimens(&file, &timestamps(entry.mtime))?)
    }

    fn symlink(&self, name: &[u8], entry: &Entry) -> io::Result<()> {
        symlinkat(entry.link.as_slice(), self.parent(), name)?;
        self.own(name, entry)?;
        refuse_overlay_xattrs(entry)?;
        self.set_times(name, entry)
    }

    /// The target is a path from the root, whatever the link's own place, and never a directory.
    fn hardlink(&self, name: &[u8], entry: &Entry) -> io::Result<()> {
        let target = parts(&entry.link, entry, self.rules.whiteouts)?;
        let (target_name, target_parent) = target.split_last().ok_or_else(|| outside(entry))?;
        let from = if target_parent.is_empty() {
            openat(&self.dir, ".", DIRECTORY, Mode::empty())?
        } else {
            (self.below)(&target_parent.join(&b'/'))?
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

    /// Owner, mode, xattrs of a directory that exists, by its names from where entries are made.
    fn dress_directory(&mut self, parts: &[&[u8]], entry: &Entry) -> io::Result<()> {
        let dir = match parts.last() {
            None => openat(&self.dir, ".", READABLE, Mode::empty())?,
            Some(name) => openat(self.parent(), *name, READABLE, Mode::empty())?,
        };
        if !self.rules.whiteouts && !is_admitted(&dir)? {
            // A mount point of the kernel's: what is under it is not the container's to change.
            return Ok(());
        }
        let (uid, gid) = self.owner(entry)?;
        fchown(&dir, Some(uid), Some(gid))?;
        fchmod(&dir, mode(entry))?;
        set_xattrs(&dir, entry)?;
        let path = if parts.is_empty() { b".".to_vec() } else { parts.join(&b'/') };
        if self.remembered_bytes + path.len() < MAX_REMEMBERED_BYTES {
            self.remembered_bytes += path.len() + 64;
            self.times.push((path, entry.mtime));
        }
        Ok(())
    }

    /// The kernel has no chmod that refuses links, and the name may be another thing's by now: the
    /// FIFO is pinned first.
    fn set_fifo_mode(&self, name: &[u8], entry: &Entry) -> io::Result<()> {
        let fifo = openat(self.parent(), name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&fifo)?.st_mode) != FileType::Fifo {
            return Err(refuse(format!("has an entry that was replaced meanwhile: {}", entry.shown())));
        }
        Ok(chmod(format!("/proc/self/fd/{}", fifo.as_raw_fd()), mode(entry))?)
    }

    /// Sets the owner of what has just been made.
    fn own(&self, name: &[u8], entry: &Entry) -> io::Result<()> {
        let (uid, gid) = self.owner(entry)?;
        Ok(chownat(self.parent(), name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn owner(&self, entry: &Entry) -> io::Result<(Uid, Gid)> {
        self.owner_of(self.rules.owner.unwrap_or((entry.uid, entry.gid)))
    }

    fn owner_of(&self, (uid, gid): (u32, u32)) -> io::Result<(Uid, Gid)> {
        let outside = self.rules.owners.outside(uid, gid);
        let (uid, gid) =
            outside.ok_or_else(|| refuse(format!("has an owner the container does not have: {uid}:{gid}")))?;
        Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    fn set_times(&self, name: &[u8], entry: &Entry) -> io::Result<()> {
        Ok(utimensat(self.parent(), name, &timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// The names of a path. In a layer (`strict`) `..` is refused: an image has no honest use for it. In an
/// upload it is taken back, as dockerd cleans names, and refused where it climbs.
pub(super) fn parts<'p>(path: &'p [u8], entry: &Entry, strict: bool) -> io::Result<Vec<&'p [u8]>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if strict || parts.pop().is_none() => return Err(outside(entry)),
            b".." => {}
            name => parts.push(name),
        }
    }
    if path.contains(&0) {
        return Err(refuse("has a path with a zero byte"));
    }
    if parts.len() > MAX_DEPTH {
        return Err(refuse(format!("has a path of more than {MAX_DEPTH} directories")));
    }
    Ok(parts)
}

/// The name that an OCI whiteout of this name is about.
pub(super) fn hidden_by(name: &[u8]) -> Option<&[u8]> {
    name.strip_prefix(b".wh.")
}

fn inside() -> ResolveFlags {
    ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS
}

pub(super) fn outside(entry: &Entry) -> io::Error {
    refuse(format!("has an entry outside of its root: {}", entry.shown()))
}

fn errno(e: &io::Error) -> Option<Errno> {
    Errno::from_io_error(e)
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
pub(super) fn refuse_overlay_xattrs(entry: &Entry) -> io::Result<()> {
    let overlay = |name: &&String| name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.");
    match entry.xattrs.keys().find(overlay) {
        Some(name) => Err(refuse(format!("sets the attribute {name} on {}", entry.shown()))),
        None => Ok(()),
    }
}

/// Labels and ACLs of the machine an image was built on mean nothing here.
pub(super) fn kept_xattrs(entry: &Entry) -> impl Iterator<Item = (&str, &[u8])> {
    let all = entry.xattrs.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    all.filter(|(name, _)| name.starts_with("user.") || *name == "security.capability")
}

fn set_xattrs(fd: &impl AsFd, entry: &Entry) -> io::Result<()> {
    refuse_overlay_xattrs(entry)?;
    for (name, value) in kept_xattrs(entry) {
        match fsetxattr(fd, name, value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
