//! What one idle container costs outside itself: resident memory of every process that appears with
//! it and is not in it, and what the daemons grow by.

use std::{collections::BTreeMap, fs, thread, time::Duration};

use crate::{daemons, peer::Peer};

#[derive(Clone, Copy, Default)]
struct Usage {
    rss_kib: i64,
    pss_kib: i64,
}

/// Sum over all of our (or dockerd's) processes.
fn total(peer: &Peer) -> Usage {
    let mut usage = Usage::default();
    for path in daemons::of(peer) {
        let rollup = fs::read_to_string(path.join("smaps_rollup")).unwrap_or_default();
        let fields: BTreeMap<&str, i64> = rollup
            .lines()
            .filter_map(|line| {
                let (key, rest) = line.split_once(':')?;
                Some((key, rest.split_whitespace().next()?.parse().ok()?))
            })
            .collect();
        usage.rss_kib += fields.get("Rss").copied().unwrap_or(0);
        usage.pss_kib += fields.get("Pss").copied().unwrap_or(0);
    }
    usage
}

/// Starts so many sleepers and divides what everything grew by.
///
/// MiB: resident, and proportional.
pub(crate) fn per_idle_container(peer: &Peer, count: i64) -> (f64, f64) {
    let before = total(peer);
    let names: Vec<String> = (0..count).map(|_| peer.sleeper("bench-idle")).collect();
    thread::sleep(Duration::from_secs(3));
    let after = total(peer);
    for name in names {
        peer.remove(&name);
    }
    let mib = |a: i64, b: i64| (a - b) as f64 / count as f64 / 1024.0;
    (mib(after.rss_kib, before.rss_kib), mib(after.pss_kib, before.pss_kib))
}
