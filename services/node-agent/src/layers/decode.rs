//! From packed bytes to the tar, with bounds on everything a hostile blob could blow up, and both
//! digests computed on the way.

use std::{
    io::{self, BufReader, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use model::{Digest, DigestAlgorithm, LayerEncoding};
use ring::digest::{Context, SHA256, SHA512};

/// What a layer may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of the blob.
    pub(crate) packed_bytes: u64,
    /// Bytes of the tar.
    pub(crate) unpacked_bytes: u64,
    /// Entries of the tar.
    pub(crate) entries: u64,
    /// Unpacked bytes per packed byte once `ratio_free_bytes` are through.
    pub(crate) ratio: u64,
    /// See `ratio`.
    pub(crate) ratio_free_bytes: u64,
    /// Memory for the tree of one that becomes an image.
    pub(crate) tree_bytes: u64,
}

/// 32 MiB of window: all that common packers use; `--long=31` would take 2 GiB of this host.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;

/// Hashes and counts what is read through it.
pub(super) struct Hashing<R> {
    inner: R,
    hash: Context,
    count: Arc<AtomicU64>,
}

impl<R: Read> Hashing<R> {
    pub(super) fn new(inner: R, algorithm: DigestAlgorithm) -> Self {
        let hash = match algorithm {
            DigestAlgorithm::Sha256 => &SHA256,
            DigestAlgorithm::Sha512 => &SHA512,
        };
        Self { inner, hash: Context::new(hash), count: Arc::default() }
    }

    pub(super) fn counter(&self) -> Arc<AtomicU64> {
        self.count.clone()
    }

    pub(super) fn finish(self) -> Digest {
        self.into_parts().1
    }

    pub(super) fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    pub(super) fn into_parts(self) -> (R, Digest) {
        let sum = self.hash.finish();
        let digest = match <[u8; 64]>::try_from(sum.as_ref()) {
            Ok(long) => Digest::sha512(long),
            Err(_) => {
                let mut short = [0_u8; 32];
                short.copy_from_slice(sum.as_ref());
                Digest::sha256(short)
            }
        };
        (self.inner, digest)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hash.update(&buf[..n]);
        self.count.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// Refuses to go past the bounds. Sits on the unpacked side and sees the packed count.
pub(super) struct Bounded<R> {
    inner: R,
    limits: Limits,
    packed: Arc<AtomicU64>,
    unpacked: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.unpacked += n as u64;
        let packed = self.packed.load(Ordering::Relaxed);
        if packed > self.limits.packed_bytes {
            return Err(refuse(format!("is longer than the {} bytes it was announced with", self.limits.packed_bytes)));
        }
        if self.unpacked > self.limits.unpacked_bytes {
            return Err(refuse(format!("unpacks to more than {} bytes", self.limits.unpacked_bytes)));
        }
        let free = self.limits.ratio_free_bytes;
        if self.unpacked > free && (self.unpacked - free) / self.limits.ratio.max(1) > packed {
            return Err(refuse(format!("unpacks to more than {} times its size", self.limits.ratio)));
        }
        Ok(n)
    }
}

/// An error that is the layer's own fault.
pub(super) fn refuse(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

/// The blob, digested on both sides of its packing.
pub(super) enum Decoder<R: Read> {
    Tar(Box<Bounded<Hashing<R>>>),
    Gzip(Box<Bounded<flate2::bufread::MultiGzDecoder<BufReader<Hashing<R>>>>>),
    Zstd(Box<Bounded<zstd::stream::read::Decoder<'static, BufReader<Hashing<R>>>>>),
}

impl<R: Read> Decoder<R> {
    /// The blob is digested with the hash that names it.
    pub(super) fn new(
        blob: R,
        algorithm: DigestAlgorithm,
        encoding: LayerEncoding,
        limits: Limits,
    ) -> io::Result<Self> {
        let blob = Hashing::new(blob, algorithm);
        let packed = blob.counter();
        fn bounded<D>(inner: D, limits: Limits, packed: Arc<AtomicU64>) -> Bounded<D> {
            Bounded { inner, limits, packed, unpacked: 0 }
        }
        let buffered = |blob| BufReader::with_capacity(128 << 10, blob);
        Ok(match encoding {
            LayerEncoding::Tar => Self::Tar(Box::new(bounded(blob, limits, packed))),
            LayerEncoding::Gzip => {
                let inner = flate2::bufread::MultiGzDecoder::new(buffered(blob));
                Self::Gzip(Box::new(bounded(inner, limits, packed)))
            }
            LayerEncoding::Zstd => {
                let mut inner = zstd::stream::read::Decoder::with_buffer(buffered(blob))?;
                inner.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Self::Zstd(Box::new(bounded(inner, limits, packed)))
            }
        })
    }

    /// Reads the blob to its end, and tells its length and digest.
    pub(super) fn finish(self) -> io::Result<(u64, Digest)> {
        let mut blob = match self {
            Self::Tar(d) => d.inner,
            Self::Gzip(d) => d.inner.into_inner().into_inner(),
            Self::Zstd(d) => d.inner.finish().into_inner(),
        };
        // The decoder has seen the end of its last frame; a byte after it is not ours to guess at.
        let mut rest = [0_u8; 1];
        if blob.get_mut().read(&mut rest)? != 0 {
            return Err(refuse("has bytes after its end"));
        }
        let count = blob.counter().load(Ordering::Relaxed);
        Ok((count, blob.finish()))
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tar(d) => d.read(buf),
            Self::Gzip(d) => d.read(buf),
            Self::Zstd(d) => d.read(buf),
        }
    }
}
