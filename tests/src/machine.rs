//! What the suite may leave on a machine, counted: mounts, namespaces, links, tables, cgroups, processes.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

/// Names of everything of ours, to compare before and after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Residue {
    /// Mount points.
    pub mounts: BTreeSet<String>,
    /// Network interfaces of this namespace.
    pub links: BTreeSet<String>,
    /// nft tables of this namespace.
    pub tables: BTreeSet<String>,
    /// cgroups with our name in the path.
    pub cgroups: BTreeSet<String>,
    /// Commands of ours that run.
    pub processes: BTreeSet<String>,
}

impl Residue {
    /// Takes stock.
    #[must_use]
    pub fn now() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mut cgroups = BTreeSet::new();
        find_cgroups(Path::new("/sys/fs/cgroup"), 4, &mut cgroups);
        Self {
            // A project's user namespace stays pinned for its next container, until its host goes down.
            mounts: mounts
                .lines()
                .filter_map(|line| line.split(' ').nth(1).map(str::to_owned))
                .filter(|point| !point.contains("/agent/namespaces/"))
                .collect(),
            links: fs::read_dir("/sys/class/net")
                .into_iter()
                .flatten()
                .filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned()))
                .collect(),
            tables: lines_of(Command::new("nft").args(["list", "tables"])),
            cgroups,
            processes: processes(),
        }
    }
}

fn lines_of(command: &mut Command) -> BTreeSet<String> {
    let output = command.output().map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    output.lines().map(str::to_owned).collect()
}

fn find_cgroups(dir: &Path, depth: u8, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        if path.to_string_lossy().contains("wharfage") {
            found.insert(path.display().to_string());
        } else if depth > 0 {
            find_cgroups(&path, depth - 1, found);
        }
    }
}

fn processes() -> BTreeSet<String> {
    let ours = [
        "api-gateway",
        "image-svc",
        "scheduler",
        "node-agent",
        "netd",
        "wharfage-shim",
        "docker-registry",
        "redis-server",
    ];
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("comm")).ok())
        .map(|comm| comm.trim().to_owned())
        .filter(|comm| ours.iter().any(|name| comm.starts_with(&name[..name.len().min(15)])))
        .collect()
}
