//! Mounts in all their syntaxes: `Binds`, `Mounts`, `Tmpfs`, `Volumes`, `VolumesFrom` and the image's
//! own volumes. Pure: which volume a name stands for is found out later, in the transaction.

use std::collections::BTreeMap;

use model::{ImageConfig, Result, SocketMount, TmpfsMount};
use serde_json::Value;

use super::{
    super::{
        body::CreateBody,
        host_config::{Mount, VolumeOptions},
    },
    forbidden, invalid, not_built,
};
use crate::docker::volumes::{WantedVolume, no_such_driver};

mod socket;
mod tmpfs;

/// Mounts one container may have.
const MOUNTS_MAX: usize = 64;

/// A volume a container shall have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WantedMount {
    /// Which; made if it is not there.
    pub(crate) volume: WantedVolume,
    /// Absolute path in the container.
    pub(crate) path: String,
    /// Part of the volume; empty is all of it.
    pub(crate) subpath: String,
    /// The container cannot write to it.
    pub(crate) read_only: bool,
    /// It is not filled from the image.
    pub(crate) no_copy: bool,
    /// Only where nothing else is mounted: declared by the image or `Volumes`.
    pub(crate) is_default: bool,
    /// Docker's `Mode`.
    pub(crate) shown_mode: String,
}

/// Another container whose volumes it shall have too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shared {
    /// Id, name or prefix.
    pub(crate) container: String,
    /// Without the right to write.
    pub(crate) read_only: bool,
}

/// Everything a body says about mounts.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    pub(super) tmpfs: Vec<TmpfsMount>,
    pub(super) volumes: Vec<WantedMount>,
    pub(super) sockets: Vec<SocketMount>,
    pub(super) shared: Vec<Shared>,
    /// Paths of `Config.Volumes`, the image's included, to be shown.
    pub(super) declared: BTreeMap<String, Value>,
}

/// Reads all of them.
pub(super) fn mounts(body: &CreateBody, image: &ImageConfig) -> Result<Mounts> {
    let host = &body.host_config;
    let mut all = Mounts { shared: shared(host.volumes_from.as_deref().unwrap_or_default())?, ..Mounts::default() };
    for (path, options) in &host.tmpfs {
        all.tmpfs.push(tmpfs::from_options(path, options)?);
    }
    for written in host.binds.as_deref().unwrap_or_default() {
        match socket::from_bind(written)? {
            Some(socket) => all.sockets.push(socket),
            None => all.volumes.push(bind(written)?),
        }
    }
    let by_driver = !all.volumes.is_empty();
    for mount in &host.mounts {
        match mount.kind.as_str() {
            "tmpfs" => all.tmpfs.push(tmpfs::from_mount(mount)?),
            "volume" => all.volumes.push(volume(mount)?),
            "bind" => match socket::from_mount(mount)? {
                Some(socket) => all.sockets.push(socket),
                None => return Err(host_path(&format!("mount of {:?}", mount.source))),
            },
            "image" | "cluster" => return Err(not_built(&format!("mount of type {:?}", mount.kind))),
            other => return Err(invalid(format!("invalid mount config: mount type unknown: {other:?}"))),
        }
    }
    let paths = all.tmpfs.iter().map(|m| &m.path).chain(all.volumes.iter().map(|m| &m.path));
    let paths = paths.chain(all.sockets.iter().map(|m| &m.path));
    let paths: Vec<String> = paths.cloned().collect();
    if let Some((_, twice)) = paths.iter().enumerate().find(|(i, path)| paths[..*i].contains(path)) {
        return Err(invalid(format!("Duplicate mount point: {twice}")));
    }
    for written in image.volumes.iter().chain(body.config.volumes.keys()) {
        all.declared.insert(written.clone(), serde_json::json!({}));
        let path = target(written)?;
        if !paths.contains(&path) && !all.volumes.iter().any(|mount| mount.path == path) {
            all.volumes.push(anonymous(path));
        }
    }
    // As dockerd: the driver is looked for when there is a volume to make. Mounts name their own.
    let by_driver = by_driver || all.volumes.iter().any(|mount| mount.is_default);
    if by_driver && !matches!(host.volume_driver.as_str(), "" | "local") {
        return Err(no_such_driver(&host.volume_driver));
    }
    if all.tmpfs.len() + all.volumes.len() + all.sockets.len() > MOUNTS_MAX {
        return Err(invalid(format!("Mounts: at most {MOUNTS_MAX} are possible")));
    }
    Ok(all)
}

/// A path of a host, and what to do instead.
fn host_path(what: &str) -> model::Error {
    forbidden(format!(
        "host paths are not available on Wharfage: {what} names a path of the host. Use a named volume (-v name:/path) \
         and docker cp to fill it, or a config"
    ))
}

fn anonymous(path: String) -> WantedMount {
    WantedMount {
        volume: WantedVolume::default(),
        path,
        subpath: String::new(),
        read_only: false,
        no_copy: false,
        is_default: true,
        shown_mode: String::new(),
    }
}

/// `name:/path[:mode]`, as dockerd reads it and with its texts.
fn bind(written: &str) -> Result<WantedMount> {
    let malformed = || invalid(format!("invalid volume specification: '{written}'"));
    let parts: Vec<&str> = written.splitn(4, ':').collect();
    let (source, path, mode) = match parts[..] {
        [path] if !path.is_empty() => ("", path, ""),
        // A mode in the place of a path: there is no volume without one.
        [_, second] if Mode::parse(second).is_ok_and(|m| m.is_known) => return Err(malformed()),
        [source, path] if !source.is_empty() => (source, path, ""),
        [source, path, mode] if !source.is_empty() => (source, path, mode),
        _ => return Err(malformed()),
    };
    if source.starts_with('/') {
        return Err(host_path(&format!("bind {written:?}")));
    }
    let parsed = Mode::parse(mode)?;
    Ok(WantedMount {
        volume: WantedVolume::new(source, BTreeMap::new(), BTreeMap::new())?,
        path: target(path)?,
        subpath: String::new(),
        read_only: parsed.read_only,
        no_copy: parsed.no_copy,
        is_default: false,
        shown_mode: if mode.is_empty() { "z".to_owned() } else { mode.to_owned() },
    })
}

/// The words after the second colon.
#[derive(Debug, Default, PartialEq, Eq)]
struct Mode {
    read_only: bool,
    no_copy: bool,
    is_known: bool,
}

impl Mode {
    fn parse(written: &str) -> Result<Self> {
        let bad = || invalid(format!("invalid mode: {written}"));
        let mut mode = Self::default();
        let (mut access, mut label, mut copy, mut consistency) = (0, 0, 0, 0);
        for word in written.split(',').filter(|_| !written.is_empty()) {
            match word {
                "ro" => (mode.read_only, access) = (true, access + 1),
                "rw" => access += 1,
                "z" | "Z" => label += 1,
                "nocopy" => (mode.no_copy, copy) = (true, copy + 1),
                "consistent" | "cached" | "delegated" | "default" => consistency += 1,
                // How mounts spread is a matter of host paths only.
                _ => return Err(bad()),
            }
            mode.is_known = true;
        }
        if access > 1 || label > 1 || copy > 1 || consistency > 1 { Err(bad()) } else { Ok(mode) }
    }
}

fn volume(mount: &Mount) -> Result<WantedMount> {
    let wrong = |why: &str| invalid(format!("invalid mount config for type \"volume\": {why}"));
    if mount.target.is_empty() {
        return Err(wrong("field Target must not be empty"));
    }
    let foreign = [
        ("BindOptions", mount.bind_options.is_some()),
        ("TmpfsOptions", mount.tmpfs_options.is_some()),
        ("ImageOptions", mount.image_options.is_some()),
        ("ClusterOptions", mount.cluster_options.is_some()),
    ];
    if let Some((field, _)) = foreign.into_iter().find(|(_, given)| *given) {
        return Err(wrong(&format!("field {field} must not be specified")));
    }
    let VolumeOptions { no_copy, labels, driver_config, subpath } = mount.volume_options.clone().unwrap_or_default();
    let driver = driver_config.unwrap_or_default();
    if !matches!(driver.name.as_str(), "" | "local") {
        return Err(no_such_driver(&driver.name));
    }
    if mount.source.is_empty() && mount.read_only {
        return Err(wrong("must not set ReadOnly mode when using anonymous volumes"));
    }
    if mount.source.is_empty() && !subpath.is_empty() {
        return Err(wrong("must not set Subpath when using anonymous volumes"));
    }
    let local = |part: &str| !matches!(part, ".." | "");
    if !subpath.is_empty() && (subpath.len() > 4096 || subpath.contains('\0') || !subpath.split('/').all(local)) {
        return Err(wrong("subpath must be a relative path within the volume"));
    }
    Ok(WantedMount {
        volume: WantedVolume::new(&mount.source, labels, driver.options)?,
        path: target(&mount.target)?,
        subpath,
        read_only: mount.read_only,
        no_copy,
        is_default: false,
        shown_mode: "z".to_owned(),
    })
}

fn shared(written: &[String]) -> Result<Vec<Shared>> {
    written
        .iter()
        .map(|text| {
            let (container, mode) = text.split_once(':').unwrap_or((text, "rw"));
            if container.is_empty() {
                return Err(invalid(format!("invalid volumes-from specification: {text:?}")));
            }
            // What is filled was filled for the other one.
            let mode = Mode::parse(mode).ok().filter(|mode| !mode.no_copy && mode.is_known);
            let mode =
                mode.ok_or_else(|| invalid(format!("invalid volumes-from specification: {text:?}: invalid mode")))?;
            Ok(Shared { container: container.to_owned(), read_only: mode.read_only })
        })
        .collect()
}

/// An absolute path without surprises, away from what the runtime mounts.
fn target(path: &str) -> Result<String> {
    let bad = |why: &str| invalid(format!("invalid mount config: mount path {path:?} {why}"));
    if !path.starts_with('/') {
        return Err(invalid(format!("invalid mount path: '{path}' mount path must be absolute")));
    }
    if path.len() > 4096 || path.contains('\0') || path.split('/').any(|part| part == ".." || part == ".") {
        return Err(bad("is not a plain path"));
    }
    let clean: String = path.split('/').filter(|part| !part.is_empty()).flat_map(|part| ["/", part]).collect();
    if clean.is_empty() {
        return Err(invalid("invalid specification: destination can't be '/'"));
    }
    match model::runtimes_own(&clean) {
        Some(reserved) => Err(forbidden(format!("mount path {path:?}: {reserved} is the runtime's own on Wharfage"))),
        None => Ok(clean),
    }
}

#[cfg(test)]
mod tests;
