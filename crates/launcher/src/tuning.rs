//! The two settings of the machine the suite changes, remembered so that `down` puts them back.
//!
//! `ip_forward`: containers reach the outside. `rcu_expedited`: putting a process into a cgroup waits
//! for a grace period of the kernel, 6 to 13 ms a start on a quiet machine; expedited, 0.3 ms
//! (docs/decisions/0006).

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use crate::layout::Layout;

const SETTINGS: [(&str, &str); 2] = [("/proc/sys/net/ipv4/ip_forward", "1"), ("/sys/kernel/rcu_expedited", "1")];

/// Sets what this kernel has.
pub(crate) fn apply(layout: &Layout) -> Result<()> {
    for (setting, wanted) in SETTINGS {
        let Ok(before) = fs::read_to_string(setting) else { continue };
        let memory = remembered(layout, setting);
        if !memory.exists() {
            fs::write(memory, &before)?;
        }
        if before.trim() != wanted {
            fs::write(setting, wanted).with_context(|| format!("{setting} cannot be written"))?;
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
