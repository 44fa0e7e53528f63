//! Unpacked layers on this host: `<data_dir>/layers/<diff_id hex>/fs`, shared by every container
//! whose image has them. A layer appears by one rename and only after both of its digests were
//! verified, so whatever has the name is whole.
//!
//! Power loss: nothing is synced before the rename, because a pull must not wait for the disk. A
//! layer carries the boot it was made in; another boot trusts it only if a later `syncfs` said so.

mod archive;
mod clear;
mod decode;
mod place;
mod unpack;

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use model::Digest;

pub(crate) use decode::Limits;
pub(crate) use place::Rules;
pub(crate) use unpack::{Extraction, Source, UnpackError, extract, unpack};

use crate::discard::Trash;

/// The directory of layers.
#[derive(Clone, Debug)]
pub(crate) struct Layers {
    dir: PathBuf,
    trash: Trash,
    boot_id: String,
}

const BOOT: &str = "boot";
const SYNCED: &str = "synced";
const STAGE_PREFIX: &str = ".stage-";

impl Layers {
    /// Opens the directory, and discards what a crash left half-made.
    ///
    /// # Errors
    /// It cannot be made or read.
    pub(crate) fn open(dir: PathBuf, trash: Trash, boot_id: &str) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let layers = Self { dir, trash, boot_id: boot_id.to_owned() };
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
        let made_in = fs::read_to_string(layer.join(BOOT)).unwrap_or_default();
        made_in == self.boot_id || layer.join(SYNCED).exists()
    }

    fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.dir.join(diff_id.hex())
    }

    /// The unpacked file system of a layer, if it is here.
    pub(crate) fn find(&self, diff_id: &Digest) -> Option<PathBuf> {
        let fs = self.layer(diff_id).join("fs");
        fs.is_dir().then_some(fs)
    }

    /// A fresh directory to unpack into. Dropped without [`Stage::publish`], it is discarded.
    ///
    /// # Errors
    /// The disk is full.
    pub(crate) fn stage(&self) -> io::Result<Stage> {
        let path = self.dir.join(format!("{STAGE_PREFIX}{}", uuid::Uuid::from_bytes(chassis::ids::random_bytes())));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        let stage = Stage { path, layers: self.clone() };
        // 0755: this is the container's `/`, unless the layer says otherwise.
        fs::DirBuilder::new().mode(0o755).create(stage.fs())?;
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

    fn fs(&self) -> PathBuf {
        self.path.join("fs")
    }

    /// Gives it its name. Losing against another writer of the same content is fine.
    ///
    /// # Errors
    /// The rename failed.
    pub(crate) fn publish(self, diff_id: &Digest) -> io::Result<PathBuf> {
        let home = self.layers.layer(diff_id);
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
        Ok(home.join("fs"))
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
    rustix::fs::syncfs(&dir)?;
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
        let layers = Layers::open(dir.clone(), trash.clone(), "boot-1").expect("opens");
        drop(layers.stage().expect("stage"));
        assert_eq!(fs::read_dir(&dir).expect("read").count(), 0);
        let (safe, unsafe_one) = (Digest::sha256([1; 32]), Digest::sha256([2; 32]));
        for digest in [&safe, &unsafe_one] {
            let mut stage = layers.stage().expect("stage");
            fs::rename(std::mem::take(&mut stage.path), layers.layer(digest)).expect("rename");
        }
        fs::write(layers.layer(&safe).join(SYNCED), "").expect("mark");
        let again = Layers::open(dir, trash, "boot-2").expect("opens");
        assert!(again.find(&safe).is_some());
        assert!(again.find(&unsafe_one).is_none());
    }
}
