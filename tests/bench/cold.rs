//! A cold start: an image that no peer has is pulled, unpacked and run. Both pull from the registry that
//! stands for the suite's upstream. Pushing before and removing after are not timed.

use std::{cell::RefCell, fs, path::Path, process::Command};

use serde_json::Value;
use tests::{Suite, unique};

use crate::{
    cold_image::Content,
    peer::Peer,
    sample::{Sample, interleave},
    table::{self, Figure, Target},
};

const REPOSITORY: &str = "library/bench-cold";

/// What one peer took.
#[derive(Clone, Default)]
struct Parts {
    rounds: usize,
    pull: Sample,
    run: Sample,
    /// Ours only: from asking for a layer to its name on the host, the slowest of a round.
    slowest_layer: Sample,
}

/// Measures all peers and prints what they took, and what of it was what.
pub(crate) fn cold_start(peers: &[&Peer], rounds: usize) {
    let suite = Suite::here();
    let registry = suite.var("WHARFAGE_UPSTREAM");
    let content = Content::of_this_machine();
    let scratch = std::env::temp_dir().join(format!("wharfage-bench-cold-{}", std::process::id()));
    let tags: Vec<String> = (0..rounds).map(|_| push(&content, &scratch, registry)).collect();
    fs::remove_dir_all(&scratch).ok();

    let parts: Vec<RefCell<Parts>> = peers.iter().map(|_| RefCell::default()).collect();
    let whole = interleave(peers, rounds, |peer| {
        let at = peers.iter().position(|p| p.name == peer.name).unwrap_or_default();
        let mut parts = parts[at].borrow_mut();
        let name = reference(peer, registry, &tags[parts.rounds]);
        parts.rounds += 1;
        let known = layers_unpacked(&suite).len();
        // What was written before is not to be paid for by this one.
        nix::unistd::sync();
        let (pull, run) = (peer.pull(&name), peer.run_from(&name));
        parts.pull.push_ms(pull);
        parts.run.push_ms(run);
        if let Some(slowest) = layers_unpacked(&suite).into_iter().skip(known).reduce(f64::max) {
            parts.slowest_layer.push_ms(slowest);
        }
        pull + run
    });
    let what = format!("cold start (pull + unpack + run) of {content}, ms p50 / min");
    table::row(&what, &whole.into_iter().map(Figure::from).collect::<Vec<_>>(), Target::AtMost(0.66));
    let part = |what: &str, of: fn(&Parts) -> &Sample, peers: usize| {
        let figures = parts.iter().take(peers).map(|parts| Figure::from(of(&parts.borrow()).clone()));
        table::row(what, &figures.collect::<Vec<_>>(), Target::Open);
    };
    part("of it `docker pull` (dockerd unpacks in it), ms p50 / min", |parts| &parts.pull, 2);
    part("of it `docker run` (our host fetches and unpacks in it), ms p50 / min", |parts| &parts.run, 2);
    part("of that the slowest layer, asked for until unpacked, ms p50 / min", |parts| &parts.slowest_layer, 1);
    for peer in peers {
        for tag in &tags {
            peer.remove_image(&reference(peer, registry, tag));
        }
    }
}

/// The suite's upstream stands for Docker Hub; dockerd knows it by its address.
fn reference(peer: &Peer, registry: &str, tag: &str) -> String {
    if peer.is_ours() { format!("bench-cold:{tag}") } else { format!("{registry}/{REPOSITORY}:{tag}") }
}

/// An image nobody has had before, at the registry; its tag.
fn push(content: &Content, scratch: &Path, registry: &str) -> String {
    let tag = unique("cold");
    let dir = scratch.join(&tag);
    content.write_image(&tag, &dir).expect("the image is written");
    let copied = Command::new("skopeo")
        .args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"])
        .arg(format!("oci:{}", dir.display()))
        .arg(format!("docker://{registry}/{REPOSITORY}:{tag}"))
        .status();
    assert!(copied.is_ok_and(|status| status.success()), "skopeo could not push");
    fs::remove_dir_all(&dir).ok();
    tag
}

/// What the hosts logged about each layer they unpacked, in milliseconds.
fn layers_unpacked(suite: &Suite) -> Vec<f64> {
    let mut found = Vec::new();
    for host in 1..=suite.hosts().len() {
        let log = suite.root.join(format!(".wharfage/log/node-agent-{host}.log"));
        let text = fs::read_to_string(log).unwrap_or_default();
        let lines = text.lines().filter(|line| line.contains("layer unpacked"));
        let lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        found.extend(lines.filter_map(|line| line["elapsed_ms"].as_f64()));
    }
    found
}
