//! One blob into one directory: decode, read entries, place them; of a layer, verify both digests.

use std::{
    fs,
    io::{self, Read},
    os::fd::OwnedFd,
    path::Path,
};

use model::{Digest, DigestAlgorithm, LayerDescriptor, LayerEncoding};

use super::{
    archive::Archive,
    decode::{Decoder, Hashing, Limits, refuse},
    place::{Below, LayerDir, Placer, Rules},
};
use crate::discard;

/// Why a layer did not become a directory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// The layer itself is at fault; trying again gives the same.
    #[error("layer {0} {1}")]
    Refused(Digest, String),
    /// The host or the connection failed.
    #[error("layer {0}: {1}")]
    Failed(Digest, io::Error),
}

/// The bytes of a blob and what they must turn out to be.
pub(crate) struct Source<'a, R> {
    pub(crate) blob: R,
    pub(crate) layer: &'a LayerDescriptor,
    pub(crate) limits: Limits,
}

/// Unpacks into `fs` below `stage`, an empty directory nobody else writes to. On failure the stage
/// holds rubbish, and the caller discards it.
///
/// # Errors
/// See [`UnpackError`].
pub(crate) fn unpack<R: Read>(source: Source<'_, R>, stage: &Path) -> Result<(), UnpackError> {
    let digest = source.layer.digest.clone();
    attempt(source, stage).map_err(|e| {
        let kind = e.kind();
        if matches!(kind, io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) {
            UnpackError::Refused(digest, e.to_string())
        } else if kind == io::ErrorKind::UnexpectedEof {
            // flate2's and zstd's word for a blob that stops short.
            UnpackError::Refused(digest, "is cut short".to_owned())
        } else {
            UnpackError::Failed(digest, e)
        }
    })
}

fn attempt<R: Read>(source: Source<'_, R>, stage: &Path) -> io::Result<()> {
    let Source { blob, layer, limits } = source;
    let decoder = Decoder::new(blob, layer.digest.algorithm(), layer.encoding, limits)?;
    let mut archive = Archive::new(Hashing::new(decoder, layer.diff_id.algorithm()));
    let junk = stage.join("junk");
    fs::create_dir(&junk)?;
    let dir = LayerDir::open(&stage.join("fs"), &junk)?;
    let below = |path: &[u8]| dir.below(path);
    let placer = Placer::new(dir.root.try_clone()?, &below, dir.rules()?);
    place_all(&mut archive, placer, limits)?;
    discard::empty(&junk)?;
    fs::remove_dir(&junk)?;
    let (decoder, diff_id) = archive.drain()?.into_parts();
    let (size, digest) = decoder.finish()?;
    if size != layer.size_bytes {
        return Err(refuse(format!("is {size} bytes long instead of {}", layer.size_bytes)));
    }
    if digest != layer.digest {
        return Err(refuse(format!("has the digest {digest} instead")));
    }
    if diff_id != layer.diff_id {
        return Err(refuse(format!("unpacks to {diff_id} instead of {}", layer.diff_id)));
    }
    Ok(())
}

fn place_all<R: Read>(archive: &mut Archive<R>, mut placer: Placer<'_>, limits: Limits) -> io::Result<()> {
    let mut entries = 0_u64;
    while let Some(entry) = archive.next()? {
        entries += 1;
        if entries > limits.entries {
            return Err(refuse(format!("has more than {} entries", limits.entries)));
        }
        placer.place(&entry, archive)?;
    }
    placer.finish()
}

/// An archive that somebody uploads into a directory.
pub(crate) struct Extraction<'a> {
    pub(crate) dir: OwnedFd,
    pub(crate) below: &'a Below<'a>,
    pub(crate) rules: Rules,
    pub(crate) limits: Limits,
}

/// Extracts an archive whose content nobody has promised. What was made before an error stays.
///
/// # Errors
/// `InvalidData` if the archive is at fault.
pub(crate) fn extract<R: Read>(extraction: Extraction<'_>, blob: R, encoding: LayerEncoding) -> io::Result<()> {
    let Extraction { dir, below, rules, limits } = extraction;
    let mut archive = Archive::new(Decoder::new(blob, DigestAlgorithm::Sha256, encoding, limits)?);
    place_all(&mut archive, Placer::new(dir, below, rules), limits)?;
    archive.drain().map(drop)
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
