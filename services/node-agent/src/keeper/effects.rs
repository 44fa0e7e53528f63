//! Performing what the machine decided. Every release is safe without its prepare, and safe twice.

use std::{str::FromStr as _, time::Duration};

use chassis::backoff::Backoff;
use contract::host::{PlannedContainer, PlannedNetwork};
use model::{ContainerId, Phase, Progress};
use nix::sys::signal::Signal;
use runtime::{BindMount, cgroup, protocol::Request};

use super::{
    Keeper, Message, adopt,
    machine::{Effect, Event},
    start,
};
use crate::{
    freezer,
    host::{Host, SharedHost},
    layers::Layer,
    limits,
    rootfs::{self, Hold, Rootfs},
    shims,
    streams::exec,
};

/// What an effect needs of its keeper.
#[derive(Clone)]
pub(super) struct Task {
    pub(super) id: ContainerId,
    pub(super) host: SharedHost,
    pub(super) plan: Option<PlannedContainer>,
    pub(super) networks: Vec<PlannedNetwork>,
    pub(super) hub: std::sync::Arc<crate::streams::hub::Hub>,
    pub(super) hold: Hold,
    pub(super) outbox: tokio::sync::mpsc::WeakUnboundedSender<Message>,
    pub(super) progress: Progress,
    pub(super) unsaved: Option<String>,
}

impl Keeper {
    /// Begins an effect with an outcome, in a task of its own.
    pub(super) fn begin(&mut self, effect: Effect) {
        self.effect += 1;
        let number = self.effect;
        if let Some(earlier) = self.under_way.take() {
            // Only a preparation is ever given up (see the machine's `remove`).
            earlier.abort();
        }
        let plan = self.plan.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let task = Task {
            id: self.id.clone(),
            host: self.host.clone(),
            plan,
            networks: self.networks.clone(),
            hub: self.hub.clone(),
            hold: self.hold.clone(),
            outbox: self.outbox.clone(),
            progress: self.state.observed.progress,
            unsaved: self.unsaved.clone(),
        };
        let outbox = self.outbox.clone();
        let running = tokio::spawn(async move {
            let event = match effect {
                Effect::Prepare => task.prepare().await,
                Effect::Adopt => adopt::adopt(&task).await,
                Effect::Start { run, restart } => start::start(&task, run, restart).await,
                Effect::Release => {
                    task.release().await;
                    Event::Released
                }
                Effect::Remove => {
                    task.remove().await;
                    Event::Removed
                }
                Effect::Signal { .. } | Effect::KillAll | Effect::WaitToRestart { .. } => Event::Look,
            };
            if let Some(outbox) = outbox.upgrade() {
                let _ = outbox.send(Message::Outcome(number, event));
            }
        });
        self.under_way = Some(running.abort_handle());
    }

    /// Sends a signal by name or number. Nobody waits for it: the exit is what counts.
    pub(super) fn signal(&self, signal: &str) {
        let Some(signal) = signal_number(signal) else {
            tracing::warn!(container = %self.id, signal, "unknown stop signal: SIGKILL instead");
            return self.kill_all();
        };
        let (host, id, outbox) = (self.host.clone(), self.id.clone(), self.outbox.clone());
        let paused_run = self.state.observed.paused.then_some(self.state.observed.progress);
        tokio::spawn(async move {
            if let Err(error) = shims::tell(&host.places.run_dir(&id), &Request::Signal { signal }).await {
                tracing::info!(container = %id, %error, "the stop signal found nobody");
            }
            // As dockerd does: the signal first, then whoever was frozen wakes up to it.
            if let Some(of) = paused_run
                && freezer::thaw(&host, &id).await.is_ok()
                && let Some(outbox) = outbox.upgrade()
            {
                let _ = outbox.send(Message::OfRun(of, Event::Frozen(false)));
            }
        });
    }

    /// Gives a run that lives the limits of the plan. What the kernel refuses now is tried again with
    /// the next start.
    pub(super) fn limit(&self) {
        if self.state.observed.progress.phase != Phase::Running {
            return;
        }
        let Some(plan) = self.plan.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone() else { return };
        let (host, turn) = (self.host.clone(), self.cgroup.clone());
        tokio::spawn(async move {
            let _turn = turn.lock().await;
            let spec = &plan.spec;
            if let Err(error) = limits::apply(&host, &plan.id, &spec.runtime, &spec.resources).await {
                tracing::warn!(container = %plan.id, %error, "does not take its new limits");
            }
        });
    }

    pub(super) fn kill_all(&self) {
        let (host, id) = (self.host.clone(), self.id.clone());
        tokio::spawn(async move {
            let cgroup_path = host.cgroup_path(&id);
            let hit = tokio::task::spawn_blocking(move || cgroup::kill_all(&cgroup_path)).await;
            // Somebody may have moved its processes elsewhere. PID 1 takes all of them along.
            if !matches!(hit, Ok(1..)) {
                let _ = shims::tell(&host.places.run_dir(&id), &Request::Signal { signal: 9 }).await;
            }
        });
    }
}

impl Task {
    /// Layers, directories and the mount: all that a start need not wait for.
    async fn prepare(&self) -> Event {
        let Some(plan) = &self.plan else { return Event::PrepareFailed("nothing is known of the container".into()) };
        let prepared = async {
            // An image may be deleted under its container: layers that are here are good enough.
            let layers = match self.host.images.find(&plan.image) {
                Some(layers) => layers,
                None => self.host.images.ensure(&plan.image).await?,
            };
            let (task, first) = (self.clone(), self.progress.phase <= Phase::Preparing);
            blocking(move || {
                rootfs::prepare(&task.host.places.container(&task.id))?;
                task.mount_rootfs(&layers)?;
                task.prepare_volumes(first)
            })
            .await
        };
        match prepared.await {
            Ok(()) => Event::Prepared,
            Err(why) => {
                tracing::warn!(container = %self.id, why, "cannot be prepared");
                Event::PrepareFailed(why)
            }
        }
    }

    /// Mounts the root file system over its layers, unless it is mounted.
    pub(super) fn mount_rootfs(&self, layers: &[Layer]) -> std::io::Result<()> {
        let Some(plan) = &self.plan else { return Err(std::io::Error::other("nothing is known of the container")) };
        with_rootfs(&self.host, plan, layers, |rootfs| self.hold.for_run(rootfs, &self.host.trash))
    }

    fn prepare_volumes(&self, first: bool) -> std::io::Result<()> {
        let Some(plan) = self.plan.as_ref().filter(|plan| !plan.spec.volumes.is_empty()) else { return Ok(()) };
        let project = self.host.tenancy.project_of(plan)?;
        self.host.volumes.prepare(plan, project.as_deref(), &self.host.places.rootfs(&self.id), first)
    }

    /// Mounts the volumes where the runtime finds them.
    pub(super) fn stage_volumes(&self) -> std::io::Result<Vec<BindMount>> {
        let Some(plan) = self.plan.as_ref().filter(|plan| !plan.spec.volumes.is_empty()) else { return Ok(Vec::new()) };
        let project = self.host.tenancy.project_of(plan)?;
        self.host.volumes.stage(plan, project.as_deref())
    }

    /// Gives back what a run held. Runs to its end whatever fails; what could not be given back is
    /// tried again at the next start and at removal.
    pub(super) async fn release(&self) {
        let run_dir = self.host.places.run_dir(&self.id);
        let dismiss = async {
            if let Ok(mut shim) = shims::Shim::connect(&run_dir) {
                let _ = shim.ask(&Request::Bye).await;
            }
        };
        let (rootfs, cgroup_path, hold) =
            (self.host.places.rootfs(&self.id), self.host.cgroup_path(&self.id), self.hold.clone());
        let (places, id) = (&self.host.places, &self.id);
        let pins = [places.uts(id), places.netns(id), places.pidns(id), places.ipcns(id), places.shm(id)];
        let is_joined = self.host.neighbours.is_joined(&self.id);
        let (volumes, id) = (self.host.volumes.clone(), self.id.clone());
        let clean = blocking(move || {
            cgroup::remove(&cgroup_path, Duration::from_secs(5))?;
            pins.iter().try_for_each(|pin| rootfs::unmount(pin))?;
            hold.run_over(&rootfs)?;
            volumes.release(&id)
        });
        let ((), (), cleaned) = tokio::join!(dismiss, self.host.net.detach(&self.id, is_joined), clean);
        self.host.neighbours.left(&self.id);
        // With the run everything in it has ended.
        exec::tell_all(&self.host, &self.id);
        if let Err(why) = cleaned {
            tracing::warn!(container = %self.id, why, "could not be released");
        }
    }

    /// Releases and deletes until it is done: a removal is reported only when nothing is left.
    async fn remove(&self) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(10));
        loop {
            self.release().await;
            match self.delete().await {
                Ok(()) => return,
                Err(why) => {
                    tracing::error!(container = %self.id, why, "cannot be deleted");
                    backoff.wait().await;
                }
            }
        }
    }

    /// Everything but the plan and the state, which stay until the removal has been taken note of.
    async fn delete(&self) -> Result<(), String> {
        self.runtime_delete().await;
        let places = self.host.places.clone();
        let (dir, run_dir) = (places.container(&self.id), places.run_dir(&self.id));
        let (rootfs, trash, hold) = (places.rootfs(&self.id), self.host.trash.clone(), self.hold.clone());
        let (volumes, id) = (self.host.volumes.clone(), self.id.clone());
        blocking(move || {
            hold.remove(&rootfs)?;
            volumes.release(&id)?;
            if rootfs::is_mounted(&rootfs)? {
                return Err(std::io::Error::other("its root file system is still mounted"));
            }
            remove_mount_point(&rootfs)?;
            for part in ["upper", "work", "empty", "log", "files", "rootfs"] {
                trash.discard(&dir.join(part))?;
            }
            match std::fs::remove_dir_all(run_dir.path()) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
                Ok(()) | Err(_) => Ok(()),
            }
        })
        .await
    }

    /// Has the runtime forget the container, if a shim that died left it with it.
    pub(super) async fn runtime_delete(&self) {
        let spec_runtime = self.plan.as_ref().map_or("", |p| p.spec.runtime.as_str());
        let Some((name, path)) = self.host.config.runtime_path(spec_runtime) else { return };
        let root = self.host.places.runtime_root(&name);
        if !root.join(self.id.as_str()).exists() {
            return;
        }
        let command = runtime::by_name(&name, &path, &root).map(|oci| oci.delete(self.id.as_str()));
        let Some(mut command) = command.map(tokio::process::Command::from) else { return };
        let outcome = command.stdin(std::process::Stdio::null()).output().await;
        if let Ok(output) = outcome
            && !output.status.success()
        {
            let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            tracing::info!(container = %self.id, told, "the runtime would not delete the container");
        }
    }
}

/// The mount point and the directory made for it.
fn remove_mount_point(rootfs: &std::path::Path) -> std::io::Result<()> {
    for dir in [Some(rootfs), rootfs.parent()].into_iter().flatten() {
        match std::fs::remove_dir(dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Names a container's root file system, whoever mounts it.
pub(crate) fn with_rootfs<T>(
    host: &Host,
    plan: &PlannedContainer,
    layers: &[Layer],
    work: impl FnOnce(&Rootfs<'_>) -> std::io::Result<T>,
) -> std::io::Result<T> {
    let project = host.tenancy.project_of(plan)?;
    let (dir, on) = (host.places.container(&plan.id), host.places.rootfs(&plan.id));
    let volatile = plan.spec.auto_remove;
    work(&Rootfs { dir: &dir, on: &on, layers, volatile, project: project.as_deref() })
}

/// Runs something that blocks, with its error as text.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(|e| e.to_string()),
        Err(panic) => Err(panic.to_string()),
    }
}

/// `15`, `TERM`, `SIGTERM`, `SIGRTMIN+3`.
pub(crate) fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let realtime = |base: i32, rest: &str, sign: i32| -> Option<i32> {
        let offset = if rest.is_empty() { 0 } else { rest[1..].parse::<i32>().ok()? };
        let number = base + sign * offset;
        (34..=64).contains(&number).then_some(number)
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return realtime(34, rest, 1);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return realtime(64, rest, -1);
    }
    Signal::from_str(&format!("SIG{name}")).ok().map(|s| s as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_many_names() {
        for name in ["9", "KILL", "SIGKILL", "sigkill"] {
            assert_eq!(signal_number(name), Some(9), "{name}");
        }
        assert_eq!(signal_number("SIGRTMIN+3"), Some(37));
        assert_eq!(signal_number("RTMAX-1"), Some(63));
        for name in ["0", "65", "-1", "NOPE", "", "RTMIN+99"] {
            assert_eq!(signal_number(name), None, "{name}");
        }
    }
}
