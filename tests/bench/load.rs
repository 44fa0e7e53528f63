//! Load: many connections at once.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{daemons, peer::Peer};

const CONNECTIONS: usize = 16;
const LOAD: Duration = Duration::from_secs(3);

/// Inspects of one container a second, over 16 kept-alive connections.
pub(crate) fn inspect_rate(peer: &Peer) -> f64 {
    let id = peer.sleeper("bench-inspect");
    let (path, done) = (format!("/v1.41/containers/{id}/json"), AtomicU64::new(0));
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let mut wire = peer.wire();
                while began.elapsed() < LOAD {
                    let (status, _) = wire.request("GET", &path, "");
                    assert_eq!(status, 200, "{}: inspect", peer.name);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let rate = done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    peer.remove(&id);
    rate
}

/// CPU time per second, in milliseconds, that the daemons use while so many containers are watched by
/// one `stats` stream each; and while nobody watches.
pub(crate) fn stats_cost(peer: &Peer, count: usize) -> (f64, f64) {
    let ids: Vec<String> = (0..count).map(|_| peer.sleeper("bench-stats")).collect();
    thread::sleep(Duration::from_secs(2));
    let idle = cpu_rate(peer);
    let watchers: Vec<_> = ids.iter().map(|id| peer.open_stats(id)).collect();
    thread::sleep(Duration::from_secs(2));
    let watched = cpu_rate(peer);
    drop(watchers);
    peer.remove_many(&ids);
    (watched, idle)
}

fn cpu_rate(peer: &Peer) -> f64 {
    let (before, began) = (daemons::cpu_ms(peer), Instant::now());
    thread::sleep(Duration::from_secs(5));
    (daemons::cpu_ms(peer) - before) / began.elapsed().as_secs_f64()
}
