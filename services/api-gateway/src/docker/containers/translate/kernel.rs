//! Settings of the kernel that are a container's own: sysctls of its namespaces, its place in the
//! queue of the OOM killer, its shared memory, the devices every container has.

use std::collections::BTreeMap;

use model::{IpcMode, Result};
use serde::Deserialize;

use super::{
    super::{body, host_config::HostConfig},
    forbidden, invalid, not_built,
};

/// Sysctls of one container.
const SYSCTLS_MAX: usize = 64;
/// As dockerd: these belong to the container's IPC namespace.
const IPC_SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];
/// What every container has in `/dev` anyway.
const DEVICES: [&str; 7] =
    ["/dev/full", "/dev/null", "/dev/ptmx", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero"];

/// The sysctls asked for, each of the container's own namespaces.
pub(super) fn sysctls(host: &HostConfig) -> Result<BTreeMap<String, String>> {
    if host.sysctls.len() > SYSCTLS_MAX {
        return Err(invalid(format!("Sysctls: at most {SYSCTLS_MAX} are possible")));
    }
    for (name, value) in &host.sysctls {
        let word = |w: &str| {
            !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
        };
        if name.len() > 128 || !name.split('.').all(word) {
            return Err(invalid(format!("invalid sysctl {name:?}")));
        }
        if !IPC_SYSCTLS.contains(&name.as_str()) && !name.starts_with("net.") && !name.starts_with("fs.mqueue.") {
            return Err(forbidden(format!(
                "Sysctls: {name:?} is not available on Wharfage: it is not a container's own but its host's"
            )));
        }
        if value.is_empty() || value.len() > 256 || value.contains(|c: char| c.is_control() && c != '\t') {
            return Err(invalid(format!("invalid value of sysctl {name:?}: {value:?}")));
        }
        if name.starts_with("net.") && (host.network_mode == "none" || host.network_mode.starts_with("container:")) {
            return Err(invalid(format!("sysctl {name:?} not allowed in network mode {:?}", host.network_mode)));
        }
    }
    Ok(host.sysctls.clone())
}

/// 0 to 1000: nearer to the OOM killer, never further.
pub(super) fn oom_score_adj(host: &HostConfig) -> Result<u16> {
    match u16::try_from(host.oom_score_adj) {
        Ok(score) if score <= 1000 => Ok(score),
        _ if (-1000..0).contains(&host.oom_score_adj) => Err(forbidden(
            "OomScoreAdj is not available on Wharfage below 0: a container may not be spared at the cost of others",
        )),
        _ => Err(invalid(format!("Invalid value {}, range for oom score adj is [-1000, 1000]", host.oom_score_adj))),
    }
}

/// Its own, unless it is another container's; `host` has been refused by name before.
pub(super) fn ipc_mode(host: &HostConfig) -> Result<IpcMode> {
    match host.ipc_mode.as_str() {
        "" | "private" => Ok(IpcMode::Private),
        "shareable" => Ok(IpcMode::Shareable),
        "none" => Ok(IpcMode::None),
        other if super::namespace_of("IpcMode", other).is_some() => Ok(IpcMode::Private),
        other => Err(invalid(format!("invalid IPC mode: {other}"))),
    }
}

/// `--device`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Device {
    path_on_host: String,
    path_in_container: String,
    cgroup_permissions: String,
}

/// Refuses every device but those each container has, under their own names.
pub(super) fn check_devices(host: &HostConfig) -> Result<()> {
    for written in &host.devices {
        let device: Device = body::typed(written.clone())?;
        let path = &device.path_on_host;
        if !DEVICES.contains(&path.as_str()) {
            return Err(forbidden(format!(
                "Devices: {path:?} is a device of a host; of those only {} are available on Wharfage",
                DEVICES.join(", ")
            )));
        }
        if !device.path_in_container.is_empty() && device.path_in_container != *path {
            return Err(not_built(&format!("Devices: {path:?} under another name ({:?})", device.path_in_container)));
        }
        if device.cgroup_permissions.contains(|c| !matches!(c, 'r' | 'w' | 'm')) {
            return Err(invalid(format!("invalid device mode: {}", device.cgroup_permissions)));
        }
    }
    Ok(())
}

/// Refuses lists that would show more of the host's kernel than the platform's own do. The lists
/// inspect shows may be given back, as tools do that make a container again.
pub(super) fn check_paths(field: &str, given: Option<&Vec<String>>, ours: &[&str]) -> Result<()> {
    match given {
        Some(given) if !ours.iter().all(|path| given.iter().any(|g| g == path)) => Err(forbidden(format!(
            "{field} is not available on Wharfage: these paths keep a host's kernel apart from its containers"
        ))),
        Some(given) => match given.iter().find(|g| !ours.contains(&g.as_str())) {
            Some(more) => Err(not_built(&format!("{field}: {more:?} in addition to the platform's own"))),
            None => Ok(()),
        },
        None => Ok(()),
    }
}
