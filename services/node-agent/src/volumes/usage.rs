//! How large a volume is: the sizes of its files, each counted once. The tree is the tenant's and may
//! change under the walk: it is gone through by descriptor, and only so far.

use std::{
    collections::BTreeSet,
    ffi::CString,
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::Path,
};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};

use super::stage;

/// Entries looked at before the answer is what was found so far.
const ENTRIES_MAX: usize = 2_000_000;
/// Directories held open at once; what is deeper is not looked at.
const DEPTH_MAX: usize = 1_000;

/// Bytes in the files below a directory.
pub(super) fn of_tree(root: &Path) -> io::Result<u64> {
    let mut total = 0_u64;
    let mut seen = BTreeSet::new();
    let mut entries = 0;
    let mut levels = vec![open(&stage::inside(root, "")?, c".")?];
    while let Some((dir, left)) = levels.last_mut() {
        let Some(name) = left.pop() else {
            levels.pop();
            continue;
        };
        entries += 1;
        if entries > ENTRIES_MAX {
            break;
        }
        // What is gone meanwhile has no size.
        let Ok(stat) = rustix::fs::statat(&*dir, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            if levels.len() < DEPTH_MAX
                && let Some((dir, _)) = levels.last()
                && let Ok(deeper) = open(dir, &name)
            {
                levels.push(deeper);
            }
        } else if stat.st_nlink < 2 || seen.insert(stat.st_ino) {
            total = total.saturating_add(u64::try_from(stat.st_size).unwrap_or_default());
        }
    }
    Ok(total)
}

/// What a sparse file takes of the disk.
pub(super) fn of_image(image: &Path) -> io::Result<u64> {
    Ok(std::fs::metadata(image)?.blocks() * 512)
}

fn open(dir: &OwnedFd, name: &std::ffi::CStr) -> io::Result<(OwnedFd, Vec<CString>)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat2(dir, name, flags, Mode::empty(), ResolveFlags::NO_XDEV)?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&opened)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok((opened, names))
}
