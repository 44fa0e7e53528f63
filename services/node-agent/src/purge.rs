//! `node-agent purge`: ends every container and shim of this agent's directories and takes away what
//! they held of the kernel: mounts, cgroups, the run directory. Images, logs and writable layers in
//! the data directory stay, with `--data` they go too. Safe twice, and without a running agent.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use model::ContainerId;
use runtime::cgroup;

use crate::{config::Config, host::Places, rootfs};

/// The command.
pub fn main(arguments: impl Iterator<Item = String>) -> ExitCode {
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("node-agent purge: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let (mut file, mut data) = (std::env::var_os("WHARFAGE_CONFIG_FILE").map(PathBuf::from), false);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--config" => file = arguments.next().map(PathBuf::from),
            "--data" => data = true,
            other => anyhow::bail!("unknown argument `{other}`; usage: node-agent purge --config <file> [--data]"),
        }
    }
    let (config, _) = chassis::config::load::<Config>(file.as_deref())?;
    config.check()?;
    purge(&config)?;
    if data {
        remove_all(&config.data_dir)?;
    }
    Ok(())
}

/// Takes away everything but the data directory.
///
/// # Errors
/// Something would not go; the rest was tried.
pub fn purge(config: &Config) -> anyhow::Result<()> {
    let places = Places::new(&config.data_dir, &config.run_dir);
    let mut failed = Vec::new();
    for id in containers(&places) {
        if let Err(error) = end(config, &places, &id) {
            failed.push(format!("{id}: {error}"));
        }
    }
    for dir in [&config.data_dir, &config.run_dir] {
        for mounted in mounts_below(dir)? {
            if let Err(error) = rootfs::unmount(&mounted) {
                failed.push(format!("{}: {error}", mounted.display()));
            }
        }
    }
    remove_parent_cgroup(&config.cgroup_parent);
    remove_all(&config.run_dir)?;
    anyhow::ensure!(failed.is_empty(), "not everything could be removed: {}", failed.join("; "));
    Ok(())
}

/// Whatever has a directory in either place.
fn containers(places: &Places) -> BTreeSet<ContainerId> {
    let names = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.file_name());
    let both = names(places.containers()).chain(names(places.run_containers()));
    both.filter_map(|name| name.to_str()?.parse().ok()).collect()
}

fn end(config: &Config, places: &Places, id: &ContainerId) -> io::Result<()> {
    cgroup::remove(&format!("{}/{id}", config.cgroup_parent), Duration::from_secs(10))?;
    let run_dir = places.run_dir(id);
    // With its container gone a shim writes its record; then it may go.
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Ok(mut shim) = run_dir.connect() {
        let bye = runtime::protocol::encode_line(&runtime::protocol::Request::Bye)?;
        shim.set_read_timeout(Some(Duration::from_millis(500)))?;
        let _ = io::Write::write_all(&mut shim, &bye);
        let _ = io::Read::read(&mut shim, &mut [0; 256]);
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "its shim does not end"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    cgroup::remove(&format!("{}/{id}", config.cgroup_parent), Duration::from_secs(5))?;
    rootfs::unmount(&places.rootfs(id))
}

/// Mount points below a directory, the deepest first.
fn mounts_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let prefix = format!("{}/", dir.display());
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let points = text.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| point.replace("\\040", " "));
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(&prefix)).map(PathBuf::from).collect();
    below.reverse();
    Ok(below)
}

/// Empty directories of the hierarchy; others' are not empty and stay.
fn remove_parent_cgroup(parent: &str) {
    let inner = parent.trim_start_matches('/');
    let root = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_dir(root).into_iter().flatten().flatten().map(|e| e.path());
    for dir in controllers.chain([root.to_owned()]) {
        let _ = fs::remove_dir(dir.join(inner));
    }
}

fn remove_all(dir: &Path) -> io::Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    crate::discard::empty(dir)?;
    fs::remove_dir(dir)
}
