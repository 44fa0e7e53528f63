//! Taking over a run that an earlier agent began. Whatever happened meanwhile is written down
//! somewhere: a live shim tells it, an exit record has it, and where neither is, the container is
//! ended, so that no run is ever lost or made twice (faults F04, F05, F07).

use std::time::Duration;

use model::{Exit, Phase, Progress};
use runtime::{
    cgroup,
    protocol::{Reply, Request, ShimState, Stage},
};
use time::OffsetDateTime;

use super::{
    effects::{Task, blocking},
    machine::Event,
    start,
};
use crate::{shims::Shim, streams::exec};

/// What became of the run.
pub(super) async fn adopt(task: &Task) -> Event {
    let of = task.progress;
    let run_dir = task.host.places.run_dir(&task.id);
    if let Ok(mut shim) = Shim::connect(&run_dir)
        && let Ok(Reply::State(state)) = shim.ask(&Request::State).await
        && (state.run, state.restart) == (of.run, of.restart)
    {
        tracing::info!(container = %task.id, run = of.run, stage = ?state.stage, "adopting");
        return take_over(task, of, &state, shim).await;
    }
    end_without_shim(task, of, "").await
}

async fn take_over(task: &Task, of: Progress, state: &ShimState, mut shim: Shim) -> Event {
    if let (Stage::Created | Stage::Starting, _) | (Stage::Running, None) = (state.stage, state.pid) {
        drop(shim);
        return match start::begin(task, of).await {
            Ok(event) => event,
            Err((code, error)) => {
                let exit = Exit { code, oom_killed: false, error, finished_at: task.host.clock.now() };
                Event::Exited { exit, started_at: None }
            }
        };
    }
    if let Some(record) = &state.exit {
        exec::tell_all(&task.host, &task.id);
        return start::exited(record);
    }
    task.hub.connect_waiting(&task.host.places.run_dir(&task.id), of).await;
    if shim.ask(&Request::Subscribe).await.is_err() {
        return end_without_shim(task, of, "shim lost").await;
    }
    // Listening already: whatever ends now is told by the shim.
    exec::tell_all(&task.host, &task.id);
    start::watch(task.clone(), of, shim);
    let started = state.started_at_ns.map(i128::from).and_then(|ns| OffsetDateTime::from_unix_timestamp_nanos(ns).ok());
    Event::Started {
        pid: state.pid.unwrap_or_default(),
        started_at: started.unwrap_or(OffsetDateTime::UNIX_EPOCH),
        frozen: cgroup::is_frozen(&task.host.cgroup_path(&task.id)),
    }
}

/// No shim: the exit record tells, or the run is ended here and now.
pub(super) async fn end_without_shim(task: &Task, of: Progress, why: &str) -> Event {
    let run_dir = task.host.places.run_dir(&task.id);
    match run_dir.read_exit() {
        Ok(Some(record)) if (record.run, record.restart) == (of.run, of.restart) => {
            exec::tell_all(&task.host, &task.id);
            return start::exited(&record);
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(container = %task.id, %error, "an exit record cannot be read"),
    }
    exec::tell_all(&task.host, &task.id);
    let cgroup_path = task.host.cgroup_path(&task.id);
    let alive = !cgroup::pids_in(&cgroup_path).is_empty();
    let rebooted = task.host.rebooted;
    // The runtime writes the PID before the shim tells of it: without one, nothing of the tenant's ran.
    let reached_runtime = alive || run_dir.pid_file().exists();
    let begun = of.phase == Phase::Running || reached_runtime || rebooted;
    let killed = blocking(move || cgroup::remove(&cgroup_path, Duration::from_secs(10))).await;
    if let Err(error) = killed {
        tracing::error!(container = %task.id, error, "the processes of a lost container cannot be ended");
    }
    task.runtime_delete().await;
    if !begun {
        tracing::info!(container = %task.id, run = of.run, "its start had not reached the runtime");
        return Event::NeverStarted;
    }
    let error = match why {
        "" if rebooted => "host restarted",
        "" => "shim lost",
        why => why,
    };
    tracing::warn!(container = %task.id, run = of.run, alive, error, "ended without its shim");
    let exit = Exit { code: 137, oom_killed: false, error: error.to_owned(), finished_at: task.host.clock.now() };
    // It did run: the restart policy counts it.
    Event::Exited { exit, started_at: Some(task.host.clock.now()) }
}
