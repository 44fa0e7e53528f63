//! A container's file system, seen and changed from outside (`docker cp`, `diff`, `export`, `commit`,
//! sizes). Everything in it is a tenant's, and changes while it is looked at.
//!
//! Rules, each held by one module: a path is resolved by the kernel below one pinned descriptor
//! ([`root`]); what is not a regular file is never opened for reading, and no directory of a kernel
//! file system is entered; owners pass through [`owners`] both ways; no program is run; nothing is
//! held whole in memory ([`pipe`]); every piece of work has a thread and a slot of its own ([`slots`]).

mod at_rest;
pub(crate) mod changes;
mod layer;
mod lookup;
mod lower;
pub(crate) mod measure;
mod open;
pub(crate) mod owners;
pub(crate) mod pack;
mod pipe;
mod put;
pub(crate) mod root;
mod slots;
mod tar;
mod walk;

pub(crate) use open::{Opened, open};
pub(crate) use pipe::{Chunks, drain};
pub(crate) use root::is_in_cgroup;
pub(crate) use slots::Slots;

use std::io;

use contract::agent::{PathStat, PutQuery};
use model::{Error, Result};

use pack::Packer;

/// Tells what a path is.
///
/// # Errors
/// `NotFound` if nothing is there.
pub(crate) async fn stat(opened: Opened, path: String) -> Result<PathStat> {
    opened.work(move |tree| lookup::stat(&tree.root, &path)).await
}

/// A file or directory as a tar, with what it is.
///
/// # Errors
/// `NotFound` if nothing is there.
pub(crate) async fn get(opened: Opened, path: String) -> Result<(PathStat, Chunks)> {
    opened
        .stream(
            move |tree| {
                let found = lookup::find(&tree.root, &path)?;
                Ok((lookup::describe(&tree.root, &found)?, found))
            },
            |tree, found, out| {
                let mut packer = Packer::new(out, tree.root.owners());
                let name = found.name();
                packer.resource(found.node, name.as_bytes())?;
                packer.finish()
            },
        )
        .await
}

/// Extracts a tar into a directory.
///
/// # Errors
/// What is wrong with the path or the archive.
pub(crate) async fn put(opened: Opened, query: PutQuery, body: chassis::axum::body::Body) -> Result<()> {
    opened.consume(body, move |tree, archive| put::extract(tree, &query, archive)).await
}

/// The whole root file system as a tar; what is mounted into it stays outside.
///
/// # Errors
/// It cannot be read.
pub(crate) async fn export(opened: Opened) -> Result<Chunks> {
    let begin = |tree: &open::Tree| tree.bare();
    let pack = |_: &open::Tree, root: root::Root, out: pipe::ChunkWriter| {
        let mut packer = Packer::new(out, root.owners());
        packer.children(root.top()?, b"")?;
        packer.finish()
    };
    opened.stream(move |tree| Ok(((), begin(tree)?)), pack).await.map(|((), chunks)| chunks)
}

/// The writable layer as the tar of an image layer.
///
/// # Errors
/// It cannot be read, or holds what no layer can.
pub(crate) async fn layer(opened: Opened) -> Result<Chunks> {
    let begin = |tree: &open::Tree| {
        let upper = tree.upper()?;
        let checked = tree.lower().and_then(|lower| layer::check(&upper, lower));
        checked.map_err(|e| {
            if e.kind() == io::ErrorKind::InvalidData { Error::InvalidArgument(e.to_string()) } else { told("/", &e) }
        })?;
        Ok(((), upper))
    };
    let pack = |tree: &open::Tree, upper: std::os::fd::OwnedFd, out: pipe::ChunkWriter| {
        let owners = owners::Owners::IDENTITY;
        let mut packer = Packer::new(out, &owners);
        layer::pack(&mut packer, &upper, tree.lower()?)?;
        packer.finish()
    };
    opened.stream(begin, pack).await.map(|((), chunks)| chunks)
}

/// Trouble with a tenant's file system or archive in an answer's words.
fn told(path: &str, error: &io::Error) -> Error {
    let kind = error.kind();
    let told = [
        (io::ErrorKind::NotFound, Error::NotFound(format!("Could not find the file {path}"))),
        (io::ErrorKind::InvalidData, Error::InvalidArgument(format!("the archive {error}"))),
        (io::ErrorKind::InvalidInput, Error::InvalidArgument(format!("the archive {error}"))),
        (io::ErrorKind::UnexpectedEof, Error::InvalidArgument("the archive is cut short".into())),
        (io::ErrorKind::ConnectionAborted, Error::InvalidArgument("the archive broke off".into())),
        (io::ErrorKind::TimedOut, Error::InvalidArgument("the archive did not go on".into())),
        (io::ErrorKind::ReadOnlyFilesystem, Error::Forbidden("container rootfs is marked read-only".into())),
    ];
    let found = told.into_iter().find(|(known, _)| *known == kind).map(|(_, told)| told);
    found.unwrap_or_else(|| Error::Failed(error.to_string()))
}

#[cfg(test)]
mod race_tests;
