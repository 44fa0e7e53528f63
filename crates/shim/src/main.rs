//! `wharfage-shim`: the one small process beside each container. It owns the container's streams,
//! its log, the wait for its end, and the record of it; the agent may come and go. One thread, one
//! poll loop, no allocation while idle.
//!
//! * `wharfage-shim run --dir <run dir>` starts the shim (see `runtime::protocol`).
//! * `wharfage-shim init -- <argv>` is PID 1 of a container run with `--init`.

mod client;
mod clock;
mod detach;
mod escape;
mod exit;
mod init;
mod launch;
mod log;
mod memory;
mod native;
mod oom;
mod poll;
mod record;
mod requests;
mod shim;
mod stdio;
mod task;

use std::{env, ffi::OsString, path::PathBuf, process::ExitCode};

const USAGE: &str = "usage: wharfage-shim run --dir <run directory> | init -- <program> [argument...]";

fn main() -> ExitCode {
    // Executed through a descriptor, it would be called by its number.
    let _ = nix::sys::prctl::set_name(c"wharfage-shim");
    let mut args = env::args_os().skip(1);
    let verb = args.next().unwrap_or_default();
    let rest: Vec<OsString> = args.collect();
    match (verb.to_str(), rest.as_slice()) {
        (Some("run"), [flag, dir]) if flag == "--dir" => run(dir.into()),
        (Some("init"), [dashes, argv @ ..]) if dashes == "--" && !argv.is_empty() => init::run(argv),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Prepares, then leaves: the parent returns once the socket listens, the child lives on.
fn run(dir: PathBuf) -> ExitCode {
    match detach::prepare(dir) {
        Ok(prepared) => match detach::fork_away() {
            Ok(detach::Side::Parent) => ExitCode::SUCCESS,
            Ok(detach::Side::Child) => shim::live(prepared),
            Err(e) => failed(&e),
        },
        Err(e) => failed(&e),
    }
}

fn failed(e: &std::io::Error) -> ExitCode {
    eprintln!("wharfage-shim: {e}");
    ExitCode::FAILURE
}
