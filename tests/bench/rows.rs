//! What is measured, by name, in the order of the table. The targets are those of the issue that asked
//! for them.

use std::time::Instant;

use tests::unique;

use crate::{
    cold, load, logs, memory,
    peer::Peer,
    sample::{Sample, interleave},
    table::{self, Figure, Target},
};

/// How much of everything.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    /// Rounds of what is timed one at a time.
    pub(crate) rounds: usize,
    /// Starts of a rate.
    pub(crate) starts: usize,
    /// Containers watched by `stats`.
    pub(crate) watched: usize,
    /// Containers in a list.
    pub(crate) listed: usize,
    /// Megabytes written line by line; ten times as many in batches.
    pub(crate) log_mb: u64,
    /// Images that are pulled, unpacked and run.
    pub(crate) cold: usize,
    /// Rounds of what takes a registry seconds.
    pub(crate) registry_rounds: usize,
    /// Bytes of an image that is pushed.
    pub(crate) image_bytes: usize,
    /// Blobs that are pushed, of little each.
    pub(crate) small_blobs: usize,
}

impl Scale {
    pub(crate) const FULL: Self = Self {
        rounds: 20,
        starts: 200,
        watched: 200,
        listed: 1_000,
        log_mb: 20,
        cold: 5,
        registry_rounds: 5,
        image_bytes: 1 << 30,
        small_blobs: 2_000,
    };
    pub(crate) const QUICK: Self = Self {
        rounds: 5,
        starts: 40,
        watched: 20,
        listed: 300,
        log_mb: 8,
        cold: 3,
        registry_rounds: 3,
        image_bytes: 256 << 20,
        small_blobs: 500,
    };
}

/// A measurement.
pub(crate) struct Row {
    /// What it is asked for by.
    pub(crate) name: &'static str,
    /// Measures all peers and prints.
    pub(crate) run: fn(&[&Peer], Scale),
}

/// All of them.
pub(crate) const ROWS: [Row; 17] = [
    Row { name: "run-rm", run: run_rm },
    Row { name: "create-start", run: create_start },
    Row { name: "cycle", run: cycle },
    Row { name: "exec-cli", run: exec_cli },
    Row { name: "exec-api", run: exec_api },
    Row { name: "rm-f", run: rm_f },
    Row { name: "starts-1", run: |peers, scale| starts(peers, scale, 1) },
    Row { name: "starts-8", run: |peers, scale| starts(peers, scale, 8) },
    Row { name: "starts-32", run: |peers, scale| starts(peers, scale, 32) },
    Row { name: "cycles-8", run: cycles },
    Row { name: "inspect", run: inspect },
    Row { name: "list", run: list },
    Row { name: "logs-lines", run: |peers, scale| logs::throughput(peers, scale.log_mb, 1, Target::AtLeast(2.0)) },
    Row {
        name: "logs-batches",
        run: |peers, scale| logs::throughput(peers, scale.log_mb * 10, 100, Target::AtLeast(8.0)),
    },
    Row { name: "stats", run: stats },
    Row { name: "memory", run: idle_memory },
    Row { name: "cold", run: |peers, scale| cold::cold_start(peers, scale.cold) },
];

/// Rows that need the writer in both peers and print more than one line.
pub(crate) const NEIGHBOUR: &str = "neighbour";

fn timed(what: &str, samples: Vec<Sample>, target: Target) {
    table::row(what, &samples.into_iter().map(Figure::from).collect::<Vec<_>>(), target);
}

fn rated(what: &str, peers: &[&Peer], target: Target, rate: impl Fn(&Peer) -> f64) {
    table::row(what, &peers.iter().map(|peer| Figure::plain(rate(peer))).collect::<Vec<_>>(), target);
}

fn run_rm(peers: &[&Peer], scale: Scale) {
    let what = "`docker run --rm busybox true`, ms p50 / min";
    timed(what, interleave(peers, scale.rounds, Peer::run_rm), Target::AtMost(0.5));
}

fn create_start(peers: &[&Peer], scale: Scale) {
    let what = "create + start by REST, ms p50 / min";
    timed(what, interleave(peers, scale.rounds, Peer::create_and_start), Target::Within(60.0, "ms"));
}

fn cycle(peers: &[&Peer], scale: Scale) {
    let what = "create + start + wait + rm by REST, ms p50 / min";
    timed(what, interleave(peers, scale.rounds, Peer::cycle), Target::AtMost(0.33));
}

fn exec_cli(peers: &[&Peer], scale: Scale) {
    let what = "`docker exec true`, ms p50 / min";
    timed(what, interleave_exec(peers, scale.rounds, Peer::exec_true), Target::AtMost(0.5));
}

fn exec_api(peers: &[&Peer], scale: Scale) {
    let what = "attached exec of `true` by REST, ms p50 / min";
    timed(what, interleave_exec(peers, scale.rounds, Peer::exec_attached), Target::AtMost(0.5));
}

fn rm_f(peers: &[&Peer], scale: Scale) {
    let what = "`rm -f` of a running container, ms p50 / min";
    timed(what, interleave(peers, scale.rounds, Peer::remove_running), Target::AtMost(0.1));
}

fn starts(peers: &[&Peer], scale: Scale, in_flight: usize) {
    let what = format!("{} starts, {in_flight} in flight, starts/s", scale.starts);
    // What was asked of the first slice, of 8 in flight.
    let target = if in_flight == 8 { Target::AtLeast(3.0) } else { Target::Open };
    rated(&what, peers, target, |peer| peer.start_rate(scale.starts, in_flight));
}

fn cycles(peers: &[&Peer], scale: Scale) {
    let what = format!("{} cycles (create, start, wait, rm), 8 in flight, cycles/s", scale.starts);
    rated(&what, peers, Target::AtLeast(5.0), |peer| peer.cycle_rate(scale.starts, 8));
}

fn inspect(peers: &[&Peer], _: Scale) {
    let what = "inspects/s over 16 connections (ours with authorization)";
    rated(what, peers, Target::AtLeast(1.0), load::inspect_rate);
}

fn list(peers: &[&Peer], scale: Scale) {
    let what = format!("list of {} containers, ms p50 / min", scale.listed);
    let samples = peers.iter().map(|peer| listed(peer, scale.listed)).collect();
    timed(&what, samples, Target::Both(0.1, 20.0, "ms"));
}

fn stats(peers: &[&Peer], scale: Scale) {
    let what = format!("CPU ms a second while {} containers are watched by `stats`", scale.watched);
    let costs = peers.iter().map(|peer| load::stats_cost(peer, scale.watched));
    let figures = costs.map(|(busy, idle)| Figure::noted(busy, format!("{busy:.0} (unwatched {idle:.0})")));
    table::row(&what, &figures.collect::<Vec<_>>(), Target::Open);
}

fn idle_memory(peers: &[&Peer], _: Scale) {
    let usages = peers.iter().map(|peer| memory::per_idle_container(peer, 20));
    let figures = usages.map(|(rss, pss)| Figure::noted(pss, format!("{rss:.2} / {pss:.2}")));
    let what = "MiB an idle container adds outside itself, RSS / PSS";
    table::row(what, &figures.collect::<Vec<_>>(), Target::Within(1.0, "MiB PSS"));
}

fn interleave_exec(peers: &[&Peer], rounds: usize, exec: impl Fn(&Peer, &str)) -> Vec<Sample> {
    let names: Vec<(&Peer, String)> = peers.iter().map(|peer| (*peer, peer.sleeper("bench-exec"))).collect();
    let name_of = |peer: &Peer| names.iter().find(|(p, _)| p.name == peer.name).map(|(_, name)| name.as_str());
    let samples = interleave(peers, rounds, |peer| {
        let began = Instant::now();
        exec(peer, name_of(peer).unwrap_or_default());
        began.elapsed().as_secs_f64() * 1_000.0
    });
    for (peer, name) in &names {
        peer.remove(name);
    }
    samples
}

/// Makes so many containers, lists them fifty times, removes them.
fn listed(peer: &Peer, count: usize) -> Sample {
    let began = Instant::now();
    let ids: Vec<String> = (0..count).map(|_| peer.create(&unique("bench-list"), &["true"])).collect();
    eprintln!("{}: {count} created in {:.1} s", peer.name, began.elapsed().as_secs_f32());
    let mut sample = Sample::default();
    let mut wire = peer.wire();
    for _ in 0..50 {
        let list = sample.time(|| peer.list_all(&mut wire));
        let list: serde_json::Value = serde_json::from_slice(&list).expect("JSON");
        assert!(list.as_array().is_some_and(|list| list.len() >= count), "{}: a short list", peer.name);
    }
    peer.remove_many(&ids);
    sample
}
