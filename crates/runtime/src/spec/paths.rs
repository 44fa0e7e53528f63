//! Which parts of `/proc` and `/sys` a container does not see or may not write. Equal to moby's
//! current defaults, plus what tells one tenant about others on the host.

use std::fs;

use model::{MASKED_PATHS, READONLY_PATHS};

/// Ours: allocator and device state of the whole host.
const MASKED_TOO: [&str; 5] =
    ["/proc/mdstat", "/proc/pagetypeinfo", "/proc/slabinfo", "/proc/swaps", "/proc/vmallocinfo"];

/// Paths hidden behind `/dev/null` or an empty directory.
pub(super) fn masked() -> Vec<String> {
    MASKED_PATHS.iter().chain(&MASKED_TOO).map(|p| (*p).to_owned()).chain(thermal_throttle()).collect()
}

/// Paths that cannot be written.
pub(super) fn readonly() -> Vec<String> {
    READONLY_PATHS.iter().map(|p| (*p).to_owned()).collect()
}

/// One per CPU, where the hardware has it (moby masks them since 28: a side channel on the neighbours).
fn thermal_throttle() -> Vec<String> {
    let Ok(cpus) = fs::read_dir("/sys/devices/system/cpu") else { return Vec::new() };
    let paths = cpus.flatten().map(|c| c.path().join("thermal_throttle")).filter(|p| p.exists());
    let mut found: Vec<String> = paths.map(|p| p.to_string_lossy().into_owned()).collect();
    found.sort_unstable();
    found
}
