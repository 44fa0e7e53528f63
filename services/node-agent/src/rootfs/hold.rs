//! Who needs a container's root file system mounted. Its upper directory may be under one overlay at
//! a time (two are undefined to the kernel), so a run and those who only look in share one mount:
//! the first of them mounts, the last unmounts. A removal asks nobody.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Rootfs, unmount};
use crate::discard::Trash;

/// The holders of one container's mount. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hold(Arc<Mutex<Holders>>);

#[derive(Debug)]
struct Holders {
    /// A run (or the preparation for one) holds it. A restarted agent assumes so until the release.
    run: bool,
    visitors: usize,
    removed: bool,
}

impl Default for Holders {
    fn default() -> Self {
        Self { run: true, visitors: 0, removed: false }
    }
}

impl Hold {
    /// Mounts for a run, unless it is mounted.
    ///
    /// # Errors
    /// In the kernel's words.
    pub(crate) fn for_run(&self, rootfs: &Rootfs<'_>, trash: &Trash) -> io::Result<()> {
        let mut holders = self.lock();
        rootfs.mount(trash)?;
        holders.run = true;
        Ok(())
    }

    /// The run is over: unmounts, unless somebody looks in.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn run_over(&self, rootfs: &Path) -> io::Result<()> {
        let mut holders = self.lock();
        holders.run = false;
        if holders.visitors == 0 { unmount(rootfs) } else { Ok(()) }
    }

    /// Unmounts for good. Whoever still looks in keeps what it has open and sees no more.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn remove(&self, rootfs: &Path) -> io::Result<()> {
        let mut holders = self.lock();
        (holders.run, holders.removed) = (false, true);
        unmount(rootfs)
    }

    /// Mounts to look in, unless it is mounted, until the visit is dropped.
    ///
    /// # Errors
    /// In the kernel's words; `NotFound` once it is removed.
    pub(crate) fn visit(&self, rootfs: &Rootfs<'_>, trash: &Trash) -> io::Result<Visit> {
        let mut holders = self.lock();
        if holders.removed {
            return Err(io::ErrorKind::NotFound.into());
        }
        super::prepare(rootfs.dir)?;
        rootfs.mount(trash)?;
        holders.visitors += 1;
        Ok(Visit { hold: self.clone(), rootfs: rootfs.on.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, Holders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody looks in.
#[derive(Debug)]
pub(crate) struct Visit {
    hold: Hold,
    rootfs: PathBuf,
}

impl Visit {
    /// Where it is mounted.
    pub(crate) fn rootfs(&self) -> &Path {
        &self.rootfs
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut holders = self.hold.lock();
        holders.visitors -= 1;
        if holders.visitors == 0
            && !holders.run
            && !holders.removed
            && let Err(error) = unmount(&self.rootfs)
        {
            tracing::warn!(rootfs = %self.rootfs.display(), %error, "could not be unmounted after a visit");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::is_mounted, *};
    use crate::layers::Layer;

    #[test]
    fn the_last_one_unmounts_whoever_it_is() {
        let root = tempfile::tempdir().expect("temporary directory");
        let trash = Trash::open(root.path().join("trash")).expect("trash");
        let layer = root.path().join("layer");
        std::fs::create_dir(&layer).expect("create");
        let (dir, layers) = (root.path().join("container"), [Layer::of_directory(layer)]);
        let (merged, hold) = (dir.join("mount/fs"), Hold::default());
        let rootfs = Rootfs { dir: &dir, on: &merged, layers: &layers, volatile: false, project: None };
        let mounted = || is_mounted(&merged).expect("stat");
        let visit = hold.visit(&rootfs, &trash).expect("mounts");
        hold.run_over(&merged).expect("a run that never was is over");
        assert!(mounted(), "the visitor still needs it");
        drop(visit);
        assert!(!mounted());
        hold.for_run(&rootfs, &trash).expect("mounts");
        drop(hold.visit(&rootfs, &trash).expect("is mounted"));
        assert!(mounted(), "the run still needs it");
        let visit = hold.visit(&rootfs, &trash).expect("is mounted");
        hold.remove(&merged).expect("unmounts");
        assert!(!mounted());
        drop(visit);
        assert!(hold.visit(&rootfs, &trash).is_err(), "nothing is mounted for a removed container");
    }
}
