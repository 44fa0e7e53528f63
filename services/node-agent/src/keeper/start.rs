//! A start, the hot path. What it waits for, in order:
//!
//! ```text
//!   plan line ─▶ ┌ netd: one delta, one answer (kernel work about 1 ms)
//!                ├ overlay mount, if the preparation's is gone (0.2 ms)      in parallel
//!                └ the fact that the run begins, on disk (two syncs, 0.5 ms)
//!             ─▶ bundle (config.json, no sync)
//!             ─▶ shim: fork, exec, socket bound (one process)
//!             ─▶ attach streams that waited, subscription: a write and a read each, local
//!             ─▶ Start: the shim's own time (about 5 ms), or the runtime's (runc: about 30 ms)
//!             ─▶ report
//! ```
//! Four local round trips (netd, attach, subscribe, start) and one to the scheduler. No timer, no poll.

use std::{path::PathBuf, time::Instant};

use contract::host::PlannedContainer;
use model::{ContainerId, Exit, IpcMode, Progress};
use runtime::{
    BindMount, Netns, SandboxSpec,
    protocol::{Event as ShimEvent, ExitRecord, LogTarget, Reply, Request, RuntimeConfig, ShimConfig},
};
use time::OffsetDateTime;

use super::{
    Message, adopt,
    effects::{Task, blocking},
    machine::Event,
};
use crate::{
    files,
    host::{self, Host},
    neighbours::{self, Shares},
    shims, shm, socket,
    streams::exec,
    tenancy::{self, Project},
};

/// Starts a run. The outcome is `Started`, or `Exited` with the reason it could not be started.
pub(super) async fn start(task: &Task, run: u32, restart: u32) -> Event {
    match attempt(task, run, restart).await {
        Ok(event) => event,
        Err((code, error)) => {
            tracing::warn!(container = %task.id, run, restart, error, "cannot be started");
            let exit = Exit { code, oom_killed: false, error, finished_at: task.host.clock.now() };
            Event::Exited { exit, started_at: None }
        }
    }
}

type Refusal = (i32, String);

/// Trouble on the host's side, in dockerd's frame and with dockerd's code.
fn host_trouble(why: impl std::fmt::Display) -> Refusal {
    (128, format!("failed to create task for container: {why}: unknown"))
}

async fn attempt(task: &Task, run: u32, restart: u32) -> Result<Event, Refusal> {
    if let Some(why) = &task.unsaved {
        return Err(host_trouble(why));
    }
    let mut step = Steps::of(task);
    // netd's answer, the mount and the durable fact do not depend on each other.
    let (netns, shared, mounted, synced) = tokio::join!(netns(task), shared(task), mount(task), sync(task));
    synced.map_err(host_trouble)?;
    let volumes = mounted.map_err(host_trouble)?;
    let netns = netns.map_err(|why| (128, why))?;
    let shared = shared.map_err(|why| (128, why))?;
    step.done("network, rootfs, durable state");
    write_bundle(task, netns, shared, volumes).await?;
    step.done("bundle");
    let config = shim_config(task, run, restart)?;
    let run_dir = task.host.places.run_dir(&task.id);
    shims::spawn(&run_dir, &config, &task.host.shim_program()).await.map_err(host_trouble)?;
    step.done("shim");
    let event = begin(task, Progress { run, restart, phase: model::Phase::Starting }).await?;
    step.done("runtime");
    Ok(event)
}

/// Says in the log where the time of a start went: one line a step, read by `make bench`.
struct Steps<'a> {
    task: &'a Task,
    since: Instant,
}

impl<'a> Steps<'a> {
    fn of(task: &'a Task) -> Self {
        Self { task, since: Instant::now() }
    }

    fn done(&mut self, step: &str) {
        let duration_ms = self.since.elapsed().as_secs_f64() * 1_000.0;
        tracing::info!(container = %self.task.id, step, duration_ms, "a step of the start is done");
        self.since = Instant::now();
    }
}

/// Connects everyone who waits for the run's output, listens for its end, and starts it. Also for a
/// run whose start an earlier agent had begun: a second `Start` is answered like the first.
pub(super) async fn begin(task: &Task, of: Progress) -> Result<Event, Refusal> {
    let run_dir = task.host.places.run_dir(&task.id);
    task.hub.connect_waiting(&run_dir, of).await;
    let mut events = shims::Shim::connect(&run_dir).map_err(host_trouble)?;
    events.ask(&Request::Subscribe).await.map_err(host_trouble)?;
    let mut shim = shims::Shim::connect(&run_dir).map_err(host_trouble)?;
    match shim.ask(&Request::Start { console_size: None }).await {
        Ok(Reply::Started { pid, started_at_ns }) => {
            watch(task.clone(), of, events);
            Ok(Event::Started { pid, started_at: instant(started_at_ns), frozen: false })
        }
        Ok(Reply::Failed { message, exit_code, .. }) => Err((exit_code.unwrap_or(128), message)),
        Ok(other) => Err(host_trouble(format!("the shim answered {other:?}"))),
        // The shim died in the middle: whatever it began is ended and told as its end.
        Err(error) => {
            tracing::warn!(container = %task.id, %error, "the shim went away during the start");
            Ok(adopt::end_without_shim(task, of, "shim lost").await)
        }
    }
}

/// Follows a run to its end and tells the keeper.
pub(super) fn watch(task: Task, of: Progress, mut events: shims::Shim) {
    let socket = task.plan.as_ref().and_then(|plan| socket::serve(&task.host, plan, of));
    tokio::spawn(async move {
        let _until_it_ends = socket;
        let event = loop {
            match events.event().await {
                Some(ShimEvent::Exited(record)) => {
                    // What ended before the run did is told before it.
                    exec::tell_all(&task.host, &task.id);
                    break exited(&record);
                }
                Some(ShimEvent::Oom { kills }) => tell(&task, of, Event::OomKills(kills)),
                Some(ShimEvent::ExecExited(record)) => exec::tell(&task.host, &task.id, &record),
                Some(ShimEvent::Started { .. }) => {}
                None => break adopt::end_without_shim(&task, of, "shim lost").await,
            }
        };
        tell(&task, of, event);
    });
}

fn tell(task: &Task, of: Progress, event: Event) {
    if let Some(outbox) = task.outbox.upgrade() {
        let _ = outbox.send(Message::OfRun(of, event));
    }
}

/// An exit record as the machine's event.
pub(super) fn exited(record: &ExitRecord) -> Event {
    let exit = Exit {
        code: record.exit_code,
        oom_killed: record.oom_killed,
        error: record.error.clone(),
        finished_at: instant(record.finished_at_ns),
    };
    Event::Exited { exit, started_at: record.started_at_ns.map(instant) }
}

fn instant(ns_since_1970: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ns_since_1970)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

async fn netns(task: &Task) -> Result<Netns, String> {
    if let Some(other) = task.plan.as_ref().and_then(|plan| plan.spec.network_of.clone()) {
        let pin = task.host.places.netns(&task.id);
        return join(task, &other, Shares::Network, pin).await.map(Netns::Path);
    }
    let Some(plan) = task.plan.as_ref().filter(|p| !p.spec.network_none) else {
        // The runtime makes one with `lo` alone; netd need not know.
        return Ok(Netns::New);
    };
    if !plan.endpoints.iter().all(|e| task.networks.iter().any(|n| n.id == e.network)) {
        return Err("network: the plan has an endpoint on a network it does not describe".to_owned());
    }
    let (host, of) = (task.host.clone(), plan.clone());
    let owner = blocking(move || host.tenancy.project_of(&of)).await?.map(|project| project.pin().to_owned());
    task.host.net.attach(plan, &task.networks, owner).await.map(Netns::Path)
}

/// The namespace that the other container's first process is in now, pinned on `pin`.
async fn join(task: &Task, other: &ContainerId, shares: Shares, pin: PathBuf) -> Result<PathBuf, String> {
    let host = task.host.clone();
    if shares == Shares::Network {
        // Noted first: if the other one ends now, its links are taken out of the namespace all the same.
        host.neighbours.joined(&task.id, other);
    }
    let pid = host.neighbours.running(other, shares, host.rebooted).await?;
    let cgroup_path = host.cgroup_path(other);
    let run_dir = host.places.run_dir(&task.id);
    blocking(move || {
        host::make_private(run_dir.path())?;
        neighbours::pin_namespace(shares, pid, &cgroup_path, &pin)?;
        Ok(pin)
    })
    .await
    .map_err(|why| match shares {
        Shares::Network => format!("cannot join network namespace of container: {why}"),
        Shares::Processes | Shares::Ipc => shares.refused(&why),
    })
}

/// What it shares with other containers besides the network, or they with it.
#[derive(Default)]
struct Shared {
    pidns: Option<PathBuf>,
    ipcns: Option<PathBuf>,
    shm: Option<PathBuf>,
}

async fn shared(task: &Task) -> Result<Shared, String> {
    let Some(plan) = &task.plan else { return Ok(Shared::default()) };
    let (places, spec) = (&task.host.places, &plan.spec);
    let mut shared = Shared::default();
    if let Some(other) = &spec.pid_of {
        shared.pidns = Some(join(task, other, Shares::Processes, places.pidns(&task.id)).await?);
    }
    if let Some(other) = &spec.ipc_of {
        shared.ipcns = Some(join(task, other, Shares::Ipc, places.ipcns(&task.id)).await?);
        shared.shm = Some(places.shm(other));
    } else if spec.ipc == IpcMode::Shareable {
        let (host, plan, at) = (task.host.clone(), plan.clone(), places.shm(&task.id));
        shared.shm = Some(at.clone());
        blocking(move || {
            host::make_private(host.places.run_dir(&plan.id).path())?;
            let owner = host.tenancy.project_of(&plan)?.map(|project| project.root_id());
            shm::make(&at, plan.spec.resources.shm_size_bytes, owner)
        })
        .await
        .map_err(|why| format!("/dev/shm: {why}"))?;
    }
    Ok(shared)
}

/// The root file system, and the volumes where the runtime finds them.
async fn mount(task: &Task) -> Result<Vec<BindMount>, String> {
    let Some(plan) = &task.plan else { return Err("nothing is known of the container".to_owned()) };
    let layers = task.host.images.find(&plan.image).ok_or("a layer of the image is gone")?;
    let task = task.clone();
    blocking(move || {
        task.mount_rootfs(&layers)?;
        task.stage_volumes()
    })
    .await
}

async fn sync(task: &Task) -> Result<(), String> {
    let (ledger, id) = (task.host.ledger.clone(), task.id.clone());
    blocking(move || ledger.sync_state(&id)).await
}

async fn write_bundle(task: &Task, netns: Netns, shared: Shared, mut volumes: Vec<BindMount>) -> Result<(), Refusal> {
    let Some(plan) = task.plan.clone() else { return Err(host_trouble("nothing is known of the container")) };
    // Its shim makes the socket before the runtime looks for it.
    let source = task.host.places.run_dir(&task.id).docker_socket();
    let sockets = plan.spec.docker_sockets.iter();
    volumes.extend(sockets.map(|mount| BindMount {
        source: source.clone(),
        path: mount.path.clone(),
        read_only: mount.read_only,
    }));
    let (host, networks) = (task.host.clone(), task.networks.clone());
    let written = tokio::task::spawn_blocking(move || {
        let dir = host.places.container(&plan.id);
        let project = host.tenancy.project_of(&plan).map_err(|e| runtime::Error::io("make the user namespace", e))?;
        let owner = project.as_deref().map(Project::root_id);
        let files = match &plan.spec.network_of {
            // Names are a matter of the network, whoever asks there.
            Some(other) => Ok(files::at(&host.places.container(other))),
            None => files::write(&dir, &plan, &networks, owner),
        };
        let files = files.map_err(|e| runtime::Error::io("write /etc files", e))?;
        let uts = uts(&host, &plan, project.as_deref()).map_err(|e| runtime::Error::io("set the domain name", e))?;
        let spec = &plan.spec;
        let sandbox = SandboxSpec {
            id: plan.id.to_string(),
            argv: spec.entrypoint.iter().chain(&spec.cmd).cloned().collect(),
            env: spec.env.clone(),
            cwd: spec.working_dir.clone(),
            user: spec.user.clone(),
            hostname: files::hostname(&plan).to_owned(),
            domainname: spec.domainname.clone(),
            tty: spec.tty,
            console_size: spec.console_size,
            rootfs: host.places.rootfs(&plan.id),
            netns,
            userns: project.as_deref().map(Project::namespace),
            pidns: shared.pidns,
            ipcns: shared.ipcns,
            shm: shared.shm,
            uts,
            cgroup_path: host.cgroup_path(&plan.id),
            resources: spec.resources.clone(),
            security: spec.security.clone(),
            tmpfs: spec.tmpfs.clone(),
            volumes,
            hosts_file: Some(files.hosts),
            resolv_conf: Some(files.resolv_conf),
            hostname_file: Some(files.hostname),
            // As dockerd: among the processes of another one its init is no first process.
            init: (spec.init && spec.pid_of.is_none())
                .then(|| host.config.init_path.clone().unwrap_or_else(|| host.config.shim_path.clone())),
            annotations: spec.annotations.clone(),
            sysctls: spec.sysctls.clone(),
            ipc: spec.ipc,
            oom_score_adj: (spec.oom_score_adj > 0).then_some(spec.oom_score_adj.into()),
        };
        runtime::write_bundle(&host.places.bundle(&plan.id), &sandbox)
    });
    match written.await {
        Ok(Ok(bundle)) => {
            for warning in bundle.warnings {
                tracing::info!(container = %task.id, warning, "a limit was not taken as asked");
            }
            Ok(())
        }
        // The tenant's own settings or image: dockerd's words stand alone.
        Ok(Err(runtime::Error::Invalid(why))) => Err((128, why)),
        Ok(Err(e)) => Err(host_trouble(e)),
        Err(panic) => Err(host_trouble(panic)),
    }
}

/// A UTS namespace made ahead of the runtime, where only so the domain name can be set.
fn uts(host: &Host, plan: &PlannedContainer, project: Option<&Project>) -> std::io::Result<Option<PathBuf>> {
    let Some(project) = project.filter(|_| !plan.spec.domainname.is_empty()) else { return Ok(None) };
    let pin = host.places.uts(&plan.id);
    host::make_private(host.places.run_dir(&plan.id).path())?;
    tenancy::make_uts(project.userns(), files::hostname(plan), &plan.spec.domainname, &pin)?;
    Ok(Some(pin))
}

fn shim_config(task: &Task, run: u32, restart: u32) -> Result<ShimConfig, Refusal> {
    let Some(plan) = &task.plan else { return Err(host_trouble("nothing is known of the container")) };
    let spec = &plan.spec;
    let unknown = || (128, format!("unknown or invalid runtime name: {}", spec.runtime));
    let (name, path) = task.host.config.runtime_path(&spec.runtime).ok_or_else(unknown)?;
    let places = &task.host.places;
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    Ok(ShimConfig {
        id: task.id.to_string(),
        run,
        restart,
        bundle: text(places.bundle(&task.id)),
        runtime: RuntimeConfig {
            root: text(places.runtime_root(&name)),
            name,
            path: text(path),
            exec: task.host.config.exec_by,
            start: task.host.config.start_by,
        },
        log: spec.log.keep.then(|| LogTarget {
            path: text(places.log_file(&task.id)),
            max_size_bytes: spec.log.max_size_bytes,
            max_files: spec.log.max_files,
        }),
        tty: spec.tty,
        open_stdin: spec.open_stdin,
        stdin_once: spec.stdin_once,
        cgroup_path: task.host.cgroup_path(&task.id),
        console_size: spec.console_size,
        docker_socket: !spec.docker_sockets.is_empty(),
        root_id: task.host.tenancy.project_of(plan).map_err(host_trouble)?.map(|p| p.root_id()),
    })
}
