//! Extracting an uploaded archive into a directory of a container, by dockerd's rules.

use std::io::{self, Cursor, Read};

use contract::agent::PutQuery;
use model::{Error, LayerEncoding, Result};

use super::{lookup, open::Tree, pipe::ChunkReader, told};
use crate::{
    layers::{Extraction, Limits, Rules, extract as extract_archive},
    tenancy::become_user,
};

/// Beginnings of what a client may have packed with.
const MAGIC: [(&[u8], std::result::Result<LayerEncoding, &str>); 4] = [
    (b"\x1f\x8b".as_slice(), Ok(LayerEncoding::Gzip)),
    (b"\x28\xb5\x2f\xfd", Ok(LayerEncoding::Zstd)),
    (b"BZh", Err("bzip2")),
    (b"\xfd7zXZ\0", Err("xz")),
];
/// As for the layers of an image.
const LIMITS: Limits = Limits {
    packed_bytes: u64::MAX,
    unpacked_bytes: 64 << 30,
    entries: 2_000_000,
    ratio: 250,
    ratio_free_bytes: 256 << 20,
    tree_bytes: 0,
};

/// Extracts.
pub(super) fn extract(tree: &Tree, query: &PutQuery, archive: ChunkReader) -> Result<()> {
    let path = lookup::absolute(&query.path)?;
    let dir = tree.root.directory(path.as_bytes()).map_err(|e| {
        if e.kind() == io::ErrorKind::NotADirectory {
            return Error::InvalidArgument("extraction point is not a directory".into());
        }
        lookup::not_found(&query.path, &path, &e)
    })?;
    if let Some(why) = tree.write_protection(&dir).map_err(Error::internal)? {
        return Err(Error::Forbidden(why.into()));
    }
    // What is made is the container's root's first: the host's may have no name in there. This thread
    // ends with the extraction.
    let (root, _) = tree.root.owners().outside(0, 0).ok_or_else(|| Error::internal("a container without a root"))?;
    become_user(root).map_err(Error::internal)?;
    let (archive, encoding) = sniff(archive)?;
    let below = |parent: &[u8]| tree.root.directory(&[path.as_bytes(), b"/", parent].concat());
    let extraction = Extraction {
        dir,
        below: &below,
        rules: Rules {
            whiteouts: false,
            keep_kinds: query.no_overwrite_dir_non_dir.then(|| path.trim_end_matches(['/', '.']).to_owned()),
            owner: owner(tree, query.copy_uid_gid)?,
            owners: tree.root.owners().clone(),
            junk: None,
        },
        limits: LIMITS,
    };
    extract_archive(extraction, archive, encoding).map_err(|e| told(&query.path, &e))
}

/// `copyUIDGID` gives everything to the container's own user, if it has one.
fn owner(tree: &Tree, copy_uid_gid: bool) -> Result<Option<(u32, u32)>> {
    let user = &tree.plan.spec.user;
    if !copy_uid_gid || user.is_empty() {
        return Ok(None);
    }
    let who = runtime::user::resolve(tree.rootfs(), user, &[]).map_err(|e| Error::InvalidArgument(e.to_string()))?;
    Ok(Some((who.uid, who.gid)))
}

/// How an archive is packed, by its first bytes, and the archive with them.
fn sniff<R: Read>(mut archive: R) -> Result<(impl Read, LayerEncoding)> {
    let mut first = Vec::with_capacity(6);
    archive
        .by_ref()
        .take(6)
        .read_to_end(&mut first)
        .map_err(|e| Error::InvalidArgument(format!("the archive broke off: {e}")))?;
    let known = MAGIC.iter().find(|(magic, _)| first.starts_with(magic));
    let encoding = match known {
        Some((_, Ok(encoding))) => *encoding,
        Some((_, Err(name))) => {
            return Err(Error::NotImplemented(format!(
                "archives packed with {name} are not supported: use gzip, zstd or none"
            )));
        }
        None => LayerEncoding::Tar,
    };
    Ok((Cursor::new(first).chain(archive), encoding))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_say_how_it_is_packed_and_are_not_lost() {
        let read = |bytes: &[u8]| {
            let (mut archive, encoding) = sniff(bytes).expect("known");
            let mut all = Vec::new();
            archive.read_to_end(&mut all).expect("reads");
            assert_eq!(all, bytes);
            encoding
        };
        assert_eq!(read(b"\x1f\x8b\x08rest"), LayerEncoding::Gzip);
        assert_eq!(read(b"\x28\xb5\x2f\xfd..rest"), LayerEncoding::Zstd);
        assert_eq!(read(b"etc/passwd\0\0"), LayerEncoding::Tar);
        assert_eq!(read(b""), LayerEncoding::Tar);
        assert!(sniff(&b"BZh91AY"[..]).err().expect("refused").to_string().contains("bzip2"));
    }
}
