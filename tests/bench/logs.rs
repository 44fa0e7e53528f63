//! Logs: how fast a container can write, whether all of it is there, how long its longest write took,
//! and what somebody else on the host notices.

use std::{path::PathBuf, process::Command, sync::OnceLock};

use serde_json::json;
use tests::unique;

use crate::{
    peer::Peer,
    table::{self, Figure, Target},
};

const SOURCE: &str = include_str!("writer/main.rs");
const LINE_BYTES: u64 = 100;
/// What a writer that is fast for a container writes.
const NOISY_MB_PER_S: u64 = 100;
/// How long a neighbour is watched.
const WATCHED_MS: u64 = 3_000;
/// Longest a write may take.
const STALL_MS: f64 = 50.0;

/// The writer, compiled once.
fn writer() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("wharfage-writer-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a temporary directory");
        let (source, program) = (dir.join("writer.rs"), dir.join("writer"));
        std::fs::write(&source, SOURCE).expect("a temporary file");
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-C", "strip=symbols", "-o"]);
        assert!(rustc.arg(&program).arg(&source).status().is_ok_and(|s| s.success()), "the writer compiles");
        program
    })
}

/// A container that will run the writer.
fn prepared(peer: &Peer, args: &[String]) -> String {
    let mut command = vec!["/writer".to_owned()];
    command.extend_from_slice(args);
    let body = json!({"Image": "busybox", "Cmd": command,
        "HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"max-size": "900m"}}}});
    let id = peer.create_from(&unique("bench-writer"), &body);
    peer.copy_in(writer(), &format!("{id}:/writer"));
    id
}

/// What a run of the writer came to.
struct Written {
    mb_per_s: f64,
    stall_ms: f64,
}

fn write(peer: &Peer, mb: u64, per_write: u64) -> Written {
    let lines = mb * 1_000_000 / LINE_BYTES;
    let args = ["lines".to_owned(), lines.to_string(), per_write.to_string(), "0".to_owned()];
    let id = prepared(peer, &args);
    peer.start(&id);
    peer.wait(&id);
    let log = peer.stdout(&id);
    peer.remove(&id);
    let text = String::from_utf8(log).expect("the writer writes text");
    let (mut next, mut told) = (0u64, None);
    for line in text.lines() {
        if let Some(summary) = line.strip_prefix("# ") {
            told = summary.split_once(' ').and_then(|(a, b)| Some((a.parse::<f64>().ok()?, b.parse::<f64>().ok()?)));
        } else {
            let number = line.get(..10).and_then(|n| n.parse::<u64>().ok());
            assert_eq!(number, Some(next), "{}: a line is lost, torn or doubled: {line:.40}", peer.name);
            assert_eq!(line.len() as u64, LINE_BYTES - 1, "{}: a torn line", peer.name);
            next += 1;
        }
    }
    assert_eq!(next, lines, "{}: lines in the log", peer.name);
    let (longest_us, all_us) = told.expect("the writer's last line");
    Written { mb_per_s: (lines * LINE_BYTES) as f64 / all_us, stall_ms: longest_us / 1_000.0 }
}

/// Megabytes a second, with every line found again, and the longest write.
pub(crate) fn throughput(peers: &[&Peer], mb: u64, per_write: u64, target: Target) {
    // Best of three: what is asked is what the log can take, not what else the machine did.
    let best = |peer: &Peer| {
        let runs: Vec<Written> = (0..3).map(|_| write(peer, mb, per_write)).collect();
        let stall = runs.iter().map(|w| w.stall_ms).fold(0.0, f64::max);
        Written { mb_per_s: runs.iter().map(|w| w.mb_per_s).fold(0.0, f64::max), stall_ms: stall }
    };
    let all: Vec<Written> = peers.iter().map(|peer| best(peer)).collect();
    let what = if per_write == 1 { "a line a write".to_owned() } else { format!("{per_write} lines a write") };
    let rates = all.iter().map(|w| Figure::plain(w.mb_per_s)).collect::<Vec<_>>();
    table::row(&format!("log of {mb} MB, {what}, nothing lost, MB/s"), &rates, target);
    let stalls = all.iter().map(|w| Figure::plain(w.stall_ms)).collect::<Vec<_>>();
    table::row(&format!("longest write of that writer, {what}, ms"), &stalls, Target::Within(STALL_MS, "ms"));
}

/// How fast somebody else's arithmetic is beside a noisy writer, of what it is alone.
pub(crate) fn neighbour(peers: &[&Peer]) {
    let rounds = |peer: &Peer| -> f64 {
        let id = prepared(peer, &["work".to_owned(), WATCHED_MS.to_string()]);
        peer.start(&id);
        peer.wait(&id);
        let told = String::from_utf8(peer.stdout(&id)).expect("a number");
        peer.remove(&id);
        told.trim().parse().expect("a number")
    };
    let figures: Vec<Figure> = peers
        .iter()
        .map(|peer| {
            let alone = rounds(peer);
            // More than can be written while the neighbour is watched.
            let lines = NOISY_MB_PER_S * 1_000_000 / LINE_BYTES * 6;
            let args = ["lines".to_owned(), lines.to_string(), "100".to_owned(), NOISY_MB_PER_S.to_string()];
            let noisy = prepared(peer, &args);
            peer.start(&noisy);
            let beside = rounds(peer);
            peer.remove(&noisy);
            let percent = 100.0 * beside / alone;
            Figure::noted(percent, format!("{percent:.0} %"))
        })
        .collect();
    let what = format!("speed of a neighbour beside a writer of {NOISY_MB_PER_S} MB/s, of what it is alone");
    table::row(&what, &figures, Target::Open);
}
