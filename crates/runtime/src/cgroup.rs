//! The cgroup of a container, on v1 (one directory per controller) and v2 (one directory): who is in
//! it, whether the OOM killer was, freezing it, ending everything in it, and removing what a dead
//! runtime left.

mod create;
mod freezer;
mod limits;
mod oom;

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

pub use create::{create, hierarchies};
pub use freezer::{freeze, is_frozen, thaw};
pub use limits::Limits;
pub use oom::OomWatch;

const ROOT: &str = "/sys/fs/cgroup";

/// The cgroup path of a container on this host, for the bundle and the shim's configuration.
#[must_use]
pub fn path_for(container_id: &str) -> String {
    format!("/wharfage/{container_id}")
}

/// What the kernel of this host can limit. A runtime fails on a limit it cannot write, so limits
/// without a controller are left out with a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostCgroups {
    /// The unified hierarchy is the only one.
    pub unified: bool,
    /// Memory.
    pub memory: bool,
    /// Memory plus swap.
    pub swap: bool,
    /// CPU weight.
    pub cpu_shares: bool,
    /// CPU quota.
    pub cpu_quota: bool,
    /// CPU sets.
    pub cpuset: bool,
    /// Number of processes.
    pub pids: bool,
    /// Block I/O weight.
    pub blkio_weight: bool,
}

impl HostCgroups {
    /// Looks at the mounted hierarchies.
    #[must_use]
    pub fn probe() -> Self {
        let root = Path::new(ROOT);
        let has = |file: &str| root.join(file).exists();
        if is_unified() {
            let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
            let on = |name: &str| controllers.split_whitespace().any(|c| c == name);
            // The root group has no memory.swap.max; with the controller on, /proc/swaps decides nothing.
            let (memory, cpu, io) = (on("memory"), on("cpu"), on("io"));
            return Self {
                unified: true,
                memory,
                swap: memory,
                cpu_shares: cpu,
                cpu_quota: cpu,
                cpuset: on("cpuset"),
                pids: on("pids"),
                blkio_weight: io,
            };
        }
        Self {
            unified: false,
            memory: has("memory/memory.limit_in_bytes"),
            swap: has("memory/memory.memsw.limit_in_bytes"),
            cpu_shares: has("cpu/cgroup.procs"),
            cpu_quota: has("cpu/cpu.cfs_quota_us"),
            cpuset: has("cpuset/cgroup.procs"),
            pids: has("pids/cgroup.procs"),
            blkio_weight: has("blkio/blkio.weight") || has("blkio/blkio.bfq.weight"),
        }
    }
}

/// Whether cgroup v2 is the only hierarchy.
#[must_use]
pub fn is_unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// Every directory a container's cgroup consists of, whether it exists or not.
fn directories(cgroup_path: &str) -> Vec<PathBuf> {
    let inner = cgroup_path.trim_start_matches('/');
    if is_unified() {
        return vec![Path::new(ROOT).join(inner)];
    }
    let Ok(entries) = fs::read_dir(ROOT) else { return Vec::new() };
    // `cpu` and `cpuacct` may be links to one joint hierarchy; removing it twice does no harm.
    entries.flatten().map(|e| e.path().join(inner)).collect()
}

/// Where a process is put into the cgroup, in every hierarchy that has it.
#[must_use]
pub fn doors(cgroup_path: &str) -> Vec<PathBuf> {
    let all = directories(cgroup_path).into_iter().map(|dir| dir.join("cgroup.procs"));
    all.filter(|door| door.exists()).collect()
}

/// How often the OOM killer has killed in the cgroup. `None` when it cannot be told (no controller,
/// cgroup gone).
#[must_use]
pub fn oom_kills(cgroup_path: &str) -> Option<u64> {
    let inner = cgroup_path.trim_start_matches('/');
    let file = if is_unified() {
        Path::new(ROOT).join(inner).join("memory.events")
    } else {
        Path::new(ROOT).join("memory").join(inner).join("memory.oom_control")
    };
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// In how many hierarchies the cgroup is.
#[must_use]
pub fn parts(cgroup_path: &str) -> usize {
    directories(cgroup_path).iter().filter(|dir| dir.is_dir()).count()
}

/// PIDs in the cgroup and below it; empty when there is none.
#[must_use]
pub fn pids_in(cgroup_path: &str) -> Vec<u32> {
    let inner = cgroup_path.trim_start_matches('/');
    let controllers = if is_unified() { vec![""] } else { vec!["pids", "memory", "devices", "freezer"] };
    let found = controllers.iter().map(|c| Path::new(ROOT).join(c).join(inner)).find(|d| d.exists());
    let mut pids = Vec::new();
    if let Some(dir) = found {
        collect_pids(&dir, 0, &mut pids);
    }
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn collect_pids(dir: &Path, depth: u32, pids: &mut Vec<u32>) {
    if let Ok(text) = fs::read_to_string(dir.join("cgroup.procs")) {
        pids.extend(text.lines().filter_map(|l| l.parse::<u32>().ok()));
    }
    // A container without cgroup mounts cannot nest; the bound is for one that could.
    if depth < 8 {
        for child in children(dir) {
            collect_pids(&child, depth + 1, pids);
        }
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

/// SIGKILL to everything in the cgroup, frozen or not; returns how many processes were hit.
pub fn kill_all(cgroup_path: &str) -> usize {
    if is_unified() {
        let file = Path::new(ROOT).join(cgroup_path.trim_start_matches('/')).join("cgroup.kill");
        let count = pids_in(cgroup_path).len();
        if fs::write(file, "1").is_ok() {
            return count;
        }
    }
    let pids = pids_in(cgroup_path);
    for pid in &pids {
        if let Ok(pid) = i32::try_from(*pid) {
            // ESRCH: it went by itself.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    // In the old freezer even SIGKILL waits; it is there first, so nothing runs on.
    if !pids.is_empty() && is_frozen(cgroup_path) {
        let _ = thaw(cgroup_path);
    }
    pids.len()
}

/// Kills what is left and removes the cgroup from every hierarchy, for at most `patience`.
///
/// # Errors
/// Something in it cannot be killed or removed in time.
pub fn remove(cgroup_path: &str, patience: Duration) -> io::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        kill_all(cgroup_path);
        let mut left = None;
        for dir in directories(cgroup_path) {
            if let Err(e) = remove_tree(&dir, 0) {
                left = Some(e);
            }
        }
        match left {
            None => return Ok(()),
            Some(e) if Instant::now() >= deadline => return Err(e),
            Some(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn remove_tree(dir: &Path, depth: u32) -> io::Result<()> {
    if depth < 8 {
        for child in children(dir) {
            remove_tree(&child, depth + 1)?;
        }
    }
    match fs::remove_dir(dir) {
        Ok(()) => Ok(()),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
        Err(e) => Err(e),
    }
}
