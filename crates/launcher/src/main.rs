//! `wharfage`: brings a whole suite up on one machine, and takes it down again without a trace.
//! `make up` and `make down` call it; it is what a package manager and an operator would do by hand
//! on real hosts (`compose/`), with the same configuration files.

mod demo;
mod environment;
mod infrastructure;
mod layout;
mod pki;
mod seed;
mod services;
mod step;
mod supervise;
mod teardown;
mod tuning;
mod underlay;
mod up;

use clap::{Parser, Subcommand};

/// Runs the Wharfage suite on this machine.
#[derive(Debug, Parser)]
#[command(name = "wharfage", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts everything that is not running yet.
    Up {
        /// Hosts to run, each a network namespace of its own when more than one.
        #[arg(long, env = "NODES", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
        nodes: u8,
        /// Do not run the hello-world container at the end.
        #[arg(long)]
        quiet: bool,
    },
    /// Stops everything and removes every process, mount, namespace, link, table and cgroup of it. Data stays.
    Down,
    /// Keeps the processes alive (started by `up`; not for people).
    #[command(hide = true)]
    Supervise,
}

fn main() -> std::process::ExitCode {
    // reqwest is built without a TLS provider of its own.
    rustls::crypto::ring::default_provider().install_default().ok();
    let outcome = match Cli::parse().command {
        Command::Up { nodes, quiet } => up::run(nodes, quiet),
        Command::Down => teardown::run(),
        Command::Supervise => supervise::run(),
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nwharfage: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
