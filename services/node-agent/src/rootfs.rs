//! The root file system of a container: an overlay over its image's layers, `nodev`, with the
//! container's own upper directory. Mounting is safe twice, unmounting is safe without a mount.

mod hold;

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};
use rustix::fs::{CWD, Mode, OFlags, openat};

pub(crate) use hold::{Hold, Visit};

use crate::{
    discard::Trash,
    layers::Layer,
    tenancy::{Overlay, Project},
};

/// Overlay's own bound is 500; Docker's images have at most 127.
const MAX_LAYERS: usize = 127;
/// The kernel takes one page of mount options.
const MAX_OPTION_BYTES: usize = 4000;

/// What to mount.
pub(crate) struct Rootfs<'a> {
    /// The container's directory: holds `upper` and `work`.
    pub(crate) dir: &'a Path,
    /// Where it is mounted.
    pub(crate) on: &'a Path,
    /// Lowest first.
    pub(crate) layers: &'a [Layer],
    /// Nothing of it is needed after a power loss (`--rm`): unmounting need not wait for the disk.
    pub(crate) volatile: bool,
    /// Whose ids it has; the host's own without.
    pub(crate) project: Option<&'a Project>,
}

/// Makes the directories.
///
/// # Errors
/// The disk is full.
pub(crate) fn prepare(dir: &Path) -> io::Result<()> {
    for (name, mode) in [("", 0o700), ("upper", 0o755), ("log", 0o700), ("files", 0o755)] {
        fs::DirBuilder::new().recursive(true).mode(mode).create(dir.join(name))?;
    }
    Ok(())
}

impl Rootfs<'_> {
    /// Mounts it, unless it is mounted.
    ///
    /// # Errors
    /// In the kernel's words.
    pub(crate) fn mount(&self, trash: &Trash) -> io::Result<()> {
        let work = self.dir.join("work");
        self.make_mount_point()?;
        if is_mounted(self.on)? {
            return Ok(());
        }
        if self.layers.len() > MAX_LAYERS {
            return Err(io::Error::other(format!("the image has more than {MAX_LAYERS} layers")));
        }
        // Overlay leaves marks in its work directory (one refuses a mount after a crash); it holds
        // nothing else between mounts.
        trash.discard(&work)?;
        fs::DirBuilder::new().mode(0o700).create(&work)?;
        let empty = self.dir.join("empty");
        if self.layers.is_empty() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(&empty)?;
        } else {
            copy_root(self.layers, &self.dir.join("upper"))?;
        }
        if let Some(project) = self.project {
            return self.mount_mapped(project);
        }
        let lower: Vec<PathBuf> =
            if self.layers.is_empty() { vec![empty] } else { self.layers.iter().rev().map(Layer::path).collect() };
        let options = self.options(&lower.iter().map(|p| p.display().to_string()).collect::<Vec<_>>());
        if options.len() <= MAX_OPTION_BYTES {
            return mount_overlay(self.on, &options);
        }
        // Long lists are named by descriptors, which are short.
        let open = |p: &PathBuf| openat(CWD, p, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let held: Vec<OwnedFd> = lower.iter().map(open).collect::<Result<_, _>>()?;
        let names: Vec<String> = held.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd())).collect();
        mount_overlay(self.on, &self.options(&names))
    }

    /// Its parent may be entered by the container's own root and nobody else: a container's init goes
    /// there by path, and what is below has programs of the tenant's making.
    fn make_mount_point(&self) -> io::Result<()> {
        let Some(parent) = self.on.parent() else { return Ok(()) };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(self.on)?;
        if let Some(project) = self.project {
            std::os::unix::fs::chown(parent, None, Some(project.root_id()))?;
            fs::set_permissions(parent, fs::Permissions::from_mode(0o710))?;
        }
        Ok(())
    }

    fn mount_mapped(&self, project: &Project) -> io::Result<()> {
        let writable = project.view(self.dir)?;
        let own = || openat(&writable, "empty", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let lower = if self.layers.is_empty() {
            // No layers at all: an empty directory of its own.
            vec![own()?]
        } else {
            self.layers.iter().rev().map(|layer| project.open_layer(layer)).collect::<io::Result<_>>()?
        };
        let (volatile, one_device) = (self.volatile, self.is_of_many_devices());
        Overlay { lower, writable: writable.as_fd(), volatile, one_device, root_id: project.root_id() }
            .mount(self.on)
            .map_err(|e| io::Error::other(format!("mount the container's root file system: {e}")))
    }

    /// Layers that are images are file systems of their own. Inside, everything is to be of one device all
    /// the same: `find -xdev` and `du -x` go by it.
    fn is_of_many_devices(&self) -> bool {
        self.layers.iter().any(|layer| layer.mount().is_some())
    }

    fn options(&self, lower: &[String]) -> String {
        let (upper, work) = (self.dir.join("upper"), self.dir.join("work"));
        let volatile = if self.volatile { ",volatile" } else { "" };
        let one_device = if self.is_of_many_devices() { ",xino=on" } else { "" };
        // Without redirects and metacopies the upper directory alone tells what was changed.
        format!(
            "lowerdir={},upperdir={},workdir={},index=off,redirect_dir=off,metacopy=off{volatile}{one_device}",
            lower.join(":"),
            upper.display(),
            work.display()
        )
    }
}

fn mount_overlay(rootfs: &Path, options: &str) -> io::Result<()> {
    mount(Some("overlay"), rootfs, Some("overlay"), MsFlags::MS_NODEV, Some(options))
        .map_err(|e| io::Error::other(format!("mount the container's root file system: {}", e.desc())))
}

/// The merged root shows the upper's owner and mode, so it takes them from the topmost layer.
fn copy_root(layers: &[Layer], upper: &Path) -> io::Result<()> {
    let Some(top) = layers.last() else { return Ok(()) };
    let (from, to) = (fs::metadata(top.path())?, fs::metadata(upper)?);
    // Once the container has changed its root, that stays.
    if to.uid() == 0 && to.gid() == 0 && to.mode() & 0o7777 == 0o755 {
        std::os::unix::fs::chown(upper, Some(from.uid()), Some(from.gid()))?;
        fs::set_permissions(upper, from.permissions())?;
    }
    Ok(())
}

/// A mount has another device than the directory it is in.
pub(crate) fn is_mounted(rootfs: &Path) -> io::Result<bool> {
    let parent = rootfs.parent().unwrap_or(rootfs);
    match fs::symlink_metadata(rootfs) {
        Ok(meta) => Ok(meta.dev() != fs::symlink_metadata(parent)?.dev()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Unmounts it, however often it was mounted. Detached: a process that lingers in it cannot hold it.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn unmount(rootfs: &Path) -> io::Result<()> {
    loop {
        match umount2(rootfs, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_and_twenty_layers_mount_and_unmount_without_a_trace() {
        let root = tempfile::tempdir().expect("temporary directory");
        let trash = Trash::open(root.path().join("trash")).expect("trash");
        let layers: Vec<Layer> = (0..120)
            .map(|n| {
                let dir = root.path().join(format!("layers/{n:064}/fs"));
                fs::create_dir_all(&dir).expect("create");
                fs::write(dir.join(format!("f{n}")), n.to_string()).expect("write");
                fs::write(dir.join("top"), n.to_string()).expect("write");
                Layer::of_directory(dir)
            })
            .collect();
        let dir = root.path().join("container");
        prepare(&dir).expect("prepares");
        let merged = dir.join("mount/fs");
        let rootfs = Rootfs { dir: &dir, on: &merged, layers: &layers, volatile: false, project: None };
        rootfs.mount(&trash).expect("mounts");
        rootfs.mount(&trash).expect("again is fine");
        assert_eq!(fs::read_to_string(merged.join("top")).expect("merged"), "119");
        assert!(merged.join("f0").exists());
        fs::write(merged.join("written"), "x").expect("writable");
        assert!(dir.join("upper/written").exists());
        unmount(&merged).expect("unmounts");
        unmount(&merged).expect("again is fine");
        assert!(!is_mounted(&merged).expect("stat"));
        assert!(!merged.join("f0").exists());
    }

    #[test]
    fn a_volatile_mount_that_a_crash_left_behind_mounts_again() {
        let root = tempfile::tempdir().expect("temporary directory");
        let trash = Trash::open(root.path().join("trash")).expect("trash");
        let layer = root.path().join("layer");
        fs::create_dir(&layer).expect("create");
        let dir = root.path().join("container");
        prepare(&dir).expect("prepares");
        // What the kernel leaves when the host dies.
        fs::create_dir_all(dir.join("work/work/incompat/volatile")).expect("create");
        let layers = [Layer::of_directory(layer)];
        let merged = dir.join("mount/fs");
        Rootfs { dir: &dir, on: &merged, layers: &layers, volatile: true, project: None }
            .mount(&trash)
            .expect("mounts");
        unmount(&merged).expect("unmounts");
    }

    #[test]
    fn images_and_directories_are_layers_of_one_root_on_one_device() {
        use erofs::{Attributes, Image, Made, Tree};

        let root = tempfile::tempdir().expect("temporary directory");
        let trash = Trash::open(root.path().join("trash")).expect("trash");
        let directory = root.path().join("directory");
        for file in ["gone", "hidden/below", "kept"] {
            let path = directory.join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("create");
            fs::write(path, "directory").expect("write");
        }
        let home = root.path().join("image");
        fs::create_dir(&home).expect("create");
        let mut image = Image::begin(fs::File::create(home.join("image")).expect("create")).expect("begins");
        let attributes = |mode| Attributes { mode, ..Attributes::default() };
        let mut tree = Tree::new(attributes(0o751));
        let content = image.content(&mut &b"image"[..], 5).expect("content");
        tree.add(Tree::ROOT, b"gone", Made::Whiteout, attributes(0)).expect("adds");
        let hiding = std::collections::BTreeMap::from([("trusted.overlay.opaque".into(), b"y".as_slice().into())]);
        let hidden = Attributes { xattrs: hiding, ..attributes(0o755) };
        let dir = tree.add(Tree::ROOT, b"hidden", Made::Directory, hidden).expect("adds");
        tree.add(dir, b"above", Made::File(content), attributes(0o600)).expect("adds");
        image.finish(&tree, [1; 16]).expect("finishes");
        let layers = [Layer::of_directory(directory), Layer::of_image(home).expect("mounts")];
        let dir = root.path().join("container");
        prepare(&dir).expect("prepares");
        let merged = dir.join("mount/fs");
        let rootfs = Rootfs { dir: &dir, on: &merged, layers: &layers, volatile: false, project: None };
        rootfs.mount(&trash).expect("mounts");
        let (at, device) =
            (|path: &str| merged.join(path), |path: &str| fs::metadata(merged.join(path)).expect(path).dev());
        assert!(!at("gone").exists() && !at("hidden/below").exists());
        assert_eq!(fs::read_to_string(at("hidden/above")).expect("read"), "image");
        assert_eq!(fs::read_to_string(at("kept")).expect("read"), "directory");
        assert_eq!(fs::metadata(&merged).expect("root").mode() & 0o7777, 0o751);
        let inode = fs::metadata(at("hidden/above")).expect("file").ino();
        fs::write(at("hidden/above"), "changed").expect("copied up");
        assert_eq!(fs::metadata(at("hidden/above")).expect("file").ino(), inode);
        fs::write(at("new"), "").expect("written");
        for file in ["kept", "hidden", "hidden/above", "new"] {
            assert_eq!(device(file), device("."), "{file}");
        }
        // Whoever made the mount may have gone.
        drop(layers);
        assert_eq!(fs::read_to_string(dir.join("upper/hidden/above")).expect("read"), "changed");
        assert_eq!(fs::read_to_string(at("hidden/above")).expect("read"), "changed");
        unmount(&merged).expect("unmounts");
    }
}
