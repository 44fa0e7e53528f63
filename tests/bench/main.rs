//! `make bench`: Wharfage beside dockerd, in one run, interleaved. Prints the Markdown that
//! `docs/benchmarks.md` keeps. No assertion on wall time anywhere.
//!
//! `scripts/bench.sh [--quick] [row ...]`: a smaller run, and some rows only (`--rows` names them).

mod cold;
mod cold_image;
mod daemons;
mod distribution;
mod dockerd;
mod load;
mod logs;
mod memory;
mod peer;
mod registries;
mod rows;
mod sample;
mod spans;
mod table;
mod wire;

use peer::Peer;
use registries::Registry;
use rows::{NEIGHBOUR, ROWS, Scale};
use tests::Suite;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (flags, wanted): (Vec<&String>, Vec<&String>) = args.iter().partition(|arg| arg.starts_with("--"));
    let registry_rows = || distribution::ROWS.iter();
    let names = || ROWS.iter().map(|row| row.name).chain([NEIGHBOUR]).chain(registry_rows().map(|row| row.name));
    let has = |flag: &str| flags.iter().any(|f| *f == flag);
    let unknown = wanted.iter().find(|name| names().all(|known| known != name.as_str()));
    if has("--rows") || unknown.is_some() || flags.iter().any(|f| !["--quick", "--rows"].contains(&f.as_str())) {
        eprintln!("rows: {}", names().collect::<Vec<_>>().join(" "));
        std::process::exit(i32::from(!has("--rows")) * 2);
    }
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|w| *w == name);
    let scale = if has("--quick") { Scale::QUICK } else { Scale::FULL };

    let suite = Suite::here();
    let ours = Peer::wharfage(&suite);
    if names().filter(|name| registry_rows().all(|row| row.name != *name)).any(is_wanted) {
        let daemon = dockerd::Dockerd::start();
        let theirs = daemon.as_ref().map(dockerd::Dockerd::peer);
        let peers: Vec<&Peer> = std::iter::once(&ours).chain(theirs.as_ref()).collect();
        for peer in &peers {
            peer.warm_up();
        }
        table::head(theirs.as_ref().map_or("no peer", |peer| peer.name));
        for row in ROWS.iter().filter(|row| is_wanted(row.name)) {
            (row.run)(&peers, scale);
        }
        if is_wanted(NEIGHBOUR) {
            logs::neighbour(&peers);
        }
        println!();
    }
    if registry_rows().any(|row| is_wanted(row.name)) {
        let theirs = Registry::debian(&suite);
        let names = theirs.as_ref().map_or("no peer", |peer| peer.name);
        table::head(names);
        for row in registry_rows().filter(|row| is_wanted(row.name)) {
            // A token of its own for each: they are good for some minutes.
            let ours = Registry::wharfage(&suite);
            (row.run)(&std::iter::once(&ours).chain(theirs.as_ref()).collect::<Vec<_>>(), scale);
        }
    }
    if wanted.is_empty() {
        println!();
        spans::print(&suite, &ours);
    }
}
