//! Deleting a tree where it is, in a directory that somebody else may be changing. By descriptors only,
//! never through a link, never into another file system.

use std::{ffi::CString, io, os::fd::OwnedFd};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, unlinkat},
    io::Errno,
};

/// Directories below each other that are deleted.
const MAX_DEPTH: usize = 512;
/// Times a directory is looked at again that somebody fills while it is emptied.
const ATTEMPTS: u32 = 16;

const READABLE: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Deletes a directory with all below it.
///
/// # Errors
/// Something is mounted in it, it is too deep, or it does not get empty.
pub(super) fn remove_tree(parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
    let name = CString::new(name)?;
    let device = fstat(parent)?.st_dev;
    let mut above: Vec<(OwnedFd, CString, u32)> = vec![(enter(parent, &name, device)?, name, 0)];
    while let Some((dir, name, attempts)) = above.last_mut() {
        if let Some(inner) = empty_of_files(dir)? {
            let below = enter(dir, &inner, device)?;
            if above.len() >= MAX_DEPTH {
                return Err(io::Error::other(format!("more than {MAX_DEPTH} directories are below each other")));
            }
            above.push((below, inner, 0));
            continue;
        }
        *attempts += 1;
        let (name, attempts) = (name.clone(), *attempts);
        let holder = if above.len() > 1 { &above[above.len() - 2].0 } else { parent };
        match unlinkat(holder, &name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => drop(above.pop()),
            Err(Errno::NOTEMPTY | Errno::EXIST) if attempts < ATTEMPTS => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn enter(dir: &OwnedFd, name: &CString, device: u64) -> io::Result<OwnedFd> {
    let fd = openat(dir, name, READABLE, Mode::empty())?;
    if fstat(&fd)?.st_dev == device { Ok(fd) } else { Err(Errno::BUSY.into()) }
}

/// Deletes all but directories; tells one of those.
fn empty_of_files(dir: &OwnedFd) -> io::Result<Option<CString>> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() == FileType::Directory {
            return Ok(Some(name.to_owned()));
        }
        match unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            // What was a file when it was listed.
            Err(Errno::ISDIR) => return Ok(Some(name.to_owned())),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_tree_goes_and_what_its_links_name_stays() {
        let root = tempfile::tempdir().expect("temporary directory");
        let outside = root.path().join("outside");
        fs::create_dir(&outside).expect("create");
        fs::write(outside.join("kept"), "").expect("write");
        fs::create_dir_all(root.path().join("tree/a/b/c")).expect("create");
        for n in 0..500 {
            fs::write(root.path().join(format!("tree/a/{n}")), "").expect("write");
        }
        symlink(&outside, root.path().join("tree/a/b/link")).expect("link");
        let parent: OwnedFd = fs::File::open(root.path()).expect("open").into();
        remove_tree(&parent, b"tree").expect("goes");
        assert!(!root.path().join("tree").exists() && outside.join("kept").exists());
        symlink(&outside, root.path().join("link")).expect("link");
        assert!(remove_tree(&parent, b"link").is_err(), "a link is no tree");
        assert!(outside.join("kept").exists());
    }
}
