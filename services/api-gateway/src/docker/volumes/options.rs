//! Options of the `local` driver. With them one mounts anything on a dockerd; here a volume is a
//! directory, has a size, or is memory, and whatever reaches out of that is refused by name.

use std::collections::BTreeMap;

use model::{Error, Result, TmpfsOptions, VolumeBacking};

use crate::docker::containers::{byte_size, memory_size};

/// The smallest file system that holds more than its own bookkeeping.
const SIZE_MIN_BYTES: u64 = 8 << 20;
const SIZE_MAX_BYTES: u64 = 1 << 40;

/// What the driver's options ask for.
pub(crate) fn backing(options: &BTreeMap<String, String>) -> Result<VolumeBacking> {
    let invalid = |text: String| Err(Error::InvalidArgument(text));
    // dockerd's text.
    if let Some(unknown) = options.keys().find(|key| !matches!(key.as_str(), "type" | "device" | "o" | "size")) {
        return invalid(format!("invalid option: \"{unknown}\""));
    }
    let given = |key: &str| options.get(key).map_or("", String::as_str).trim();
    let (kind, device, flags, size) = (given("type"), given("device"), given("o"), given("size"));
    match kind {
        "tmpfs" => {
            if !size.is_empty() {
                return invalid("option \"size\" does not go with type \"tmpfs\": give o=size=…".into());
            }
            Ok(VolumeBacking::Tmpfs(tmpfs(flags)?))
        }
        "" if device.is_empty() && flags.is_empty() => match size {
            "" => Ok(VolumeBacking::Directory),
            size => Ok(VolumeBacking::Sized { size_bytes: sized(size)? }),
        },
        _ => Err(refused(kind, device, flags)),
    }
}

fn sized(written: &str) -> Result<u64> {
    let size =
        byte_size(written).ok_or_else(|| Error::InvalidArgument(format!("invalid size: '{written}': not a size")))?;
    if (SIZE_MIN_BYTES..=SIZE_MAX_BYTES).contains(&size) {
        return Ok(size);
    }
    Err(Error::InvalidArgument(format!("invalid size: '{written}': a volume has 8m to 1t")))
}

fn tmpfs(flags: &str) -> Result<TmpfsOptions> {
    let mut options = TmpfsOptions::default();
    for flag in flags.split(',').map(str::trim).filter(|flag| !flag.is_empty()) {
        let bad = || Error::InvalidArgument(format!("invalid option: \"o={flag}\""));
        match flag.split_once('=').unwrap_or((flag, "")) {
            ("size", size) => {
                let bytes = byte_size(size).filter(|n| *n > 0).ok_or_else(bad)?;
                options.size_bytes = Some(memory_size("tmpfs size", bytes)?);
            }
            ("nr_inodes", count) => options.inodes = Some(byte_size(count).filter(|n| *n > 0).ok_or_else(bad)?),
            ("uid", id) => options.uid = id.parse().map_err(|_| bad())?,
            ("gid", id) => options.gid = id.parse().map_err(|_| bad())?,
            ("mode", mode) => {
                options.mode = Some(u32::from_str_radix(mode, 8).ok().filter(|m| *m <= 0o7777).ok_or_else(bad)?);
            }
            ("noexec", "") => options.noexec = true,
            ("rw" | "nosuid" | "nodev" | "noatime" | "relatime" | "exec", "") => {}
            ("suid" | "dev" | "mpol", _) => {
                let why = "it would give a volume more rights than its containers have";
                return Err(Error::Forbidden(format!("option \"o={flag}\" is not available on Wharfage: {why}")));
            }
            _ => return Err(bad()),
        }
    }
    Ok(options)
}

/// What a mount of these would reach, and what to do instead.
fn refused(kind: &str, device: &str, flags: &str) -> Error {
    let binds = flags.split(',').any(|flag| matches!(flag.trim(), "bind" | "rbind"));
    let what = match kind {
        _ if binds => format!("device {device:?} with o=bind names a path of the host"),
        "none" | "" => format!("type {kind:?} with device {device:?} would mount something of the host's"),
        "nfs" | "nfs4" | "cifs" | "smb" | "smb3" | "sshfs" | "ceph" | "glusterfs" | "9p" => {
            format!("type {kind:?} would have the host itself reach into a network")
        }
        _ => format!("type {kind:?} would mount device {device:?} of the host"),
    };
    Error::Forbidden(format!(
        "{what}, which is not available on Wharfage; use a volume without these options (size=… gives it a size, \
         type=tmpfs keeps it in memory) and fill it with docker cp"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(written: &[(&str, &str)]) -> Result<VolumeBacking> {
        backing(&written.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn what_is_safe_is_understood() {
        assert_eq!(parse(&[]), Ok(VolumeBacking::Directory));
        assert_eq!(parse(&[("size", "64m")]), Ok(VolumeBacking::Sized { size_bytes: 64 << 20 }));
        let memory = parse(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=100m,uid=1000,mode=0700,noexec")]);
        let expected = TmpfsOptions {
            size_bytes: Some(100 << 20),
            uid: 1000,
            mode: Some(0o700),
            noexec: true,
            ..TmpfsOptions::default()
        };
        assert_eq!(memory, Ok(VolumeBacking::Tmpfs(expected)));
    }

    #[test]
    fn what_reaches_a_host_is_forbidden_and_says_what_to_do() {
        let bind = [("type", "none"), ("o", "bind"), ("device", "/")];
        let nfs = [("type", "nfs"), ("o", "addr=10.0.0.1,rw"), ("device", ":/x")];
        let disk = [("type", "ext4"), ("device", "/dev/sda1")];
        let hidden = [("o", "rbind"), ("device", "/etc")];
        let suid = [("type", "tmpfs"), ("o", "suid")];
        let endless = [("type", "tmpfs"), ("o", "size=17g")];
        for options in [&bind[..], &nfs[..], &disk[..], &hidden[..], &suid[..], &endless[..]] {
            let error = parse(options).expect_err("refused");
            assert!(matches!(error, Error::Forbidden(_)), "{options:?}: {error:?}");
        }
        assert!(parse(&bind).expect_err("refused").to_string().contains("docker cp"));
    }

    #[test]
    fn what_is_nonsense_is_refused_by_name() {
        let text = |options: &[(&str, &str)]| parse(options).expect_err("refused").to_string();
        assert_eq!(text(&[("foo", "1")]), "invalid option: \"foo\"");
        assert_eq!(text(&[("size", "big")]), "invalid size: 'big': not a size");
        assert_eq!(text(&[("size", "1m")]), "invalid size: '1m': a volume has 8m to 1t");
        assert_eq!(text(&[("type", "tmpfs"), ("o", "mode=9")]), "invalid option: \"o=mode=9\"");
    }
}
