//! `netd` runs the service; `netd purge --config FILE` removes everything it ever made on this host.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

#[derive(Parser)]
#[command(name = "netd purge", about = "Removes every link, network namespace and nft table that netd made here.")]
struct Purge {
    /// The configuration file of the netd to clean up after.
    #[arg(long, env = "WHARFAGE_CONFIG_FILE")]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if arguments.nth(1).is_some_and(|first| first == "purge") {
        return purge(std::iter::once("netd purge".into()).chain(arguments));
    }
    chassis::main("netd", netd::build)
}

fn purge(arguments: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    let purge = Purge::parse_from(arguments);
    let done =
        chassis::config::load::<netd::Config>(purge.config.as_deref()).and_then(|(config, _)| netd::purge(&config));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netd purge: {error:#}");
            ExitCode::FAILURE
        }
    }
}
