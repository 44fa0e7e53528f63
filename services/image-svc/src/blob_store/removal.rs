//! Blobs out of the store. What is to go is condemned first: nobody begins to work with it until it is
//! gone. The file goes on a thread that holds the condemnation, so that whoever waited for it comes after
//! the file's end even if the task that wanted the removal is no more.

use std::{
    io,
    time::{Duration, SystemTime},
};

use model::{Digest, DigestAlgorithm, Error, Result};

use super::{BlobStore, kept, location, storage_error};
pub(crate) use kept::{Condemned, Kept};

/// Directories that blobs of one hash are spread over.
pub(crate) const SHARDS: u16 = 256;

impl BlobStore {
    /// Until the answer is dropped none of these blobs is collected. Whoever finds a blob here and means to
    /// refer to it keeps it from before the look until the reference is committed.
    pub(crate) async fn keep(&self, digests: Vec<Digest>) -> Kept {
        self.in_use.keep(digests).await
    }

    /// What work under way keeps now.
    pub(crate) fn kept(&self) -> Vec<Digest> {
        self.in_use.kept()
    }

    /// Takes a blob for its removal; `None` while somebody keeps it.
    pub(crate) fn condemn(&self, digest: &Digest) -> Option<Condemned> {
        self.in_use.condemn(digest)
    }

    /// Removes the file of a blob that has no row. Readers that opened it read on.
    ///
    /// # Errors
    /// The disk does not let it go.
    pub(crate) async fn remove(&self, condemned: Condemned) -> Result<()> {
        let file = self.root.join(location(condemned.digest()).as_ref());
        let removed = tokio::task::spawn_blocking(move || {
            let removed = std::fs::remove_file(file);
            drop(condemned);
            removed
        });
        match removed.await.map_err(Error::internal)? {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(storage_error("a blob to remove", &error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Blobs in one directory that were written before so long.
    ///
    /// # Errors
    /// The disk does not answer.
    pub(crate) async fn stored_before(&self, age: Duration, shard: u16) -> Result<Vec<Digest>> {
        let root = self.root.join("blobs");
        let look = move || -> io::Result<Vec<Digest>> {
            let (now, mut found) = (SystemTime::now(), Vec::new());
            for algorithm in [DigestAlgorithm::Sha256, DigestAlgorithm::Sha512] {
                let entries = match std::fs::read_dir(root.join(algorithm.as_str()).join(format!("{shard:02x}"))) {
                    Ok(entries) => entries,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                };
                for entry in entries {
                    let entry = entry?;
                    // What is being written has another name than a digest's.
                    let name = entry.file_name().to_string_lossy().into_owned();
                    let Ok(digest) = format!("{}:{name}", algorithm.as_str()).parse::<Digest>() else { continue };
                    let written = match entry.metadata().and_then(|meta| meta.modified()) {
                        Ok(written) => written,
                        Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                        Err(error) => return Err(error),
                    };
                    if now.duration_since(written).unwrap_or_default() >= age {
                        found.push(digest);
                    }
                }
            }
            Ok(found)
        };
        let found = tokio::task::spawn_blocking(look).await.map_err(Error::internal)?;
        found.map_err(|error| storage_error("the blobs", &error))
    }
}
