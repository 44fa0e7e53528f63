//! The settings of the machine the suite changes, remembered so that `down` puts them back.
//!
//! `ip_forward`: containers reach the outside. `rcu_expedited`: putting a process into a cgroup waits
//! for a grace period of the kernel, 6 to 13 ms a start on a quiet machine; expedited, 0.3 ms
//! (docs/decisions/0006). The others bound what one user may hold, and a project is one user to the
//! kernel: a session keyring for each of its containers, and their inotify instances. They are only raised.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use crate::layout::Layout;

const SETTINGS: [(&str, u64); 5] = [
    ("/proc/sys/net/ipv4/ip_forward", 1),
    ("/sys/kernel/rcu_expedited", 1),
    ("/proc/sys/kernel/keys/maxkeys", 20_000),
    ("/proc/sys/kernel/keys/maxbytes", 4_000_000),
    ("/proc/sys/fs/inotify/max_user_instances", 8_192),
];

/// Sets what this kernel has.
pub(crate) fn apply(layout: &Layout) -> Result<()> {
    for (setting, wanted) in SETTINGS {
        let Ok(before) = fs::read_to_string(setting) else { continue };
        let memory = remembered(layout, setting);
        if !memory.exists() {
            fs::write(memory, &before)?;
        }
        if before.trim().parse::<u64>().is_ok_and(|now| now < wanted) {
            fs::write(setting, wanted.to_string()).with_context(|| format!("{setting} cannot be written"))?;
        }
    }
    Ok(())
}

/// Puts back what was there before.
pub(crate) fn restore(layout: &Layout) {
    for (setting, _) in SETTINGS {
        if let Ok(before) = fs::read_to_string(remembered(layout, setting)) {
            fs::write(setting, before).ok();
        }
    }
}

fn remembered(layout: &Layout, setting: &str) -> PathBuf {
    let name = setting.rsplit('/').next().unwrap_or(setting);
    layout.volatile.join(format!("{name}.before"))
}
