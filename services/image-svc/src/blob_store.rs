//! Blobs by digest over `object_store`: `blobs/sha256/ab/<hex>`. A name appears only with its whole,
//! verified, durable content behind it; what was begun and not finished leaves nothing.

mod kept;
mod removal;

use std::{
    fs::File,
    io,
    ops::Range,
    path::{Path as FsPath, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use model::{Digest, DigestAlgorithm, Error, Result};
use object_store::{
    GetOptions, GetResultPayload, ObjectStore, ObjectStoreExt as _, WriteMultipart, local::LocalFileSystem, path::Path,
};
use ring::digest::{Algorithm, Context, SHA256, SHA512};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use crate::limits::{BLOB_PART_BYTES, SERVE_CHUNK_BYTES};
pub(crate) use removal::{Kept, SHARDS};

/// The store. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct BlobStore {
    objects: Arc<dyn ObjectStore>,
    root: PathBuf,
    in_use: Arc<kept::InUse>,
    // Held as long as the store: two processes would take each other's unfinished files away.
    _lock: Arc<File>,
}

/// A stored blob, or a part of it, on its way out.
pub(crate) struct BlobBody {
    /// Its bytes.
    pub(crate) stream: BoxStream<'static, io::Result<Bytes>>,
}

impl BlobStore {
    /// Opens a directory, making it if needed, and clears what an earlier process left unfinished.
    ///
    /// # Errors
    /// The directory cannot be used, or another process uses it.
    pub(crate) fn open(root: &FsPath) -> io::Result<Self> {
        std::fs::create_dir_all(root)?;
        let lock = File::create(root.join("lock"))?;
        lock.try_lock().map_err(|e| io::Error::other(format!("{} is in use: {e}", root.display())))?;
        std::fs::create_dir_all(root.join("staging"))?;
        std::fs::create_dir_all(root.join("uploads"))?;
        remove_unfinished(&root.join("blobs"))?;
        let objects = LocalFileSystem::new_with_prefix(root)?.with_fsync(true);
        Ok(Self { objects: Arc::new(objects), root: root.to_owned(), in_use: Arc::default(), _lock: Arc::new(lock) })
    }

    /// Whether content can be written now.
    ///
    /// # Errors
    /// It cannot; the text says why.
    pub(crate) async fn check(&self) -> Result<()> {
        let probe = self.root.join("writable");
        tokio::fs::write(&probe, b"wharfage").await.map_err(|e| storage_error("the blob directory", &e))
    }

    /// Where content may be put together before its digest is known.
    pub(crate) fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    /// Where uploads to the registry grow; they outlive this process.
    pub(crate) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    /// Makes a file of [`BlobStore::uploads`], durable and verified, the blob it is: by its name alone.
    ///
    /// # Errors
    /// The store does not take it.
    pub(crate) async fn adopt(&self, file: &FsPath, digest: &Digest) -> Result<()> {
        let (from, to) = (file.to_owned(), self.root.join(location(digest).as_ref()));
        let moved = tokio::task::spawn_blocking(move || {
            let shard = to.parent().ok_or(io::ErrorKind::InvalidInput)?;
            if !shard.exists() {
                std::fs::create_dir_all(shard)?;
                shard.parent().map_or(Ok(()), sync_directory)?;
            }
            std::fs::rename(&from, &to)?;
            sync_directory(shard)
        });
        moved.await.map_err(Error::internal)?.map_err(|e| storage_error(digest.as_str(), &e))
    }

    /// Stores a document that is in memory.
    ///
    /// # Errors
    /// It is not what the digest names, or the store does not take it.
    pub(crate) async fn put(&self, digest: &Digest, content: Bytes) -> Result<()> {
        let mut writer = self.begin(digest, content.len() as u64).await?;
        writer.write(content).await?;
        writer.finish().await
    }

    /// Length of a stored blob; `None` if it is not stored.
    ///
    /// # Errors
    /// The store does not answer.
    pub(crate) async fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        match self.objects.head(&location(digest)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(storage_error("a blob", &error)),
        }
    }

    /// Begins to store a blob of a known length.
    ///
    /// # Errors
    /// The store does not take it.
    pub(crate) async fn begin(&self, digest: &Digest, size_bytes: u64) -> Result<BlobWriter> {
        let upload = self.objects.put_multipart(&location(digest)).await.map_err(|e| storage_error("a blob", &e))?;
        Ok(BlobWriter {
            parts: WriteMultipart::new_with_chunk_size(upload, BLOB_PART_BYTES),
            sum: Context::new(hash(digest.algorithm())),
            digest: digest.clone(),
            size_bytes,
            written: 0,
        })
    }

    /// Reads a blob, from `range.start` up to `range.end` where given.
    ///
    /// # Errors
    /// `NotFound`, or the store does not answer.
    pub(crate) async fn read(&self, digest: &Digest, range: Option<Range<u64>>) -> Result<BlobBody> {
        let options = GetOptions::new().with_range(range);
        let found = match self.objects.get_opts(&location(digest), options).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => {
                return Err(Error::NotFound(format!("blob {digest} is not stored")));
            }
            Err(error) => return Err(storage_error("a blob", &error)),
        };
        let range = found.range.clone();
        let stream = match found.payload {
            // object_store reads files in 8 KiB steps; large ones are several times as fast.
            GetResultPayload::File(file, _) => {
                let mut file = tokio::fs::File::from_std(file);
                file.seek(io::SeekFrom::Start(range.start)).await.map_err(|e| storage_error("a blob", &e))?;
                ReaderStream::with_capacity(file.take(range.end - range.start), SERVE_CHUNK_BYTES).boxed()
            }
            GetResultPayload::Stream(stream) => stream.map_err(io::Error::from).boxed(),
        };
        Ok(BlobBody { stream })
    }
}

/// A blob being written. Dropping it leaves nothing.
pub(crate) struct BlobWriter {
    parts: WriteMultipart,
    sum: Context,
    digest: Digest,
    size_bytes: u64,
    written: u64,
}

impl BlobWriter {
    /// Bytes taken so far: where a resumed download goes on.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// More than was announced, or the disk is full.
    pub(crate) async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.written += chunk.len() as u64;
        if self.written > self.size_bytes {
            return Err(Error::Failed(format!(
                "blob {} is longer than the {} bytes its descriptor says",
                self.digest, self.size_bytes
            )));
        }
        self.sum.update(&chunk);
        self.parts.wait_for_capacity(2).await.map_err(|e| storage_error(self.digest.as_str(), &e))?;
        self.parts.put(chunk);
        Ok(())
    }

    /// Verifies the digest and makes the blob visible, durable.
    ///
    /// # Errors
    /// The content is not what the digest names, or the disk is full; nothing is left then.
    pub(crate) async fn finish(self) -> Result<()> {
        let Self { parts, sum, digest, size_bytes, written } = self;
        let verified =
            if written == size_bytes { verify(&digest, sum) } else { Err(short(&digest, size_bytes, written)) };
        match verified {
            Ok(()) => parts.finish().await.map(drop).map_err(|e| storage_error(digest.as_str(), &e)),
            Err(error) => {
                parts.abort().await.map_err(|e| storage_error(digest.as_str(), &e))?;
                Err(error)
            }
        }
    }
}

/// The digest of a document in memory.
pub(crate) fn digest_of(content: &[u8]) -> Digest {
    let mut sum = [0; 32];
    sum.copy_from_slice(ring::digest::digest(&SHA256, content).as_ref());
    Digest::sha256(sum)
}

/// The digest of a document in memory, by either hash.
pub(crate) fn digest_by(algorithm: DigestAlgorithm, content: &[u8]) -> Digest {
    digest_from(&ring::digest::digest(hash(algorithm), content))
}

/// The hash behind a digest's name.
pub(crate) fn hash(algorithm: DigestAlgorithm) -> &'static Algorithm {
    match algorithm {
        DigestAlgorithm::Sha256 => &SHA256,
        DigestAlgorithm::Sha512 => &SHA512,
    }
}

/// A sum of either hash as a digest.
pub(crate) fn digest_from(sum: &ring::digest::Digest) -> Digest {
    match <[u8; 64]>::try_from(sum.as_ref()) {
        Ok(long) => Digest::sha512(long),
        Err(_) => {
            let mut short = [0; 32];
            short.copy_from_slice(sum.as_ref());
            Digest::sha256(short)
        }
    }
}

fn sync_directory(at: &FsPath) -> io::Result<()> {
    File::open(at)?.sync_all()
}

fn verify(expected: &Digest, sum: Context) -> Result<()> {
    let got = digest_from(&sum.finish());
    if got == *expected { Ok(()) } else { Err(mismatch(expected, &got)) }
}

/// The error for content that is not what its digest names.
pub(crate) fn mismatch(expected: &Digest, got: &Digest) -> Error {
    Error::Failed(format!("filesystem layer verification failed for digest {expected}: expected {expected}, got {got}"))
}

fn short(digest: &Digest, size_bytes: u64, written: u64) -> Error {
    Error::Failed(format!("blob {digest} ends after {written} of {size_bytes} bytes"))
}

fn location(digest: &Digest) -> Path {
    Path::from(contract::registry::blob_file(digest))
}

/// Names what could not be stored and why, without paths of this machine.
pub(crate) fn storage_error(what: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    let mut cause = Some(error);
    while let Some(at) = cause {
        if let Some(io) = at.downcast_ref::<io::Error>() {
            if matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
                tracing::error!(what, "the blob store is full");
                return Error::Failed(format!("cannot store {what}: no space left on device"));
            }
            break;
        }
        cause = at.source();
    }
    Error::internal(format!("blob store, {what}: {error}"))
}

/// `object_store` stages at `<name>#<n>`; no digest has a `#` in it.
fn remove_unfinished(directory: &FsPath) -> io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_unfinished(&entry.path())?;
        } else if entry.file_name().to_string_lossy().contains('#') {
            tracing::info!(file = %entry.path().display(), "removing an unfinished blob");
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(root: &FsPath) -> Vec<String> {
        fn walk(at: &FsPath, into: &mut Vec<String>) {
            for entry in std::fs::read_dir(at).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    walk(&entry.path(), into);
                } else {
                    into.push(entry.file_name().to_string_lossy().into_owned());
                }
            }
        }
        let mut found = Vec::new();
        walk(&root.join("blobs"), &mut found);
        found
    }

    #[tokio::test]
    async fn a_blob_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("tempdir");
        let blobs = BlobStore::open(dir.path()).expect("open");
        let digest = digest_of(b"hello");
        let mut writer = blobs.begin(&digest, 5).await.expect("begin");
        writer.write(Bytes::from_static(b"hel")).await.expect("write");
        assert_eq!(blobs.size(&digest).await, Ok(None), "half a blob is not visible");
        writer.write(Bytes::from_static(b"lo")).await.expect("write");
        writer.finish().await.expect("finish");
        assert_eq!(blobs.size(&digest).await, Ok(Some(5)));
        let body = blobs.read(&digest, Some(1..3)).await.expect("read");
        let bytes: Vec<Bytes> = body.stream.try_collect().await.expect("bytes");
        assert_eq!(bytes.concat(), b"el");
        assert_eq!(files(dir.path()), [digest.hex()]);
    }

    #[tokio::test]
    async fn content_that_lies_about_its_digest_or_length_leaves_no_file() {
        let dir = tempfile::tempdir().expect("tempdir");
        let blobs = BlobStore::open(dir.path()).expect("open");
        let digest = digest_of(b"hello");
        let mut writer = blobs.begin(&digest, 5).await.expect("begin");
        writer.write(Bytes::from_static(b"HELLO")).await.expect("write");
        let error = writer.finish().await.expect_err("another content").to_string();
        assert!(
            error.contains(&format!("expected {digest}")) && error.contains(digest_of(b"HELLO").as_str()),
            "{error}"
        );
        let mut writer = blobs.begin(&digest, 5).await.expect("begin");
        let error = writer.write(Bytes::from_static(b"hello, world")).await.expect_err("too long").to_string();
        assert!(error.contains("longer than the 5 bytes"), "{error}");
        drop(writer);
        for _ in 0..100 {
            if files(dir.path()).is_empty() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("left: {:?}", files(dir.path()));
    }

    #[tokio::test]
    async fn what_a_killed_process_left_unfinished_is_cleared_at_start() {
        let dir = tempfile::tempdir().expect("tempdir");
        let shard = dir.path().join("blobs/sha256/ab");
        std::fs::create_dir_all(&shard).expect("mkdir");
        std::fs::write(shard.join("abcd#1"), b"half").expect("write");
        std::fs::write(shard.join("abcd"), b"whole").expect("write");
        let _blobs = BlobStore::open(dir.path()).expect("open");
        assert_eq!(files(dir.path()), ["abcd"]);
        assert!(BlobStore::open(dir.path()).is_err(), "a second process may not share the directory");
    }

    /// A file system of one mebibyte, unmounted in any case.
    struct SmallDisk(tempfile::TempDir);

    impl SmallDisk {
        fn mount() -> Self {
            let disk = Self(tempfile::tempdir().expect("tempdir"));
            disk.run("mount", &["-t", "tmpfs", "-o", "size=1m", "wt-small"]);
            disk
        }

        fn run(&self, program: &str, arguments: &[&str]) {
            let status = std::process::Command::new(program).args(arguments).arg(self.0.path()).status();
            assert!(status.expect(program).success(), "{program}: this test needs root");
        }
    }

    impl Drop for SmallDisk {
        fn drop(&mut self) {
            self.run("umount", &["-l"]);
        }
    }

    #[tokio::test]
    async fn a_full_disk_is_named_and_nothing_stays_on_it() {
        let disk = SmallDisk::mount();
        let blobs = BlobStore::open(disk.0.path()).expect("open");
        let content = vec![7; 12 * 1024 * 1024];
        let mut writer = blobs.begin(&digest_of(&content), content.len() as u64).await.expect("begin");
        let mut outcome = Ok(());
        for chunk in content.chunks(64 * 1024) {
            outcome = writer.write(Bytes::copy_from_slice(chunk)).await;
            if outcome.is_err() {
                break;
            }
        }
        let error = match outcome {
            Ok(()) => writer.finish().await,
            Err(error) => {
                drop(writer);
                Err(error)
            }
        };
        let error = error.expect_err("twelve do not fit into one").to_string();
        assert!(error.contains("no space left on device"), "{error}");
        for _ in 0..100 {
            if files(disk.0.path()).is_empty() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("left: {:?}", files(disk.0.path()));
    }
}
