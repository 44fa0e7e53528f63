//! `X-Docker-Container-Path-Stat`: what is at a path of a container, as Go's clients read it. The mode
//! is Go's own (`os.FileMode`), not the kernel's.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use contract::agent::PathStat;
use model::{Error, Result};
use serde_json::json;
use time::format_description::well_known::Rfc3339;

/// The header.
pub(super) const HEADER: &str = "x-docker-container-path-stat";

/// Its value.
pub(super) fn header_value(stat: &PathStat) -> Result<String> {
    let shown = json!({
        "name": stat.name,
        "size": stat.size_bytes,
        "mode": go_mode(stat.mode),
        "mtime": stat.modified_at.format(&Rfc3339).map_err(Error::internal)?,
        "linkTarget": stat.link_target,
    });
    Ok(STANDARD.encode(shown.to_string()))
}

/// The agent's own header, read back.
pub(super) fn decode(header: &[u8]) -> Result<PathStat> {
    let document = STANDARD.decode(header).map_err(Error::internal)?;
    serde_json::from_slice(&document).map_err(Error::internal)
}

/// Permissions, and Go's bits for everything else.
fn go_mode(st_mode: u32) -> u32 {
    const DIRECTORY: u32 = 1 << 31;
    const SYMLINK: u32 = 1 << 27;
    const DEVICE: u32 = 1 << 26;
    const PIPE: u32 = 1 << 25;
    const SOCKET: u32 = 1 << 24;
    const CHARACTER: u32 = 1 << 21;
    let kind = match st_mode & 0o170_000 {
        0o040_000 => DIRECTORY,
        0o120_000 => SYMLINK,
        0o060_000 => DEVICE,
        0o020_000 => DEVICE | CHARACTER,
        0o010_000 => PIPE,
        0o140_000 => SOCKET,
        _ => 0,
    };
    let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let set = special.iter().filter(|(bit, _)| st_mode & bit != 0).map(|(_, go)| go);
    kind | st_mode & 0o777 | set.sum::<u32>()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_mode_is_gos() {
        // As dockerd tells them: /bin/sh (a link), /tmp, /bin/su, /dev/null, /dev/sda.
        assert_eq!(go_mode(0o120_777), 134_218_239);
        assert_eq!(go_mode(0o041_777), (1 << 31) | (1 << 20) | 0o777);
        assert_eq!(go_mode(0o104_755), (1 << 23) | 0o755);
        assert_eq!(go_mode(0o020_666), (1 << 26) | (1 << 21) | 0o666);
        assert_eq!(go_mode(0o060_660), (1 << 26) | 0o660);
        assert_eq!(go_mode(0o010_644), (1 << 25) | 0o644);
        assert_eq!(go_mode(0o102_755), (1 << 22) | 0o755);
    }

    #[test]
    fn the_header_is_base64_of_five_fields() {
        let stat = PathStat {
            name: "sh".into(),
            size_bytes: 12,
            mode: 0o120_777,
            modified_at: datetime!(2024-01-02 03:04:05.6 UTC),
            link_target: "/bin/busybox".into(),
        };
        let text = STANDARD.decode(header_value(&stat).expect("a value")).expect("base64");
        assert_eq!(
            String::from_utf8(text).expect("text"),
            r#"{"name":"sh","size":12,"mode":134218239,"mtime":"2024-01-02T03:04:05.6Z","linkTarget":"/bin/busybox"}"#
        );
    }
}
