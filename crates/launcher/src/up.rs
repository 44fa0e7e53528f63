//! Bringing everything up, step by step. Each step finds out what is there already and does only
//! what is missing, so that a second run is quick and changes nothing.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};

use crate::{
    demo, environment, infrastructure,
    infrastructure::Postgres,
    layout::{Addresses, Layout},
    pki, seed, services,
    step::step,
    supervise::{self, ServiceSpec},
    tuning, underlay,
};

/// Starts everything that is not running yet, and shows that it works.
pub(crate) fn run(nodes: u8, quiet: bool) -> Result<()> {
    let began = Instant::now();
    let layout = Layout::here()?;
    step("checking this machine", "run as root on Linux", || check_machine(&layout, nodes))?;
    step("settings of this machine", "the file named must be writable", || tuning::apply(&layout))?;
    let addresses = step("network for the hosts", "free one of the address ranges named", || match nodes {
        1 => Ok(Addresses::loopback()),
        _ => underlay::ensure(&layout, nodes),
    })?;
    step("certificates", "see .wharfage/pki; remove it to start anew", || pki::ensure(&layout))?;
    let postgres = Postgres::find()?;
    step("PostgreSQL, Redis, upstream registry", "see .wharfage/log", || start_infrastructure(&layout, &postgres))?;
    let runtime = tokio::runtime::Runtime::new()?;
    step("schema", "see .wharfage/log/postgres.log", || {
        postgres.ensure_database(&layout)?;
        runtime.block_on(demo::prepare_database(&layout))
    })?;
    step("images in the upstream registry", "see .wharfage/log/registry.log", || {
        runtime.block_on(seed::seed_upstream(&layout.upstream(), &layout.state.join("seed")))
    })?;
    step("scheduler, image-svc, api-gateway", "see .wharfage/log", || {
        start(&layout, &services::control_plane(&layout, &addresses)?)?;
        services::wait_ready(&layout, &addresses)
    })?;
    let demo = step("demo tenants, projects, tokens", "see .wharfage/log/api-gateway.log", || {
        runtime.block_on(demo::ensure(&layout))
    })?;
    step(&format!("{nodes} host(s)"), "see .wharfage/log/node-agent-*.log", || {
        let specs = runtime.block_on(services::hosts(&layout, &addresses, &demo))?;
        start(&layout, &specs)?;
        runtime.block_on(demo::wait_for_hosts(&layout, &demo, nodes))
    })?;
    environment::write(&layout, &addresses, &demo)?;
    if !quiet {
        show(&layout)?;
        eprintln!("\nup in {:.1} s", began.elapsed().as_secs_f32());
    }
    Ok(())
}

fn check_machine(layout: &Layout, nodes: u8) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("this needs root");
    }
    for dir in [layout.run(), layout.log(), supervise::services_dir(layout), layout.volatile.clone()] {
        fs::create_dir_all(&dir)?;
    }
    fs::set_permissions(&layout.volatile, fs::Permissions::from_mode(0o711))?;
    let file = layout.run().join("nodes");
    match fs::read_to_string(&file) {
        Ok(before) if before.trim() != nodes.to_string() && supervise::supervisor_pid(layout).is_some() => {
            bail!("{} host(s) are running; `make down` first", before.trim());
        }
        _ => fs::write(file, nodes.to_string())?,
    }
    if supervise::supervisor_pid(layout).is_none() {
        // Descriptions of an earlier life may name another number of hosts.
        for entry in fs::read_dir(supervise::services_dir(layout))? {
            fs::remove_file(entry?.path())?;
        }
    }
    Ok(())
}

fn start_infrastructure(layout: &Layout, postgres: &Postgres) -> Result<()> {
    postgres.ensure_cluster(layout)?;
    let specs = [postgres.service(layout), infrastructure::redis(layout)?, infrastructure::registry(layout)?];
    start(layout, &specs)?;
    wait_until("PostgreSQL takes connections", || postgres.is_ready(layout))?;
    wait_until("the upstream registry answers", || std::net::TcpStream::connect(layout.upstream()).is_ok())
}

/// Hands descriptions to the supervisor, starting it if there is none. A description or binary that
/// is newer than the running process restarts that process.
fn start(layout: &Layout, specs: &[ServiceSpec]) -> Result<()> {
    for spec in specs {
        let file = supervise::services_dir(layout).join(format!("{}.json", spec.name));
        let text = serde_json::to_vec_pretty(spec)?;
        if fs::read(&file).ok().as_deref() != Some(&text) {
            fs::write(&file, text)?;
        }
        let pid_file = layout.run().join(format!("{}.pid", spec.short_name()));
        let newer = |path: &std::path::Path| {
            let (Ok(program), Ok(started)) = (fs::metadata(path), fs::metadata(&pid_file)) else { return false };
            program.modified().ok() > started.modified().ok()
        };
        if newer(&spec.program)
            && let Some(pid) = supervise::read_pid(&pid_file)
        {
            kill(pid, Signal::try_from(spec.stop_signal)?).ok();
        }
    }
    match supervise::supervisor_pid(layout) {
        Some(pid) => kill(pid, Signal::SIGHUP).context("the supervisor is gone")?,
        None => spawn_supervisor(layout)?,
    }
    for spec in specs {
        let pid_file = layout.run().join(format!("{}.pid", spec.short_name()));
        wait_until(&format!("{} starts", spec.short_name()), || pid_file.exists())?;
    }
    Ok(())
}

#[expect(unsafe_code, reason = "the supervisor leaves this session before it execs")]
fn spawn_supervisor(layout: &Layout) -> Result<()> {
    let log = fs::OpenOptions::new().create(true).append(true).open(layout.log().join("supervisor.log"))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("supervise").current_dir(&layout.root).stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log);
    // SAFETY: setsid is async-signal-safe.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(Into::into));
    }
    command.spawn().context("the supervisor does not start")?;
    wait_until("the supervisor starts", || supervise::supervisor_pid(layout).is_some())
}

/// Waits for something another process does, at most 30 seconds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        if Instant::now() > deadline {
            bail!("waited 30 s in vain until {what}");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Runs hello-world by the real docker CLI and prints three commands to try.
fn show(layout: &Layout) -> Result<()> {
    eprintln!("\n$ docker run --rm hello-world");
    let env = environment::docker(layout);
    let status = Command::new("docker").args(["run", "--rm", "hello-world"]).envs(env).status();
    let status = status.context("the docker CLI is not installed")?;
    if !status.success() {
        bail!("docker run hello-world failed ({status}). What to do: see .wharfage/log/node-agent-1.log");
    }
    eprintln!("Try:");
    eprintln!("  source .wharfage/env");
    eprintln!("  docker run -it --rm busybox");
    eprintln!("  docker run -d --name web -p 8080:80 httpd && curl http://127.0.0.1:8080/");
    eprintln!("  docker ps");
    Ok(())
}
