//! Layers: tar archives whose bytes depend on nothing but their content.

use std::io::Write as _;

use anyhow::Result;
use flate2::{Compression, write::GzEncoder};
use tar::{Builder, EntryType, Header};

/// 2024-01-01T00:00:00Z, for every file.
const MTIME_S: u64 = 1_704_067_200;

/// How a layer is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Tar,
    Gzip,
    Zstd,
}

impl Packing {
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Tar => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// A packed layer.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    /// Digest of the plain tar.
    pub(super) diff_id: String,
    pub(super) blob: Vec<u8>,
    pub(super) packing: Packing,
}

/// A tree being written.
pub(super) struct Tree(Builder<Vec<u8>>);

impl Tree {
    pub(super) fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    pub(super) fn directory(&mut self, path: &str, mode: u32) -> Result<()> {
        self.entry(EntryType::Directory, &format!("{path}/"), mode, &[])
    }

    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entry(EntryType::Regular, path, mode, content)
    }

    pub(super) fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        self.0.append_link(&mut header, path, target)?;
        Ok(())
    }

    fn entry(&mut self, kind: EntryType, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let mut header = header(kind, mode, content.len() as u64);
        self.0.append_data(&mut header, path, content)?;
        Ok(())
    }

    pub(super) fn pack(self, packing: Packing) -> Result<Layer> {
        let tar = self.0.into_inner()?;
        let diff_id = sha256(&tar);
        let blob = match packing {
            Packing::Tar => tar,
            Packing::Gzip => {
                // The encoder's header has neither a name nor a time.
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(&tar)?;
                encoder.finish()?
            }
            Packing::Zstd => zstd::bulk::compress(&tar, 3)?,
        };
        Ok(Layer { diff_id, blob, packing })
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(MTIME_S);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// `sha256:<hex>`
pub(super) fn sha256(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(ring::digest::digest(&ring::digest::SHA256, content)))
}
