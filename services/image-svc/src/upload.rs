//! A layer that comes from inside the fleet: a container's changes, a tarball to import. Nobody has
//! promised its digests, so it is unpacked, measured and packed again on its way into a file that has no
//! name, and becomes a blob when both digests are known.

mod packed;

use std::{
    fs::{File, OpenOptions},
    io::{self, Cursor, Read, Seek as _, SeekFrom, Write},
    path::Path,
    time::Duration,
};

use bytes::Bytes;
use flate2::{Compression, bufread::MultiGzDecoder, write::GzEncoder};
use futures::{Stream, StreamExt as _};
use model::{Digest, Error, LayerDescriptor, LayerEncoding, ProjectId, Result};
use ring::digest::{Context, SHA256};
use store::Store;
use tokio::{runtime::Handle, sync::mpsc};

use crate::{
    blob_store::BlobStore,
    limits::{LAYER_BYTES_MAX, SERVE_CHUNK_BYTES, UNPACKED_BYTES_MAX, UPLOAD_PATIENCE},
};

/// Hosts refuse a layer that unpacks to very much more than its size; what packs better than this is
/// stored as it is.
const RATIO_MAX: u64 = 100;
/// 32 MiB, as hosts allow.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;

/// A tar without entries: two zero blocks.
pub(crate) fn is_empty(layer: &LayerDescriptor) -> bool {
    layer.diff_id == crate::blob_store::digest_of(&[0; 1024])
}

/// Stores a tar as a layer.
///
/// # Errors
/// It is too large, cannot be unpacked, breaks off, or the disk is full.
pub(crate) async fn take<E>(
    store: &Store,
    blobs: &BlobStore,
    project: ProjectId,
    body: impl Stream<Item = std::result::Result<Bytes, E>> + Send + Unpin + 'static,
) -> Result<LayerDescriptor>
where
    E: std::fmt::Display + Send + 'static,
{
    let (sender, chunks) = mpsc::channel(8);
    let feed = async move {
        let mut body = body;
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|e| io::Error::new(io::ErrorKind::ConnectionAborted, e.to_string()));
            if sender.send(chunk).await.is_err() {
                return;
            }
        }
    };
    let dir = blobs.staging();
    let reader = Chunks::new(chunks, Handle::current());
    let packing = tokio::task::spawn_blocking(move || pack(reader, &dir));
    let (packed, ()) = tokio::join!(packing, feed);
    let (file, layer) = packed.map_err(Error::internal)?.map_err(|e| told(&e))?;
    let _kept = blobs.keep(vec![layer.digest.clone()]).await;
    if blobs.size(&layer.digest).await? != Some(layer.size_bytes) {
        store_file(blobs, file, &layer).await?;
    }
    store.record_blob(&layer.digest, layer.size_bytes, &format!("project:{project}")).await?;
    Ok(layer)
}

fn told(error: &io::Error) -> Error {
    use io::ErrorKind as Kind;
    let (kind, text) = (error.kind(), error.to_string());
    if matches!(kind, Kind::StorageFull | Kind::QuotaExceeded) {
        Error::Failed("cannot store a layer: no space left on device".into())
    } else if kind == Kind::ResourceBusy {
        Error::Unavailable(text)
    } else if kind == Kind::ConnectionAborted {
        Error::Failed(format!("the layer broke off: {text}"))
    } else if kind == Kind::TimedOut {
        Error::Failed("the layer did not go on".into())
    } else if matches!(kind, Kind::InvalidData | Kind::InvalidInput | Kind::UnexpectedEof) {
        Error::InvalidArgument(format!("the layer cannot be unpacked: {text}"))
    } else {
        Error::internal(format!("taking a layer: {text}"))
    }
}

/// Makes a file, at its beginning, the blob it is.
pub(crate) async fn store_file(blobs: &BlobStore, file: File, layer: &LayerDescriptor) -> Result<()> {
    let mut writer = blobs.begin(&layer.digest, layer.size_bytes).await?;
    let file = tokio::fs::File::from_std(file);
    let mut chunks = tokio_util::io::ReaderStream::with_capacity(file, SERVE_CHUNK_BYTES);
    while let Some(chunk) = chunks.next().await {
        writer.write(chunk.map_err(|e| told(&e))?).await?;
    }
    writer.finish().await
}

/// Reads a tar, packed or not, into a file without a name; the file is at its beginning.
pub(crate) fn pack(body: impl Read, dir: &Path) -> io::Result<(File, LayerDescriptor)> {
    let mut tar = unpacked(body)?;
    let mut packed = GzEncoder::new(Summing::new(nameless(dir)?), Compression::fast());
    let (mut sum, mut length) = (Context::new(&SHA256), 0_u64);
    let mut buffer = vec![0; 128 << 10];
    loop {
        let n = tar.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        length += n as u64;
        if length > UNPACKED_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it has more than {UNPACKED_BYTES_MAX} bytes"),
            ));
        }
        sum.update(&buffer[..n]);
        packed.write_all(&buffer[..n])?;
    }
    let (mut file, digest, size_bytes) = packed.finish()?.finish();
    let diff_id = digest_of(sum);
    file.seek(SeekFrom::Start(0))?;
    if length / RATIO_MAX > size_bytes.max(1 << 20) {
        return Ok((
            plain(&mut file, dir)?,
            LayerDescriptor { digest: diff_id.clone(), diff_id, size_bytes: length, encoding: LayerEncoding::Tar },
        ));
    }
    if size_bytes > LAYER_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has more than {LAYER_BYTES_MAX} bytes")));
    }
    Ok((file, LayerDescriptor { digest, diff_id, size_bytes, encoding: LayerEncoding::Gzip }))
}

fn plain(packed: &mut File, dir: &Path) -> io::Result<File> {
    let mut file = nameless(dir)?;
    io::copy(&mut MultiGzDecoder::new(io::BufReader::new(packed)), &mut file)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

/// The tar behind whatever it is packed with, by its first bytes.
pub(crate) fn unpacked<'r>(mut body: impl Read + 'r) -> io::Result<Box<dyn Read + 'r>> {
    let mut first = Vec::with_capacity(6);
    body.by_ref().take(6).read_to_end(&mut first)?;
    let known = |magic: &[u8]| first.starts_with(magic);
    let (gzip, zstd) = (known(b"\x1f\x8b"), known(b"\x28\xb5\x2f\xfd"));
    let (bzip2, xz) = (known(b"BZh"), known(b"\xfd7zXZ\0"));
    let whole = io::BufReader::with_capacity(128 << 10, Cursor::new(first).chain(body));
    if bzip2 {
        return Ok(Box::new(packed::bzip2(whole)));
    }
    if xz {
        return Ok(Box::new(packed::xz(whole)?));
    }
    match (gzip, zstd) {
        (true, _) => decoder(LayerEncoding::Gzip, whole),
        (_, true) => decoder(LayerEncoding::Zstd, whole),
        (false, false) => decoder(LayerEncoding::Tar, whole),
    }
}

/// What is behind a packing.
pub(crate) fn decoder<'r>(encoding: LayerEncoding, body: impl io::BufRead + 'r) -> io::Result<Box<dyn Read + 'r>> {
    Ok(match encoding {
        LayerEncoding::Tar => Box::new(body),
        LayerEncoding::Gzip => Box::new(MultiGzDecoder::new(body)),
        LayerEncoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(body)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
    })
}

/// A file that is gone with its last descriptor, whatever happens to this process.
pub(crate) fn nameless(dir: &Path) -> io::Result<File> {
    let name = dir.join(format!("{:032x}", u128::from_le_bytes(chassis::ids::random_bytes())));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&name)?;
    std::fs::remove_file(&name)?;
    Ok(file)
}

/// A finished sum as a digest.
pub(crate) fn digest_of(sum: Context) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(sum.finish().as_ref());
    Digest::sha256(bytes)
}

/// Sums what is written through it.
struct Summing {
    file: File,
    sum: Context,
    length: u64,
}

impl Summing {
    fn new(file: File) -> Self {
        Self { file, sum: Context::new(&SHA256), length: 0 }
    }

    fn finish(self) -> (File, Digest, u64) {
        (self.file, digest_of(self.sum), self.length)
    }
}

impl Write for Summing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.sum.update(&bytes[..n]);
        self.length += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A request's body, to a thread that reads.
pub(crate) struct Chunks {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
    runtime: Handle,
}

impl Chunks {
    pub(crate) fn new(chunks: mpsc::Receiver<io::Result<Bytes>>, runtime: Handle) -> Self {
        Self { chunks, current: Bytes::new(), runtime }
    }
}

impl Read for Chunks {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.runtime.block_on(within(UPLOAD_PATIENCE, self.chunks.recv()))? {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let n = self.current.len().min(buf.len());
        buf[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}

async fn within<T>(patience: Duration, work: impl Future<Output = T>) -> io::Result<T> {
    tokio::time::timeout(patience, work).await.map_err(|_| io::ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = GzEncoder::new(Vec::new(), Compression::fast());
        out.write_all(bytes).expect("packs");
        out.finish().expect("packs")
    }

    fn noise(bytes: usize) -> Vec<u8> {
        (0..bytes as u32).map(|n| (n.wrapping_mul(2_654_435_761).rotate_left(9) >> 13) as u8).collect()
    }

    #[test]
    fn one_tar_is_one_layer_however_it_was_packed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let tar = noise(300_000);
        let zstd = zstd::encode_all(tar.as_slice(), 1).expect("packs");
        for body in [tar.clone(), gzip(&tar), zstd, packed::tests::xz(&tar), packed::tests::bzip2(&tar)] {
            let (mut file, layer) = pack(body.as_slice(), dir.path()).expect("packs");
            assert_eq!((&layer.diff_id, layer.encoding), (&crate::blob_store::digest_of(&tar), LayerEncoding::Gzip));
            let mut stored = Vec::new();
            file.read_to_end(&mut stored).expect("reads");
            assert_eq!((crate::blob_store::digest_of(&stored), stored.len() as u64), (layer.digest, layer.size_bytes));
            let mut again = Vec::new();
            MultiGzDecoder::new(stored.as_slice()).read_to_end(&mut again).expect("unpacks");
            assert_eq!(again, tar);
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("read").count(), 0, "no file has a name");
    }

    #[test]
    fn what_hosts_would_take_for_a_bomb_is_stored_as_it_is() {
        let dir = tempfile::tempdir().expect("tempdir");
        let zeroes = vec![0; 128 << 20];
        let (_, layer) = pack(zeroes.as_slice(), dir.path()).expect("packs");
        assert_eq!((layer.encoding, layer.size_bytes), (LayerEncoding::Tar, 128 << 20));
        assert_eq!(layer.digest, layer.diff_id);
    }

    #[test]
    fn what_cannot_be_unpacked_is_refused() {
        let dir = tempfile::tempdir().expect("tempdir");
        let whole = gzip(&noise(100_000));
        let cut = &whole[..whole.len() / 2];
        let (xz, bzip2) = (packed::tests::xz(&noise(100_000)), packed::tests::bzip2(&noise(100_000)));
        for body in [cut, &xz[..xz.len() / 2], &bzip2[..bzip2.len() / 2], b"BZh91AY", b"\xfd7zXZ\0.."] {
            assert!(matches!(told(&pack(body, dir.path()).expect_err("refused")), Error::InvalidArgument(_)));
        }
        let empty = pack([0_u8; 1024].as_slice(), dir.path()).expect("packs").1;
        assert!(is_empty(&empty));
    }
}
