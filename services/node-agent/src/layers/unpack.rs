//! One blob into one directory or image: decode, read entries, place them; of a layer, verify both digests.

use std::{
    fs,
    io::{self, Read},
    os::fd::OwnedFd,
    path::Path,
    thread,
};

use model::{Digest, DigestAlgorithm, LayerDescriptor, LayerEncoding};

use super::{
    ahead,
    archive::{Archive, Entry},
    decode::{Decoder, Hashing, Limits, refuse},
    imaging::{Imager, TreeTooLarge},
    place::{Below, LayerDir, Placer, Rules},
};
use crate::discard;

/// Why a layer did not become a directory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// The layer itself is at fault; trying again gives the same.
    #[error("layer {0} {1}")]
    Refused(Digest, String),
    /// It has too many entries for an image; it can be a directory.
    #[error("layer {0} {1}")]
    TooLargeForImage(Digest, TreeTooLarge),
    /// The host or the connection failed.
    #[error("layer {0}: {1}")]
    Failed(Digest, io::Error),
}

/// What a layer becomes in its stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The directory `fs`.
    Directory,
    /// The file `image`, which is mounted.
    Image,
}

/// The bytes of a blob and what they must turn out to be.
pub(crate) struct Source<'a, R> {
    pub(crate) blob: R,
    pub(crate) layer: &'a LayerDescriptor,
    pub(crate) limits: Limits,
}

/// Unpacks below `stage`, a directory nobody else writes to, with an empty `fs` for a directory. On failure
/// the stage holds rubbish, and the caller discards it.
///
/// # Errors
/// See [`UnpackError`].
pub(crate) fn unpack<R: Read + Send>(source: Source<'_, R>, stage: &Path, form: Form) -> Result<(), UnpackError> {
    let digest = source.layer.digest.clone();
    attempt(source, stage, form).map_err(|e| {
        let e = match e.downcast::<TreeTooLarge>() {
            Ok(too_large) => return UnpackError::TooLargeForImage(digest, too_large),
            Err(e) => e,
        };
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

fn attempt<R: Read + Send>(source: Source<'_, R>, stage: &Path, form: Form) -> io::Result<()> {
    let Source { blob, layer, limits } = source;
    let decoder = Decoder::new(blob, layer.digest.algorithm(), layer.encoding, limits)?;
    let (decoder, diff_id) = thread::scope(|scope| {
        let (tar, decoding) = ahead::decode(scope, decoder);
        let mut archive = Archive::new(Hashing::new(tar, layer.diff_id.algorithm()));
        match form {
            Form::Directory => fill_directory(&mut archive, stage, limits)?,
            Form::Image => fill_image(&mut archive, &stage.join("image"), limits, &layer.diff_id)?,
        }
        let diff_id = archive.drain()?.finish();
        let decoder = decoding.join().map_err(|_| io::Error::other("the decoding thread died"))?;
        io::Result::Ok((decoder, diff_id))
    })?;
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

fn fill_directory<R: Read>(archive: &mut Archive<R>, stage: &Path, limits: Limits) -> io::Result<()> {
    let junk = stage.join("junk");
    fs::create_dir(&junk)?;
    let dir = LayerDir::open(&stage.join("fs"), &junk)?;
    let below = |path: &[u8]| dir.below(path);
    let mut placer = Placer::new(dir.root.try_clone()?, &below, dir.rules()?);
    each_entry(archive, limits, |entry, archive| placer.place(entry, archive))?;
    placer.finish()?;
    discard::empty(&junk)?;
    fs::remove_dir(&junk)
}

fn fill_image<R: Read>(archive: &mut Archive<R>, file: &Path, limits: Limits, diff_id: &Digest) -> io::Result<()> {
    let mut imager = Imager::begin(file, limits.tree_bytes)?;
    each_entry(archive, limits, |entry, archive| imager.place(entry, archive))?;
    let mut uuid = [0; 16];
    hex::decode_to_slice(&diff_id.hex()[..32], &mut uuid).map_err(io::Error::other)?;
    imager.finish(uuid)
}

fn each_entry<R: Read>(
    archive: &mut Archive<R>,
    limits: Limits,
    mut place: impl FnMut(&Entry, &mut Archive<R>) -> io::Result<()>,
) -> io::Result<()> {
    let mut entries = 0_u64;
    while let Some(entry) = archive.next()? {
        entries += 1;
        if entries > limits.entries {
            return Err(refuse(format!("has more than {} entries", limits.entries)));
        }
        place(&entry, archive)?;
    }
    Ok(())
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
    let mut placer = Placer::new(dir, below, rules);
    each_entry(&mut archive, limits, |entry, archive| placer.place(entry, archive))?;
    placer.finish()?;
    archive.drain().map(drop)
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
