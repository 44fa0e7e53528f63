//! `/var/run/docker.sock`: the one source of a bind that is no path of a host, but the project's own API on
//! a socket of the container's own. Whether the project allows it is decided later, in the transaction.

use model::{Result, SocketMount};

use super::{Mode, invalid, target};
use crate::docker::containers::host_config::Mount;

/// What clients call it.
const NAMES: [&str; 2] = ["/var/run/docker.sock", "/run/docker.sock"];

fn is_socket(source: &str) -> bool {
    NAMES.contains(&source)
}

/// `/var/run/docker.sock:/path[:mode]`; `None` for every other bind.
pub(super) fn from_bind(written: &str) -> Result<Option<SocketMount>> {
    let mut parts = written.splitn(3, ':');
    let (Some(source), Some(path)) = (parts.next().filter(|source| is_socket(source)), parts.next()) else {
        return Ok(None);
    };
    let mode = parts.next().unwrap_or_default();
    // A file has nothing below it that could spread.
    let rest: Vec<&str> = mode.split(',').filter(|word| !matches!(*word, "private" | "rprivate" | "")).collect();
    let parsed = Mode::parse(&rest.join(","))?;
    if parsed.no_copy {
        return Err(invalid(format!("invalid mode: {mode}")));
    }
    Ok(Some(SocketMount {
        path: target(path)?,
        read_only: parsed.read_only,
        shown_source: source.to_owned(),
        shown_mode: mode.to_owned(),
    }))
}

/// `type=bind,source=/var/run/docker.sock`; `None` for every other source.
pub(super) fn from_mount(mount: &Mount) -> Result<Option<SocketMount>> {
    if !is_socket(&mount.source) {
        return Ok(None);
    }
    let wrong = |why: &str| invalid(format!("invalid mount config for type \"bind\": {why}"));
    let foreign = [
        ("VolumeOptions", mount.volume_options.is_some()),
        ("TmpfsOptions", mount.tmpfs_options.is_some()),
        ("ImageOptions", mount.image_options.is_some()),
        ("ClusterOptions", mount.cluster_options.is_some()),
    ];
    if let Some((field, _)) = foreign.into_iter().find(|(_, given)| *given) {
        return Err(wrong(&format!("field {field} must not be specified")));
    }
    let options = mount.bind_options.as_ref();
    let propagation = options.and_then(|options| options.get("Propagation")?.as_str()).unwrap_or_default();
    if !matches!(propagation, "" | "private" | "rprivate") {
        return Err(wrong(&format!("propagation {propagation:?} is a matter of host paths, and this is none")));
    }
    if mount.target.is_empty() {
        return Err(wrong("field Target must not be empty"));
    }
    Ok(Some(SocketMount {
        path: target(&mount.target)?,
        read_only: mount.read_only,
        shown_source: mount.source.clone(),
        shown_mode: String::new(),
    }))
}
