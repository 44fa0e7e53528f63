//! Taking everything down: processes first, then what hosts made in the kernel, then namespaces,
//! links and sockets. Data under `.wharfage` stays, so that the next `up` finds it.

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};

use crate::{layout::Layout, services, step::step, supervise, tuning, underlay};

/// Safe to run twice, and after any crash.
pub(crate) fn run() -> Result<()> {
    let layout = Layout::here()?;
    step("stopping the services", "see .wharfage/run/*.pid", || stop_supervisor(&layout))?;
    for node in 1..=9 {
        if layout.host_volatile(node).exists() || layout.host_netns(node).exists() {
            step(&format!("clearing host {node}"), "see the message; run it again", || {
                services::purge_commands(&layout, node)?.iter_mut().try_for_each(purge)
            })?;
        }
    }
    step("removing namespaces, links and sockets", "see the message; run it again", || {
        underlay::remove(&layout)?;
        remove_cgroups(&layout);
        tuning::restore(&layout);
        if layout.volatile.exists() {
            fs::remove_dir_all(&layout.volatile).context("something is still mounted there")?;
        }
        fs::remove_dir_all(supervise::services_dir(&layout)).ok();
        remove_stale_pid_files(&layout.run());
        Ok(())
    })
}

fn stop_supervisor(layout: &Layout) -> Result<()> {
    let Some(pid) = supervise::supervisor_pid(layout) else { return Ok(()) };
    kill(pid, Signal::SIGTERM)?;
    let deadline = Instant::now() + Duration::from_secs(90);
    while supervise::supervisor_pid(layout).is_some() {
        if Instant::now() > deadline {
            kill(pid, Signal::SIGKILL)?;
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn purge(command: &mut Command) -> Result<()> {
    crate::infrastructure::run(command).map(drop)
}

/// The parent of all hosts' cgroups, in every hierarchy; each host's own went with its purge.
fn remove_cgroups(layout: &Layout) {
    let root = Path::new("/sys/fs/cgroup");
    fs::remove_dir(root.join(&layout.tag)).ok();
    for hierarchy in fs::read_dir(root).into_iter().flatten().flatten() {
        fs::remove_dir(hierarchy.path().join(&layout.tag)).ok();
    }
}

fn remove_stale_pid_files(run: &Path) {
    for entry in fs::read_dir(run).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|ext| ext == "pid") {
            fs::remove_file(entry.path()).ok();
        }
    }
}
