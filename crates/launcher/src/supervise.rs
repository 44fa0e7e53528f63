//! The supervisor: one thread a process, restart on death with a back-off, a pid file each.
//!
//! Service descriptions are files under `.wharfage/run/services`; SIGHUP reads what is new there,
//! SIGTERM ends everything, last started first. Every child gets its own stop signal when the
//! supervisor dies, whatever kills it: nothing is left running unsupervised (containers do: they
//! belong to their shims).

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    os::{fd::AsFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    sched::{CloneFlags, setns},
    sys::{
        prctl,
        signal::{SigSet, Signal, kill},
    },
    unistd::{Gid, Pid, Uid},
};
use serde::{Deserialize, Serialize};

use crate::layout::Layout;

/// One process to keep alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServiceSpec {
    /// Name of its pid file and log; the number orders start and stop: `30-scheduler`.
    pub name: String,
    /// Absolute path.
    pub program: PathBuf,
    /// Arguments.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// Network namespace to run in.
    pub netns: Option<PathBuf>,
    /// uid and gid to run as.
    pub user: Option<(u32, u32)>,
    /// Stop signal number (PostgreSQL's fast shutdown is SIGINT).
    pub stop_signal: i32,
}

struct Supervised {
    spec: ServiceSpec,
    stopping: Arc<AtomicBool>,
    pid: Arc<AtomicI32>,
    thread: JoinHandle<()>,
}

/// Directory of the descriptions.
pub(crate) fn services_dir(layout: &Layout) -> PathBuf {
    layout.run().join("services")
}

/// Runs until SIGTERM.
pub(crate) fn run() -> Result<()> {
    let layout = Layout::here()?;
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    fs::write(layout.run().join("supervisor.pid"), std::process::id().to_string())?;
    let mut running: Vec<Supervised> = Vec::new();
    loop {
        start_new(&layout, &mut running)?;
        if signals.wait()? != Signal::SIGHUP {
            break;
        }
    }
    for service in running.into_iter().rev() {
        stop(service);
    }
    fs::remove_file(layout.run().join("supervisor.pid")).ok();
    Ok(())
}

fn start_new(layout: &Layout, running: &mut Vec<Supervised>) -> Result<()> {
    let mut files: Vec<_> = fs::read_dir(services_dir(layout))?.filter_map(|e| Some(e.ok()?.path())).collect();
    files.sort();
    for file in files {
        let spec: ServiceSpec = serde_json::from_slice(&fs::read(&file)?)
            .with_context(|| format!("{} is not a service description", file.display()))?;
        if running.iter().any(|s| s.spec.name == spec.name) {
            continue;
        }
        let stopping = Arc::new(AtomicBool::new(false));
        let pid = Arc::new(AtomicI32::new(0));
        let thread = {
            let (spec, stopping, pid, layout) = (spec.clone(), stopping.clone(), pid.clone(), layout.clone());
            thread::Builder::new().name(spec.name.clone()).spawn(move || keep_alive(&layout, &spec, &stopping, &pid))?
        };
        running.push(Supervised { spec, stopping, pid, thread });
    }
    Ok(())
}

/// The thread that spawns must live as long as the child: the parent-death signal is tied to it.
fn keep_alive(layout: &Layout, spec: &ServiceSpec, stopping: &AtomicBool, pid: &AtomicI32) {
    let mut backoff = Duration::from_millis(50);
    let pid_file = layout.run().join(format!("{}.pid", spec.short_name()));
    while !stopping.load(Ordering::SeqCst) {
        let began = Instant::now();
        match spawn(layout, spec) {
            Ok(mut child) => {
                pid.store(child.id().cast_signed(), Ordering::SeqCst);
                fs::write(&pid_file, child.id().to_string()).ok();
                let status = child.wait();
                pid.store(0, Ordering::SeqCst);
                if !stopping.load(Ordering::SeqCst) {
                    eprintln!("supervisor: {} ended: {status:?}", spec.name);
                }
            }
            Err(error) => eprintln!("supervisor: {} does not start: {error:#}", spec.name),
        }
        if began.elapsed() > Duration::from_secs(5) {
            backoff = Duration::from_millis(50);
        }
        if !stopping.load(Ordering::SeqCst) {
            thread::park_timeout(backoff);
        }
        backoff = (backoff * 2).min(Duration::from_secs(5));
    }
    fs::remove_file(pid_file).ok();
}

#[expect(unsafe_code, reason = "pre_exec runs between fork and exec")]
fn spawn(layout: &Layout, spec: &ServiceSpec) -> Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(log_path(layout, spec))?;
    let netns = spec.netns.as_ref().map(File::open).transpose().context("the host's network namespace is gone")?;
    let stop_signal = Signal::try_from(spec.stop_signal)?;
    let user = spec.user;
    let mut command = Command::new(&spec.program);
    command.args(&spec.args).env_clear().envs(&spec.env).current_dir("/").stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log).process_group(0);
    // SAFETY: only async-signal-safe system calls on values made before the fork.
    unsafe {
        command.pre_exec(move || {
            SigSet::empty().thread_set_mask()?;
            if let Some(netns) = &netns {
                setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)?;
            }
            if let Some((uid, gid)) = user {
                nix::unistd::setgroups(&[Gid::from_raw(gid)])?;
                nix::unistd::setgid(Gid::from_raw(gid))?;
                nix::unistd::setuid(Uid::from_raw(uid))?;
            }
            prctl::set_pdeathsig(stop_signal)?;
            Ok(())
        });
    }
    command.spawn().with_context(|| format!("{}", spec.program.display()))
}

fn stop(service: Supervised) {
    service.stopping.store(true, Ordering::SeqCst);
    service.thread.thread().unpark();
    let deadline = Instant::now() + Duration::from_secs(12);
    let signal = Signal::try_from(service.spec.stop_signal).unwrap_or(Signal::SIGTERM);
    let send = |signal: Signal| match service.pid.load(Ordering::SeqCst) {
        0 => {}
        pid => {
            kill(Pid::from_raw(pid), signal).ok();
        }
    };
    send(signal);
    while !service.thread.is_finished() {
        if Instant::now() > deadline {
            send(Signal::SIGKILL);
        }
        thread::sleep(Duration::from_millis(10));
    }
    service.thread.join().ok();
}

fn log_path(layout: &Layout, spec: &ServiceSpec) -> PathBuf {
    layout.log().join(format!("{}.log", spec.short_name()))
}

impl ServiceSpec {
    /// The name without its ordering number: `scheduler`.
    pub(crate) fn short_name(&self) -> &str {
        self.name.split_once('-').map_or(&self.name, |(_, rest)| rest)
    }
}

/// The supervisor's pid, if it is alive and is one.
pub(crate) fn supervisor_pid(layout: &Layout) -> Option<Pid> {
    let pid = read_pid(&layout.run().join("supervisor.pid"))?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    command.split(|b| *b == 0).any(|arg| arg == b"supervise").then_some(pid)
}

/// The pid a file holds.
pub(crate) fn read_pid(file: &Path) -> Option<Pid> {
    fs::read_to_string(file).ok()?.trim().parse().ok().map(Pid::from_raw)
}
