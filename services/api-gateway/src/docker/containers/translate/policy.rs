//! What a tenant may not ask for, by name and with the reason (403), and what nobody can have yet
//! (501). Everything that would name, share or weaken a host is here.

use model::{Capability, Error, GRANTABLE_CAPABILITIES, MASKED_PATHS, READONLY_PATHS, Result, SecuritySpec};

use super::{
    super::{body::Words, host_config::HostConfig},
    forbidden, invalid, kernel, not_built, shared_network,
};

/// Every capability Linux has; anything else is a typing error, not a wish.
const KNOWN_CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// Refuses what a host configuration asks beyond the platform's policy.
pub(super) fn check(host: &HostConfig) -> Result<()> {
    check_namespaces(host)?;
    check_host_access(host)?;
    check_kernel(host)?;
    runtime(host)?;
    if !matches!(host.isolation.as_str(), "" | "default") {
        return Err(invalid(format!("invalid isolation {:?}: linux only supports 'default'", host.isolation)));
    }
    if let Some(name) = host.annotations.keys().next() {
        return Err(forbidden(format!(
            "annotation {name:?}: annotations steer the hosts' runtime and are not available on Wharfage"
        )));
    }
    if !host.storage_opt.is_empty() {
        return Err(not_built("HostConfig.StorageOpt"));
    }
    Ok(())
}

/// By its name; empty is the default. Whether the project may have it is decided in the transaction.
pub(super) fn runtime(host: &HostConfig) -> Result<String> {
    match host.runtime.as_str() {
        "" | "runc" | "io.containerd.runc.v2" => Ok(String::new()),
        name @ ("crun" | "youki" | "runsc") => Ok(name.to_owned()),
        other => Err(no_such_runtime(other)),
    }
}

/// dockerd's text.
pub(crate) fn no_such_runtime(name: &str) -> Error {
    invalid(format!("unknown or invalid runtime name: {name}"))
}

fn check_namespaces(host: &HostConfig) -> Result<()> {
    let network = host.network_mode.as_str();
    if network == "host" {
        return Err(forbidden("NetworkMode=host: the namespaces of a host are not available on Wharfage"));
    }
    let modes = [
        ("PidMode", &host.pid_mode, &["", "private"][..]),
        ("IpcMode", &host.ipc_mode, &["", "private", "shareable", "none"][..]),
        ("UTSMode", &host.uts_mode, &["", "private"][..]),
        ("UsernsMode", &host.userns_mode, &["", "private"][..]),
        ("CgroupnsMode", &host.cgroupns_mode, &["", "private"][..]),
        ("Cgroup", &host.cgroup, &[""][..]),
    ];
    for (field, mode, granted) in modes {
        if granted.contains(&mode.as_str()) || shared_network::namespace_of(field, mode).is_some() {
            continue;
        }
        if mode == "host" {
            return Err(forbidden(format!("{field}=host: the namespaces of a host are not available on Wharfage")));
        }
        if field == "Cgroup" && mode.starts_with("container:") {
            return Err(not_built(&format!("{field}={mode:?}: sharing another container's cgroup")));
        }
        return Err(invalid(format!("invalid {field}: {mode:?}")));
    }
    Ok(())
}

fn check_host_access(host: &HostConfig) -> Result<()> {
    if host.privileged {
        return Err(forbidden("Privileged: privileged containers are not available on Wharfage: hosts are shared"));
    }
    let device_lists = [
        ("DeviceCgroupRules", host.device_cgroup_rules.as_ref().is_some_and(|v| !v.is_empty())),
        ("DeviceRequests", host.device_requests.as_ref().is_some_and(|v| !v.is_empty())),
        ("BlkioWeightDevice", !host.blkio_weight_device.is_empty()),
        ("BlkioDeviceReadBps", !host.blkio_device_read_bps.is_empty()),
        ("BlkioDeviceWriteBps", !host.blkio_device_write_bps.is_empty()),
        ("BlkioDeviceReadIOps", !host.blkio_device_read_iops.is_empty()),
        ("BlkioDeviceWriteIOps", !host.blkio_device_write_iops.is_empty()),
    ];
    match device_lists.into_iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(forbidden(format!("{field}: devices of a host are not available on Wharfage"))),
        None => kernel::check_devices(host),
    }
}

fn check_kernel(host: &HostConfig) -> Result<()> {
    let settings = [
        ("CgroupParent", !host.cgroup_parent.is_empty(), "cgroups of a host are not the tenant's to choose"),
        ("OomKillDisable", host.oom_kill_disable, "a container that cannot be killed would hold its host's memory"),
        ("CpuRealtimePeriod", host.cpu_realtime_period != 0, "realtime scheduling would starve other tenants"),
        ("CpuRealtimeRuntime", host.cpu_realtime_runtime != 0, "realtime scheduling would starve other tenants"),
    ];
    if let Some((field, _, why)) = settings.into_iter().find(|(_, given, _)| *given) {
        return Err(forbidden(format!("{field} is not available on Wharfage: {why}")));
    }
    kernel::check_paths("MaskedPaths", host.masked_paths.as_ref(), &MASKED_PATHS)?;
    kernel::check_paths("ReadonlyPaths", host.readonly_paths.as_ref(), &READONLY_PATHS)
}

/// What is ignored with the user's knowledge.
pub(super) fn warn(host: &HostConfig, warnings: &mut Vec<String>) {
    let ignored = [
        ("KernelMemory", host.kernel_memory),
        ("KernelMemoryTCP", host.kernel_memory_tcp),
        ("CpuCount", host.cpu_count),
        ("CpuPercent", host.cpu_percent),
        ("IOMaximumIOps", host.io_maximum_iops),
        ("IOMaximumBandwidth", host.io_maximum_bandwidth),
    ];
    for (field, _) in ignored.into_iter().filter(|(_, value)| *value != 0) {
        warnings.push(format!("{field} has no effect on Linux hosts of Wharfage and was discarded"));
    }
}

/// The security choices, each within the sets a tenant may choose from.
pub(super) fn security(host: &HostConfig) -> Result<SecuritySpec> {
    let cap_add = capabilities(host.cap_add.as_ref(), "CapAdd")?;
    let grantable = |c: &Capability| c.as_str() == "ALL" || GRANTABLE_CAPABILITIES.contains(&c.as_str());
    if let Some(refused) = cap_add.iter().find(|c| !grantable(c)) {
        return Err(forbidden(format!(
            "CapAdd: capability CAP_{refused} is not available on Wharfage: it reaches beyond the container"
        )));
    }
    let mut no_new_privileges = false;
    for option in host.security_opt.as_deref().unwrap_or_default() {
        match option.as_str() {
            "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true" => no_new_privileges = true,
            "seccomp=default" | "seccomp=builtin" | "seccomp:default" | "writable-cgroups=false" => {}
            other => {
                // A profile is a document of many pages.
                let shown: String = other.chars().take(64).collect();
                return Err(forbidden(format!(
                    "SecurityOpt {shown:?} is not available on Wharfage: the profile of its hosts may only be tightened (no-new-privileges, seccomp=default)"
                )));
            }
        }
    }
    Ok(SecuritySpec {
        cap_add,
        cap_drop: capabilities(host.cap_drop.as_ref(), "CapDrop")?,
        no_new_privileges,
        readonly_rootfs: host.readonly_rootfs,
        group_add: groups(host)?,
    })
}

/// By name, or a number the project's range has.
fn groups(host: &HostConfig) -> Result<Vec<String>> {
    let groups = super::settings::short_list(host.group_add.as_deref().unwrap_or_default(), "GroupAdd")?;
    let outside = |g: &&String| g.bytes().all(|b| b.is_ascii_digit()) && g.parse::<u16>().is_err();
    match groups.iter().find(outside) {
        Some(group) => Err(invalid(format!("GroupAdd: gid {group} is not in the range 0-65535"))),
        None => Ok(groups),
    }
}

fn capabilities(words: Option<&Words>, field: &str) -> Result<Vec<Capability>> {
    words
        .map_or(&[][..], |w| &w.0)
        .iter()
        .map(|written| {
            written
                .parse::<Capability>()
                .ok()
                .filter(|c| c.as_str() == "ALL" || KNOWN_CAPABILITIES.contains(&c.as_str()))
                .ok_or_else(|| invalid(format!("invalid {field}: unknown capability: {written:?}")))
        })
        .collect()
}
