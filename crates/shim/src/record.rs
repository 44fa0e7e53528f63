//! Records on disk: written whole or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use serde::Serialize;

/// How much a record is worth.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Survives a power cut.
    Disk,
    /// Survives every process; the host's end is the record's end anyway.
    Memory,
}

/// Writes, syncs if asked, and renames into place.
pub(crate) fn write<T: Serialize>(path: &Path, record: &T, durability: Durability) -> io::Result<()> {
    let draft = path.with_extension("draft");
    let bytes = serde_json::to_vec(record)?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(&bytes)?;
    if durability == Durability::Disk {
        file.sync_data()?;
    }
    fs::rename(&draft, path)?;
    if durability == Durability::Disk
        && let Some(dir) = path.parent()
    {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}
