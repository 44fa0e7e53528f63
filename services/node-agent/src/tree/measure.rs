//! What containers weigh: the bytes of the files in their writable layer, and of the image's layers,
//! which never change and are weighed once.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use contract::agent::ContainerSize;
use rustix::fs::{CWD, FileType, Mode, OFlags, openat};

use super::{root::Node, walk::Listing};
use crate::layers::Layer;

/// Time for one tree; a tenant can make one of any size.
const PATIENCE: Duration = Duration::from_secs(10);

/// Weights of layers, by where they are kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct LayerWeights(Arc<Mutex<HashMap<PathBuf, u64>>>);

impl LayerWeights {
    /// A container's size; `None` if it cannot be told in time.
    pub(crate) fn container(&self, id: model::ContainerId, dir: &Path, layers: &[Layer]) -> Option<ContainerSize> {
        let rw_bytes = match pinned(&dir.join("upper")).and_then(weigh) {
            Ok(bytes) => bytes,
            // Nothing was prepared yet.
            Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => {
                tracing::info!(container = %id, %error, "its size cannot be told");
                return None;
            }
        };
        let below: Option<Vec<u64>> = layers.iter().map(|layer| self.layer(layer)).collect();
        let rootfs_bytes = below?.into_iter().fold(rw_bytes, u64::saturating_add);
        Some(ContainerSize { id, rw_bytes, rootfs_bytes })
    }

    fn layer(&self, layer: &Layer) -> Option<u64> {
        if let Some(known) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(layer.home()) {
            return Some(*known);
        }
        let bytes = layer.open().and_then(weigh).ok()?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(layer.home().to_owned(), bytes);
        Some(bytes)
    }
}

fn pinned(dir: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The lengths of everything below that is no directory, each file once.
fn weigh(top: OwnedFd) -> io::Result<u64> {
    let began = Instant::now();
    let (mut bytes, mut seen) = (0_u64, HashSet::new());
    let mut above = vec![Listing::new(Node::pin(top)?.list()?, 0)?];
    while let Some(listing) = above.last_mut() {
        let Some(name) = listing.next()? else {
            above.pop();
            continue;
        };
        if began.elapsed() > PATIENCE {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let Some(node) = Node::child(&listing.dir, &name)? else { continue };
        if node.is_open_directory() {
            let below = Listing::new(node.list()?, above.len())?;
            above.push(below);
        } else if node.kind() != FileType::Directory {
            let stat = &node.stat;
            if stat.st_nlink == 1 || seen.insert((stat.st_dev, stat.st_ino)) {
                bytes = bytes.saturating_add(u64::try_from(stat.st_size).unwrap_or(0));
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_file_weighs_its_length_once() {
        let root = tempfile::tempdir().expect("temporary directory");
        fs::create_dir_all(root.path().join("a/b")).expect("create");
        fs::write(root.path().join("a/b/file"), [0; 1000]).expect("write");
        fs::hard_link(root.path().join("a/b/file"), root.path().join("again")).expect("link");
        std::os::unix::fs::symlink("four", root.path().join("link")).expect("link");
        fs::File::create(root.path().join("hole")).expect("create").set_len(1 << 40).expect("length");
        assert_eq!(weigh(pinned(root.path()).expect("opens")).expect("weighs"), 1000 + 4 + (1 << 40));
    }
}
