//! `make bench`: Wharfage beside dockerd, in one run, interleaved. Prints medians, minima and ratios
//! as the Markdown that `docs/benchmarks.md` keeps. No assertion on wall time anywhere.

mod daemons;
mod dockerd;
mod load;
mod memory;
mod peer;
mod sample;
mod spans;
mod wire;

use std::time::Instant;

use load::Writer;
use peer::Peer;
use sample::{Sample, interleave};
use tests::Suite;

const ROUNDS: usize = 20;
const STARTS: usize = 200;
const IN_FLIGHT: [usize; 3] = [1, 8, 32];
const WATCHED: usize = 200;
const LISTED: usize = 1_000;

fn main() {
    let suite = Suite::here();
    let quick = std::env::args().any(|arg| arg == "--quick");
    let (rounds, starts, listed, watched) = if quick { (5, 40, 1_000, 20) } else { (ROUNDS, STARTS, LISTED, WATCHED) };
    let ours = Peer::wharfage(&suite);
    let daemon = dockerd::Dockerd::start();
    let theirs = daemon.as_ref().map(dockerd::Dockerd::peer);
    let peers: Vec<&Peer> = std::iter::once(&ours).chain(theirs.as_ref()).collect();
    for peer in &peers {
        peer.warm_up();
    }
    println!("| what | {} |", peers.iter().map(|p| p.name).collect::<Vec<_>>().join(" | "));
    println!("|---|{}", "---|".repeat(peers.len()));

    row("`docker run --rm busybox true`, ms p50 / min", &interleave(&peers, rounds, Peer::run_rm));
    row("create + start by REST, ms p50 / min", &interleave(&peers, rounds, Peer::create_and_start));
    row("create + start + wait + rm by REST, ms p50 / min", &interleave(&peers, rounds, Peer::cycle));
    row("`docker exec true`, ms p50 / min", &interleave_exec(&peers, rounds, Peer::exec_true));
    row("attached exec of `true` by REST, ms p50 / min", &interleave_exec(&peers, rounds, Peer::exec_attached));
    row("rm -f of a running container, ms p50 / min", &interleave(&peers, rounds, Peer::remove_running));
    for in_flight in IN_FLIGHT {
        rates(&format!("{starts} starts, {in_flight} in flight, starts/s"), &peers, |peer| {
            peer.start_rate(starts, in_flight)
        });
    }
    rates(&format!("{starts} cycles (create, start, wait, rm), 8 in flight, cycles/s"), &peers, |peer| {
        peer.cycle_rate(starts, 8)
    });
    rates("inspects/s over 16 connections (Wharfage's with authorization)", &peers, load::inspect_rate);
    rates("log of a writer of lines, MB/s", &peers, |peer| load::log_rate(peer, Writer::Lines));
    rates("log of a writer of 64 KiB batches, MB/s", &peers, |peer| load::log_rate(peer, Writer::Batches));
    let costs = peers.iter().map(|peer| load::stats_cost(peer, watched));
    let costs: Vec<String> = costs.map(|(busy, idle)| format!("{busy:.0} (idle {idle:.0})")).collect();
    println!("| CPU ms a second while {watched} containers are watched by `stats` | {} |", costs.join(" | "));
    let memory: Vec<String> = peers.iter().map(|peer| memory::per_idle_container(peer, 20)).collect();
    println!("| memory an idle container adds, RSS / PSS of processes outside it | {} |", memory.join(" | "));
    let lists: Vec<Sample> = peers.iter().map(|peer| list(peer, listed)).collect();
    row(&format!("list of {listed} containers, ms p50 / min"), &lists);
    println!();
    spans::print(&suite, &ours);
}

fn row(what: &str, samples: &[Sample]) {
    let mut cells: Vec<String> = samples.iter().map(Sample::to_string).collect();
    if let [ours, theirs] = samples {
        cells[0] += &format!(" (**{:.2}×**)", ours.median_ms() / theirs.median_ms());
    }
    println!("| {what} | {} |", cells.join(" | "));
}

/// A rate of each peer, and how many times dockerd's ours is.
fn rates(what: &str, peers: &[&Peer], work: impl Fn(&Peer) -> f64) {
    let rates: Vec<f64> = peers.iter().map(|peer| work(peer)).collect();
    let mut cells: Vec<String> = rates.iter().map(|rate| format!("{rate:.1}")).collect();
    if let [ours, theirs] = rates[..] {
        cells[0] += &format!(" (**{:.1}×**)", ours / theirs);
    }
    println!("| {what} | {} |", cells.join(" | "));
}

fn interleave_exec(peers: &[&Peer], rounds: usize, exec: impl Fn(&Peer, &str)) -> Vec<Sample> {
    let names: Vec<String> = peers.iter().map(|peer| peer.sleeper("bench-exec")).collect();
    let mut samples: Vec<Sample> = peers.iter().map(|_| Sample::default()).collect();
    for _ in 0..rounds {
        for ((peer, name), sample) in peers.iter().zip(&names).zip(&mut samples) {
            sample.time(|| exec(peer, name));
        }
    }
    for (peer, name) in peers.iter().zip(&names) {
        peer.remove(name);
    }
    samples
}

/// Makes so many containers, lists them fifty times, removes them.
fn list(peer: &Peer, count: usize) -> Sample {
    let began = Instant::now();
    let ids = peer.create_many(count);
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
