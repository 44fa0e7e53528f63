//! Making the cgroup of a container, in every hierarchy of v1, with its limits and its device list before
//! anybody is in it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, statfs};

use super::{Limits, ROOT, limits};
use crate::words;

/// A hierarchy of cgroup v1, by the name it is mounted under.
///
/// Joint ones are one directory with links to it; the links count for nothing.
#[must_use]
pub fn hierarchies() -> Vec<String> {
    let Ok(entries) = fs::read_dir(ROOT) else { return Vec::new() };
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let of_v1 = directories.filter(|e| statfs(&e.path()).is_ok_and(|fs| fs.filesystem_type() == CGROUP_SUPER_MAGIC));
    let mut names: Vec<String> = of_v1.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// Makes the group, empty and limited, and returns where a process is put into it. The number of processes
/// is for [`Limits::apply_processes`] to bound, once the first is there.
///
/// # Errors
/// There is one with processes in it, or the kernel refuses; what was made stays for `remove`.
pub fn create(cgroup_path: &str, limits: &Limits) -> Result<Vec<PathBuf>, String> {
    let inner = cgroup_path.trim_start_matches('/');
    let mut doors = Vec::new();
    for name in hierarchies() {
        let root = Path::new(ROOT).join(&name);
        let dir = root.join(inner);
        make(&dir).map_err(|e| format!("mkdir {}: {}", dir.display(), words(&e)))?;
        if name.split(',').any(|controller| controller == "cpuset") {
            inherit_cpus(&root, inner).map_err(|e| format!("prepare {}: {}", dir.display(), words(&e)))?;
        }
        doors.push(dir.join("cgroup.procs"));
    }
    limits.apply_devices(cgroup_path)?;
    limits.apply_amounts(cgroup_path)?;
    Ok(doors)
}

/// A new directory. One that is there already is an earlier run's, and goes first: it has that run's limits.
fn make(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = dir.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::create_dir(dir)
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            super::remove_tree(dir, 0)?;
            fs::create_dir(dir)
        }
        made => made,
    }
}

/// A new cpuset has neither processors nor memory, and takes no process until it has: its parent's.
fn inherit_cpus(root: &Path, inner: &str) -> io::Result<()> {
    let mut dir = root.to_owned();
    for part in Path::new(inner) {
        let parent = dir.clone();
        dir.push(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if fs::read_to_string(dir.join(file))?.trim().is_empty() {
                limits::write(&dir.join(file), fs::read_to_string(parent.join(file))?.trim())?;
            }
        }
    }
    Ok(())
}
