//! `make bench`: Wharfage beside dockerd, in one run, interleaved. Prints medians, minima and ratios
//! as the Markdown that `docs/benchmarks.md` keeps. No assertion on wall time anywhere.

mod dockerd;
mod memory;
mod peer;
mod sample;
mod spans;

use std::time::Instant;

use peer::Peer;
use sample::{Sample, interleave};
use tests::Suite;

const ROUNDS: usize = 20;
const STARTS: usize = 200;
const IN_FLIGHT: usize = 8;
const LISTED: usize = 1_000;

fn main() {
    let suite = Suite::here();
    let quick = std::env::args().any(|arg| arg == "--quick");
    let (rounds, starts, listed) = if quick { (5, 40, 100) } else { (ROUNDS, STARTS, LISTED) };
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
    row("`docker exec true`, ms p50 / min", &interleave_exec(&peers, rounds));
    row("rm -f of a running container, ms p50 / min", &interleave(&peers, rounds, Peer::remove_running));
    let rates: Vec<f64> = peers.iter().map(|peer| peer.start_rate(starts, IN_FLIGHT)).collect();
    let shown: Vec<String> = rates.iter().map(|rate| format!("{rate:.1}")).collect();
    println!("| {starts} starts, {IN_FLIGHT} in flight, starts/s | {} |", shown.join(" | "));
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

fn interleave_exec(peers: &[&Peer], rounds: usize) -> Vec<Sample> {
    let names: Vec<String> = peers.iter().map(|peer| peer.sleeper("bench-exec")).collect();
    let mut samples: Vec<Sample> = peers.iter().map(|_| Sample::default()).collect();
    for _ in 0..rounds {
        for ((peer, name), sample) in peers.iter().zip(&names).zip(&mut samples) {
            sample.time(|| peer.exec_true(name));
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
    for _ in 0..50 {
        sample.time(|| peer.list_all(count));
    }
    peer.remove_many(&ids);
    sample
}
