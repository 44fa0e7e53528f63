//! Probing a container that runs: one task per run, one probe at a time, in slots that the whole host
//! shares. The task only finds out; what it means the machine decides.
//!
//! The next probe is due an interval after the end of the last one, which the container's own record
//! has: an agent that starts again neither begins the interval again nor probes out of turn.
//!
//! A slot is held while the runtime starts a probe, which is what costs the host; the probe itself runs
//! at its container's expense. A check rests at least as long as its start took, so that the shortest
//! interval takes half a slot at most, and slots are given in the order they were asked for.

use std::{sync::Arc, time::Duration};

use model::{Health, Healthcheck, Phase, Progress};
use time::OffsetDateTime;
use tokio::{
    sync::{Semaphore, mpsc},
    task::AbortHandle,
};

use super::{
    Keeper, Message, health,
    health_probe::Probe,
    machine::{Busy, Event},
};

/// Slots for the probes of a host.
pub(crate) fn slots() -> Arc<Semaphore> {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    Arc::new(Semaphore::new(cores.clamp(2, 16)))
}

/// The task that probes a run; dropped, it ends, and the probe under way with it.
pub(super) struct Watch {
    of: (u32, u32),
    task: AbortHandle,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a watch is about.
struct Run {
    of: Progress,
    check: Healthcheck,
    started_at: OffsetDateTime,
    health: Health,
    outbox: mpsc::WeakUnboundedSender<Message>,
}

impl Keeper {
    /// Begins or ends the watch as the state demands. `was_paused`: until just now.
    pub(super) fn tend_health(&mut self, was_paused: bool) {
        let observed = &self.state.observed;
        let of = (observed.progress.run, observed.progress.restart);
        let runs = observed.progress.phase == Phase::Running && !observed.paused && self.state.busy != Busy::Adopting;
        if self.watch.as_ref().is_some_and(|watch| runs && watch.of == of) {
            return;
        }
        self.watch = None;
        let (Some(health), Some(started_at)) = (observed.health.clone().filter(|_| runs), observed.started_at) else {
            return;
        };
        let Some(check) = self.healthcheck() else { return };
        let last = if was_paused { self.host.clock.now() } else { health::last(&health, started_at) };
        let run = Run { of: observed.progress, check, started_at, health, outbox: self.outbox.clone() };
        let probe = Probe::new(self.host.clone(), self.id.clone());
        let task = tokio::spawn(run.watch(probe, last)).abort_handle();
        self.watch = Some(Watch { of, task });
    }
}

impl Run {
    async fn watch(mut self, probe: Probe, mut last: OffsetDateTime) {
        probe.sweep().await;
        let mut cost = Duration::ZERO;
        loop {
            let left = health::left(&self.check, self.health.status, self.started_at, last, probe.host.clock.now());
            tokio::time::sleep(left.max(cost)).await;
            match probe.run(&self.check).await {
                Some((found, took)) => {
                    (cost, last) = (took, found.finished_at);
                    self.health = health::after(self.health, &self.check, self.started_at, found.clone());
                    let Some(outbox) = self.outbox.upgrade() else { return };
                    if outbox.send(Message::OfRun(self.of, Event::Probed(found))).is_err() {
                        return;
                    }
                }
                // It is about to end, or its shim is away: the keeper will hear of either.
                None => last = probe.host.clock.now(),
            }
        }
    }
}
