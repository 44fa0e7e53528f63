//! Deleting trees that tenants made. A tree is first renamed into the trash, which is instant, and
//! deleted there in the background. Deleting uses no recursion and a constant number of descriptors:
//! a directory inside a directory is moved up before it is emptied, so depth costs nothing
//! (a container can nest hundreds of thousands of directories, and links are never followed).

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use tokio::sync::Notify;

/// The directory where trees wait to be deleted; on the same file system as what is discarded.
#[derive(Clone, Debug)]
pub(crate) struct Trash {
    dir: PathBuf,
    filled: Arc<Notify>,
}

impl Trash {
    /// Makes or opens it.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok(Self { dir, filled: Arc::new(Notify::new()) })
    }

    /// Takes a tree out of the way. What is not there is gone already.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub(crate) fn discard(&self, tree: &Path) -> io::Result<()> {
        match fs::rename(tree, self.dir.join(fresh_name())) {
            Ok(()) => {
                self.filled.notify_one();
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Deletes what is discarded, for as long as the agent lives; what an earlier one left comes first.
    pub(crate) async fn sweep(self) {
        loop {
            let dir = self.dir.clone();
            let swept = tokio::task::spawn_blocking(move || empty(&dir)).await;
            if let Ok(Err(error)) = swept {
                tracing::warn!(%error, "the trash could not be emptied");
            }
            self.filled.notified().await;
        }
    }
}

fn fresh_name() -> String {
    uuid::Uuid::from_bytes(chassis::ids::random_bytes()).simple().to_string()
}

/// Deletes everything in `dir`, which stays.
///
/// # Errors
/// The first thing that would not go; the rest was tried.
pub(crate) fn empty(dir: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, dir, flags, Mode::empty())?;
    loop {
        let mut progress = false;
        let mut failure = None;
        for entry in Dir::read_from(&root)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let outcome = if entry.file_type() == FileType::Directory {
                flatten(&root, name)
            } else {
                rustix::fs::unlinkat(&root, name, AtFlags::empty()).map_err(io::Error::from)
            };
            match outcome {
                Ok(()) => progress = true,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => failure = Some(e),
            }
        }
        match (progress, failure) {
            // Directories were moved up into the root: look again.
            (true, _) => {}
            (false, None) => return Ok(()),
            (false, Some(e)) => return Err(e),
        }
    }
}

/// Empties one directory of the root: files are deleted, directories moved up; then it goes itself.
fn flatten(root: &impl std::os::fd::AsFd, name: &std::ffi::CStr) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Whatever should still be mounted in there is somebody's data, not this tree's.
    let dir = rustix::fs::openat2(root, name, flags, Mode::empty(), ResolveFlags::NO_XDEV)?;
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        let inner = entry.file_name();
        if matches!(inner.to_bytes(), b"." | b"..") {
            continue;
        }
        let gone = if entry.file_type() == FileType::Directory {
            match rustix::fs::unlinkat(&dir, inner, AtFlags::REMOVEDIR) {
                Err(rustix::io::Errno::NOTEMPTY | rustix::io::Errno::EXIST) => {
                    rustix::fs::renameat(&dir, inner, root, fresh_name())
                }
                other => other,
            }
        } else {
            rustix::fs::unlinkat(&dir, inner, AtFlags::empty())
        };
        gone?;
    }
    Ok(rustix::fs::unlinkat(root, name, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_very_deep_tree_is_deleted_and_links_are_not_followed() {
        let root = tempfile::tempdir().expect("temporary directory");
        let (trash, outside) = (root.path().join("trash"), root.path().join("outside"));
        fs::create_dir_all(trash.join("tree/wide/empty")).expect("create");
        fs::create_dir(&outside).expect("create");
        fs::write(outside.join("kept"), "").expect("write");
        symlink(&outside, trash.join("tree/link")).expect("link");
        symlink(&outside, trash.join("tree/wide/link")).expect("link");
        // Deeper than any path can name, and than a stack or a descriptor table would hold.
        let mut dir = rustix::fs::openat(CWD, trash.join("tree"), OFlags::RDONLY, Mode::empty()).expect("open");
        for _ in 0..5_000 {
            rustix::fs::mkdirat(&dir, "d", Mode::RWXU).expect("mkdir");
            rustix::fs::openat(&dir, "f", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).expect("file");
            dir = rustix::fs::openat(&dir, "d", OFlags::RDONLY, Mode::empty()).expect("open");
        }
        empty(&trash).expect("empties");
        assert_eq!(fs::read_dir(&trash).expect("read").count(), 0);
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn what_is_mounted_inside_a_tree_is_not_deleted_with_it() {
        let root = tempfile::tempdir().expect("temporary directory");
        let (trash, volume) = (root.path().join("trash"), root.path().join("volume"));
        let inside = trash.join("tree/mounted");
        fs::create_dir_all(&inside).expect("create");
        fs::create_dir(&volume).expect("create");
        fs::write(volume.join("kept"), "").expect("write");
        rustix::mount::mount_bind(&volume, &inside).expect("mounts");
        let outcome = empty(&trash);
        rustix::mount::unmount(&inside, rustix::mount::UnmountFlags::DETACH).expect("unmounts");
        assert!(outcome.is_err(), "it was not all deleted");
        assert!(volume.join("kept").exists());
        empty(&trash).expect("empties");
    }
}
