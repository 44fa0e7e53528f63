//! Layers on this host: `<data_dir>/layers/<diff_id hex>`, shared by every container whose image has them.
//! Each is a directory (`fs`) or an image of a file system (`image`), whichever this host makes; both
//! kinds stand side by side. A layer appears by one rename and only after both of its digests were
//! verified, so whatever has the name is whole, and no half-written image is ever mounted.
//!
//! Power loss: nothing is synced before the rename, because a pull must not wait for the disk. A
//! layer carries the boot it was made in; another boot trusts it only if a later sync said so.

mod ahead;
mod archive;
mod clear;
mod decode;
mod imaging;
mod mounted;
mod place;
mod unpack;

use std::{
    collections::HashMap,
    fs, io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::fs::DirBuilderExt as _,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use model::Digest;
use rustix::fs::{CWD, Mode, OFlags, openat};

pub(crate) use decode::Limits;
pub(crate) use place::Rules;
pub(crate) use unpack::{Extraction, Form, Source, UnpackError, extract, unpack};

use crate::discard::Trash;

/// The directory of layers.
#[derive(Clone, Debug)]
pub(crate) struct Layers {
    dir: PathBuf,
    trash: Trash,
    boot_id: String,
    form: Form,
    /// Of images, those that are mounted: once they were needed, as long as this agent lives.
    mounted: Arc<Mutex<HashMap<Digest, Layer>>>,
}

const BOOT: &str = "boot";
const SYNCED: &str = "synced";
const FS: &str = "fs";
const IMAGE: &str = "image";
const STAGE_PREFIX: &str = ".stage-";

/// A layer that is here and can be a part of root file systems.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    home: PathBuf,
    mount: Option<Arc<OwnedFd>>,
}

impl Layer {
    /// One that is a directory.
    pub(crate) fn of_directory(fs: PathBuf) -> Self {
        Self { home: fs, mount: None }
    }

    /// One that is an image: `image` in `home`.
    ///
    /// # Errors
    /// The kernel does not mount it.
    pub(crate) fn of_image(home: PathBuf) -> io::Result<Self> {
        let mount = mounted::mount(&home.join(IMAGE))?;
        Ok(Self { home, mount: Some(Arc::new(mount)) })
    }

    /// Where it is kept: tells it from others.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// A path to its root, as long as this lives.
    pub(crate) fn path(&self) -> PathBuf {
        match &self.mount {
            Some(mount) => format!("/proc/self/fd/{}", mount.as_raw_fd()).into(),
            None => self.home.clone(),
        }
    }

    /// The mount, of one that is an image.
    pub(crate) fn mount(&self) -> Option<BorrowedFd<'_>> {
        self.mount.as_ref().map(|mount| mount.as_fd())
    }

    /// Its root, pinned.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match &self.mount {
            Some(mount) => Ok(openat(mount, ".", flags, Mode::empty())?),
            None => Ok(openat(CWD, &self.home, flags | OFlags::NOFOLLOW, Mode::empty())?),
        }
    }
}

/// Finds out whether layers can be images here: makes one at `place` and has it tried.
///
/// # Errors
/// Why they cannot.
pub(crate) fn try_images(place: &Path, try_out: impl FnOnce(&Layer) -> io::Result<()>) -> io::Result<()> {
    let _ = fs::remove_dir_all(place);
    let outcome = fs::DirBuilder::new().mode(0o700).create(place).and_then(|()| {
        mounted::write_trial(&place.join(IMAGE))?;
        try_out(&Layer::of_image(place.to_owned())?)
    });
    let _ = fs::remove_dir_all(place);
    outcome
}

impl Layers {
    /// Opens the directory, and discards what a crash left half-made, and images if this host does not
    /// make any (its kernel may be another than it was).
    ///
    /// # Errors
    /// It cannot be made or read.
    pub(crate) fn open(dir: PathBuf, trash: Trash, boot_id: &str, form: Form) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let layers = Self { dir, trash, boot_id: boot_id.to_owned(), form, mounted: Arc::default() };
        for entry in fs::read_dir(&layers.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let staged = name.to_string_lossy().starts_with(STAGE_PREFIX);
            if staged || !layers.is_sound(&entry.path()) {
                tracing::info!(layer = %name.to_string_lossy(), "discarding a layer that may not be whole");
                layers.trash.discard(&entry.path())?;
            }
        }
        Ok(layers)
    }

    fn is_sound(&self, layer: &Path) -> bool {
        if self.form == Form::Directory && layer.join(IMAGE).exists() {
            return false;
        }
        let made_in = fs::read_to_string(layer.join(BOOT)).unwrap_or_default();
        made_in == self.boot_id || layer.join(SYNCED).exists()
    }

    /// What layers become here, unless one cannot.
    pub(crate) fn form(&self) -> Form {
        self.form
    }

    fn home(&self, diff_id: &Digest) -> PathBuf {
        self.dir.join(diff_id.hex())
    }

    /// A layer, if it is here.
    pub(crate) fn find(&self, diff_id: &Digest) -> Option<Layer> {
        // Held while it is mounted: a second mount of the same image would keep in memory what the first has.
        let mut mounted = self.mounted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(layer) = mounted.get(diff_id) {
            return Some(layer.clone());
        }
        let home = self.home(diff_id);
        let fs = home.join(FS);
        if fs.is_dir() {
            return Some(Layer::of_directory(fs));
        }
        if !home.join(IMAGE).is_file() {
            return None;
        }
        match Layer::of_image(home.clone()) {
            Ok(layer) => {
                mounted.insert(diff_id.clone(), layer.clone());
                Some(layer)
            }
            Err(error) => {
                tracing::error!(layer = %diff_id, %error, "a layer cannot be mounted");
                if mounted::is_broken(&error) && self.trash.discard(&home).is_ok() {
                    tracing::warn!(layer = %diff_id, "discarded; it will be fetched again");
                }
                None
            }
        }
    }

    /// A fresh directory to unpack into. Dropped without [`Stage::publish`], it is discarded.
    ///
    /// # Errors
    /// The disk is full.
    pub(crate) fn stage(&self, form: Form) -> io::Result<Stage> {
        let path = self.dir.join(format!("{STAGE_PREFIX}{}", uuid::Uuid::from_bytes(chassis::ids::random_bytes())));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        let stage = Stage { path, layers: self.clone() };
        if form == Form::Directory {
            // 0755: this is the container's `/`, unless the layer says otherwise.
            fs::DirBuilder::new().mode(0o755).create(stage.path.join(FS))?;
        }
        fs::write(stage.path.join(BOOT), &self.boot_id)?;
        Ok(stage)
    }
}

/// A layer being unpacked.
#[derive(Debug)]
pub(crate) struct Stage {
    path: PathBuf,
    layers: Layers,
}

impl Stage {
    /// What [`unpack`] takes.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name. Losing against another writer of the same content is fine.
    ///
    /// # Errors
    /// The rename failed, or what has the name cannot be used.
    pub(crate) fn publish(self, diff_id: &Digest) -> io::Result<Layer> {
        let home = self.layers.home(diff_id);
        match fs::rename(&self.path, &home) {
            Err(e) if e.kind() != io::ErrorKind::DirectoryNotEmpty && e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(e);
            }
            Ok(()) | Err(_) => {}
        }
        let synced = home.clone();
        std::thread::spawn(move || {
            if let Err(error) = sync(&synced) {
                tracing::warn!(layer = %synced.display(), %error, "a layer could not be synced");
            }
        });
        self.layers.find(diff_id).ok_or_else(|| io::Error::other("it was made and cannot be used"))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.path.exists()
            && let Err(error) = self.layers.trash.discard(&self.path)
        {
            tracing::warn!(stage = %self.path.display(), %error, "a half-made layer could not be discarded");
        }
    }
}

fn sync(layer: &Path) -> io::Result<()> {
    let dir = fs::File::open(layer)?;
    match fs::File::open(layer.join(IMAGE)) {
        // One file: the rest of the disk need not be waited for.
        Ok(image) => {
            image.sync_all()?;
            dir.sync_all()?;
            layer.parent().map_or(Ok(()), |layers| fs::File::open(layers)?.sync_all())?;
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => rustix::fs::syncfs(&dir)?,
        Err(e) => return Err(e),
    }
    fs::write(layer.join(SYNCED), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_is_dropped_leaves_nothing_and_another_boot_trusts_only_what_was_synced() {
        let root = tempfile::tempdir().expect("temporary directory");
        let trash = Trash::open(root.path().join("trash")).expect("trash");
        let dir = root.path().join("layers");
        let layers = Layers::open(dir.clone(), trash.clone(), "boot-1", Form::Directory).expect("opens");
        drop(layers.stage(Form::Directory).expect("stage"));
        assert_eq!(fs::read_dir(&dir).expect("read").count(), 0);
        let (safe, unsafe_one) = (Digest::sha256([1; 32]), Digest::sha256([2; 32]));
        for digest in [&safe, &unsafe_one] {
            let mut stage = layers.stage(Form::Directory).expect("stage");
            fs::rename(std::mem::take(&mut stage.path), layers.home(digest)).expect("rename");
        }
        fs::write(layers.home(&safe).join(SYNCED), "").expect("mark");
        let again = Layers::open(dir, trash, "boot-2", Form::Directory).expect("opens");
        assert!(again.find(&safe).is_some());
        assert!(again.find(&unsafe_one).is_none());
    }

    fn image(layers: &Layers, digest: &Digest) -> PathBuf {
        let home = layers.home(digest);
        fs::create_dir(&home).expect("create");
        fs::write(home.join(BOOT), &layers.boot_id).expect("write");
        mounted::write_trial(&home.join(IMAGE)).expect("written");
        home
    }

    #[test]
    fn an_image_the_kernel_does_not_take_is_discarded_and_fetched_again() {
        let root = tempfile::tempdir().expect("temporary directory");
        let trash = Trash::open(root.path().join("trash")).expect("trash");
        let layers = Layers::open(root.path().join("layers"), trash, "boot", Form::Image).expect("opens");
        let (whole, cut) = (Digest::sha256([1; 32]), Digest::sha256([2; 32]));
        image(&layers, &whole);
        let broken = image(&layers, &cut);
        // As it is before its last write.
        fs::OpenOptions::new().write(true).open(broken.join(IMAGE)).expect("open").set_len(1024).expect("cut");
        let layer = layers.find(&whole).expect("is here");
        assert_eq!(fs::read_to_string(layer.path().join("file")).expect("mounted"), "content");
        assert!(layers.find(&cut).is_none() && !broken.exists());
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        assert!(!mounts.contains(&*root.path().to_string_lossy()), "nothing of it is mounted anywhere");
    }

    #[test]
    fn both_kinds_stand_side_by_side_and_images_go_where_none_are_made() {
        let root = tempfile::tempdir().expect("temporary directory");
        let trash = Trash::open(root.path().join("trash")).expect("trash");
        let open = |form| Layers::open(root.path().join("layers"), trash.clone(), "boot", form).expect("opens");
        let layers = open(Form::Image);
        let (one, two) = (Digest::sha256([1; 32]), Digest::sha256([2; 32]));
        image(&layers, &one);
        layers.stage(Form::Directory).expect("stage").publish(&two).expect("published");
        assert!(layers.find(&one).is_some() && layers.find(&two).is_some());
        let layers = open(Form::Image);
        assert!(layers.find(&one).is_some() && layers.find(&two).is_some());
        let layers = open(Form::Directory);
        assert!(layers.find(&one).is_none() && layers.find(&two).is_some());
    }
}
