//! Images as archives: what `docker save` writes and `docker load` reads. One tar is an OCI layout and
//! Docker's own format at once. An archive that comes in is hostile: its names are keys of a map and
//! never paths of this machine, and its content counts only if its digests say so.

mod layout;
mod load;
mod members;
mod path;
mod save;
mod spool;

use std::{io, sync::Arc};

use chassis::Bus;
use model::Error;
use store::Store;
use tokio::sync::Semaphore;

use crate::{
    blob_store::BlobStore,
    limits::{LOADS_MAX, SAVES_MAX},
    upstream::Platform,
};

/// Packs images and takes them in. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Archives {
    store: Store,
    blobs: BlobStore,
    bus: Bus,
    platform: Platform,
    loads: Arc<Semaphore>,
    saves: Arc<Semaphore>,
}

impl Archives {
    pub(crate) fn new(store: Store, blobs: BlobStore, bus: Bus, platform: Platform) -> Self {
        let (loads, saves) = (Arc::new(Semaphore::new(LOADS_MAX)), Arc::new(Semaphore::new(SAVES_MAX)));
        Self { store, blobs, bus, platform, loads, saves }
    }
}

/// What is wrong with an archive, on its way to whoever sent it.
fn refuse(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("invalid archive: {why}"))
}

/// Why an archive was not taken.
fn told(error: &io::Error) -> Error {
    use io::ErrorKind as Kind;
    let (kind, text) = (error.kind(), error.to_string());
    if matches!(kind, Kind::StorageFull | Kind::QuotaExceeded) {
        Error::Failed("cannot store an archive: no space left on device".into())
    } else if kind == Kind::ResourceBusy {
        Error::Unavailable(text)
    } else if kind == Kind::ConnectionAborted {
        Error::Failed(format!("the archive broke off: {text}"))
    } else if kind == Kind::TimedOut {
        Error::Failed("the archive did not go on".into())
    } else if matches!(kind, Kind::InvalidData | Kind::InvalidInput | Kind::UnexpectedEof) {
        let known = text.starts_with("invalid archive: ");
        Error::InvalidArgument(if known { text } else { format!("invalid archive: {text}") })
    } else {
        Error::internal(format!("taking an archive: {text}"))
    }
}

/// Where a blob is in a layout.
fn blob_path(digest: &model::Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

fn platform(text: &str) -> Result<Platform, Error> {
    Platform::parse(text).ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        Error::invalid("platform", &format!("{shown:?} is not os/architecture[/variant]"))
    })
}
