//! tmpfs mounts, in both syntaxes.

use model::{Result, TmpfsMount};

use super::{
    super::{forbidden, invalid, not_built, settings},
    target,
};
use crate::docker::containers::host_config::Mount;

/// `--tmpfs /path:size=64m,mode=1770`.
pub(super) fn from_options(path: &str, options: &str) -> Result<TmpfsMount> {
    let mut mount = TmpfsMount { path: target(path)?, ..TmpfsMount::default() };
    for option in options.split(',').filter(|o| !o.is_empty()) {
        let bad = || invalid(format!("invalid tmpfs option [{option:?}]"));
        match option.split_once('=') {
            None if option == "exec" => mount.exec = true,
            None if option == "ro" => mount.read_only = true,
            None if matches!(option, "noexec" | "nosuid" | "nodev" | "rw" | "noatime" | "relatime") => {}
            None if matches!(option, "suid" | "dev") => {
                return Err(forbidden(format!("tmpfs option {option:?} is not available on Wharfage")));
            }
            Some(("size", size)) => {
                let bytes = settings::byte_size(size).ok_or_else(bad)?;
                mount.size_bytes = Some(settings::memory_size("tmpfs size", bytes)?);
            }
            Some(("mode", mode)) => {
                mount.mode = Some(u32::from_str_radix(mode, 8).ok().filter(|m| *m <= 0o7777).ok_or_else(bad)?);
            }
            Some(("uid", id)) => mount.uid = Some(id.parse().map_err(|_| bad())?),
            Some(("gid", id)) => mount.gid = Some(id.parse().map_err(|_| bad())?),
            Some(("nr_inodes", count)) => mount.inodes = Some(settings::byte_size(count).ok_or_else(bad)?),
            Some(("nr_blocks" | "mpol", _)) => return Err(not_built(&format!("tmpfs option {option:?}"))),
            None | Some(_) => return Err(bad()),
        }
    }
    Ok(mount)
}

/// `--mount type=tmpfs,…`.
pub(super) fn from_mount(mount: &Mount) -> Result<TmpfsMount> {
    let wrong = |why: &str| invalid(format!("invalid mount config for type \"tmpfs\": {why}"));
    if mount.target.is_empty() {
        return Err(wrong("field Target must not be empty"));
    }
    let foreign = [
        ("BindOptions", mount.bind_options.is_some()),
        ("VolumeOptions", mount.volume_options.is_some()),
        ("ImageOptions", mount.image_options.is_some()),
        ("ClusterOptions", mount.cluster_options.is_some()),
        ("Source", !mount.source.is_empty()),
    ];
    if let Some((field, _)) = foreign.into_iter().find(|(_, given)| *given) {
        return Err(wrong(&format!("field {field} must not be specified")));
    }
    let options = mount.tmpfs_options.clone().unwrap_or_default();
    let mut exec = false;
    for option in &options.options {
        match option.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["exec"] => exec = true,
            ["noexec"] => exec = false,
            [] => return Err(wrong("invalid option array length")),
            [name, ..] => return Err(wrong(&format!("invalid option: {name}"))),
        }
    }
    let size = u64::try_from(options.size_bytes).map_err(|_| wrong("TmpfsOptions.SizeBytes is negative"))?;
    let size = settings::memory_size("TmpfsOptions.SizeBytes", size)?;
    let mode = u32::try_from(options.mode).ok().filter(|m| *m <= 0o7777);
    let mode = mode.ok_or_else(|| wrong("TmpfsOptions.Mode is no permission"))?;
    Ok(TmpfsMount {
        path: target(&mount.target)?,
        size_bytes: (size > 0).then_some(size),
        mode: (mode != 0).then_some(mode),
        exec,
        read_only: mount.read_only,
        is_shown: true,
        ..TmpfsMount::default()
    })
}
