//! The processes of each peer outside its containers: who they are, and what they used.

use std::{fs, path::PathBuf};

use crate::peer::Peer;

const OURS: [&str; 6] = ["api-gateway", "image-svc", "scheduler", "node-agent", "netd", "wharfage-shim"];
const THEIRS: [&str; 3] = ["dockerd", "containerd", "containerd-shim"];

/// `/proc/<pid>` of every daemon and shim of the peer.
pub(crate) fn of(peer: &Peer) -> Vec<PathBuf> {
    let names: &[&str] = if peer.name == "dockerd" { &THEIRS } else { &OURS };
    let is_one = |path: &PathBuf| {
        let comm = fs::read_to_string(path.join("comm")).unwrap_or_default();
        // The kernel cuts names at 15 bytes.
        names.iter().any(|name| comm.trim() == &name[..name.len().min(15)])
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path()).filter(is_one).collect()
}

/// CPU time all of them have used, in milliseconds.
pub(crate) fn cpu_ms(peer: &Peer) -> f64 {
    // Clock ticks of /proc/<pid>/stat are hundredths of a second on every Linux that matters here.
    const MS_PER_TICK: f64 = 10.0;
    let ticks = |path: PathBuf| -> Option<f64> {
        let stat = fs::read_to_string(path.join("stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
    };
    of(peer).into_iter().filter_map(ticks).sum::<f64>() * MS_PER_TICK
}
