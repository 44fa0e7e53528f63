//! tmpfs mounts, in both syntaxes.

use model::{Result, TmpfsMount};

use super::{super::host_config::HostConfig, forbidden, invalid, not_built, settings};

/// Mounts one container may have.
const MOUNTS_MAX: usize = 32;
/// Places the runtime itself mounts; nothing goes over or under them.
const RESERVED: [&str; 4] = ["/proc", "/sys", "/dev/pts", "/dev/mqueue"];

pub(super) fn tmpfs(host: &HostConfig) -> Result<Vec<TmpfsMount>> {
    let old = host.tmpfs.iter().map(|(path, options)| from_options(path, options));
    let new = host.mounts.iter().map(|mount| {
        if mount.read_only {
            return Err(not_built("Mounts: a read-only tmpfs"));
        }
        if mount.bind_options.is_some()
            || mount.volume_options.is_some()
            || mount.image_options.is_some()
            || !mount.source.is_empty()
        {
            return Err(invalid("invalid mount config for type \"tmpfs\": options or a source of another type"));
        }
        let options = mount.tmpfs_options.clone().unwrap_or_default();
        if !options.options.is_empty() {
            return Err(not_built("Mounts: TmpfsOptions.Options"));
        }
        let size = u64::try_from(options.size_bytes)
            .map_err(|_| invalid("invalid mount config: TmpfsOptions.SizeBytes is negative"))?;
        let mode = u32::try_from(options.mode).ok().filter(|m| *m <= 0o7777);
        Ok(TmpfsMount {
            path: target(&mount.target)?,
            size_bytes: (size > 0).then_some(size),
            mode: mode
                .map(|m| (m != 0).then_some(m))
                .ok_or_else(|| invalid("invalid mount config: TmpfsOptions.Mode"))?,
            exec: false,
        })
    });
    let mounts: Vec<TmpfsMount> = old.chain(new).collect::<Result<_>>()?;
    if mounts.len() > MOUNTS_MAX {
        return Err(invalid(format!("Mounts: at most {MOUNTS_MAX} are possible")));
    }
    for (i, mount) in mounts.iter().enumerate() {
        if mounts.iter().take(i).any(|earlier| earlier.path == mount.path) {
            return Err(invalid(format!("Duplicate mount point: {}", mount.path)));
        }
    }
    Ok(mounts)
}

fn from_options(path: &str, options: &str) -> Result<TmpfsMount> {
    let mut mount = TmpfsMount { path: target(path)?, size_bytes: None, mode: None, exec: false };
    for option in options.split(',').filter(|o| !o.is_empty()) {
        let bad = || invalid(format!("invalid tmpfs option [{option:?}]"));
        match option.split_once('=') {
            None if option == "exec" => mount.exec = true,
            None if matches!(option, "noexec" | "nosuid" | "nodev" | "rw" | "noatime" | "relatime") => {}
            None if matches!(option, "suid" | "dev") => {
                return Err(forbidden(format!("tmpfs option {option:?} is not available on Wharfage")));
            }
            Some(("size", size)) => mount.size_bytes = Some(settings::byte_size(size).ok_or_else(bad)?),
            Some(("mode", mode)) => {
                mount.mode = Some(u32::from_str_radix(mode, 8).ok().filter(|m| *m <= 0o7777).ok_or_else(bad)?);
            }
            None if option == "ro" => return Err(not_built("tmpfs option \"ro\"")),
            Some(("uid" | "gid" | "nr_inodes" | "nr_blocks" | "mpol", _)) => {
                return Err(not_built(&format!("tmpfs option {option:?}")));
            }
            None | Some(_) => return Err(bad()),
        }
    }
    Ok(mount)
}

/// An absolute path without surprises, away from what the runtime mounts.
fn target(path: &str) -> Result<String> {
    let bad = |why: &str| invalid(format!("invalid mount config: mount path {path:?} {why}"));
    if !path.starts_with('/') {
        return Err(bad("must be absolute"));
    }
    if path.len() > 4096 || path.contains('\0') || path.split('/').any(|part| part == ".." || part == ".") {
        return Err(bad("is not a plain path"));
    }
    let clean: String = path.split('/').filter(|part| !part.is_empty()).flat_map(|part| ["/", part]).collect();
    if clean.is_empty() {
        return Err(bad("destination can't be '/'"));
    }
    let under =
        |reserved: &str| clean.strip_prefix(reserved).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    match RESERVED.into_iter().find(|reserved| under(reserved)) {
        Some(reserved) => Err(forbidden(format!("mount path {path:?}: {reserved} is the runtime's own on Wharfage"))),
        None => Ok(clean),
    }
}
