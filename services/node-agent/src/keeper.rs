//! One task per container: the only owner of its state. It takes messages one by one, lets the
//! machine decide, writes the new state down, tells it, and begins the effect. Outcomes come back as
//! messages, so nothing here waits for anything but the next message.

mod adopt;
mod effects;
mod health;
mod health_probe;
mod health_watch;
pub(crate) mod machine;
mod restart;
mod start;

pub(crate) use effects::{signal_number, with_rootfs};
pub(crate) use health_watch::slots as probe_slots;
pub(crate) use machine::Event;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use contract::host::{PlannedContainer, PlannedNetwork};
use machine::{Busy, Effect, State, Wanted, step};
use model::{ContainerId, Desired, Observed, Phase, Progress};
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
};

use crate::{host::SharedHost, ledger::Entry, rootfs::Hold, streams::hub::Hub};

/// What a keeper is told.
pub(crate) enum Message {
    /// What is wanted now, and the networks it is on.
    Plan(Box<PlannedContainer>, Vec<PlannedNetwork>),
    /// It is in no plan: it goes.
    Discard,
    /// The outcome of an effect, with its number: the outcome of one that was given up counts nothing.
    Outcome(u64, Event),
    /// The run came to its end, as its shim or a timer told.
    OfRun(Progress, Event),
    /// The user sent a signal that rules out a restart.
    EndedByUser,
}

/// The way to a keeper.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(crate) id: ContainerId,
    messages: mpsc::UnboundedSender<Message>,
    observed: watch::Receiver<Observed>,
    plan: Arc<Mutex<Option<PlannedContainer>>>,
    pub(crate) hub: Arc<Hub>,
    /// Held by whoever changes its cgroup: the kernel and what is told of it change in the same order.
    pub(crate) cgroup: Arc<tokio::sync::Mutex<()>>,
    pub(crate) hold: Hold,
    /// Held by whoever changes its networks while it runs.
    pub(crate) plugging: Arc<tokio::sync::Mutex<()>>,
}

impl Handle {
    pub(crate) fn tell(&self, message: Message) {
        // A keeper ends only with the agent or after a removal that was acknowledged.
        let _ = self.messages.send(message);
    }

    pub(crate) fn observed(&self) -> watch::Receiver<Observed> {
        self.observed.clone()
    }

    /// What is wanted from now on. The keeper hears of it with [`Message::Plan`].
    pub(crate) fn plan_is(&self, plan: PlannedContainer) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Some(plan);
    }

    pub(crate) fn plan(&self) -> Option<PlannedContainer> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The task's own side.
pub(crate) struct Keeper {
    id: ContainerId,
    host: SharedHost,
    state: State,
    plan: Arc<Mutex<Option<PlannedContainer>>>,
    networks: Vec<PlannedNetwork>,
    /// Wanted gone because no plan has it.
    discarded: bool,
    /// The limits it was last told to have.
    limits: Option<model::Resources>,
    inbox: mpsc::UnboundedReceiver<Message>,
    outbox: mpsc::WeakUnboundedSender<Message>,
    observed: watch::Sender<Observed>,
    hub: Arc<Hub>,
    cgroup: Arc<tokio::sync::Mutex<()>>,
    hold: Hold,
    /// Number of the effect under way.
    effect: u64,
    under_way: Option<AbortHandle>,
    timer: Option<AbortHandle>,
    /// Probes the run that lives, if it has a health check.
    watch: Option<health_watch::Watch>,
    /// The last state could not be written: nothing may be begun on top of it.
    unsaved: Option<String>,
}

/// Starts the keeper of a container and returns the way to it. It does nothing until it is told.
pub(crate) fn keep(host: SharedHost, entry: Entry, networks: Vec<PlannedNetwork>) -> Handle {
    let (messages, inbox) = mpsc::unbounded_channel();
    let (observed, watch) = watch::channel(entry.state.observed.clone());
    host.neighbours.arrived(&entry.id, watch.clone());
    let limits = entry.plan.as_ref().map(|plan| plan.spec.resources.clone());
    let plan = Arc::new(Mutex::new(entry.plan));
    let (hub, hold) = (Arc::new(Hub::default()), Hold::default());
    let cgroup = Arc::new(tokio::sync::Mutex::new(()));
    let handle = Handle {
        id: entry.id.clone(),
        messages: messages.clone(),
        observed: watch,
        plan: plan.clone(),
        hub: hub.clone(),
        cgroup: cgroup.clone(),
        hold: hold.clone(),
        plugging: Arc::default(),
    };
    let keeper = Keeper {
        id: entry.id,
        host,
        state: entry.state,
        plan,
        networks,
        discarded: false,
        limits,
        inbox,
        outbox: messages.downgrade(),
        observed,
        hub,
        cgroup,
        hold,
        effect: 0,
        under_way: None,
        timer: None,
        watch: None,
        unsaved: None,
    };
    tokio::spawn(keeper.live());
    handle
}

impl Keeper {
    async fn live(mut self) {
        while let Some(message) = self.inbox.recv().await {
            let event = match message {
                Message::Plan(plan, networks) => {
                    self.networks = networks;
                    let limits = plan.spec.resources.clone();
                    *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Some(*plan);
                    // Not compared with the plan kept: that is told before this message.
                    if self.limits.replace(limits.clone()).is_some_and(|before| before != limits) {
                        self.limit();
                    }
                    Event::Look
                }
                Message::Discard => {
                    self.discarded = true;
                    Event::Look
                }
                Message::Outcome(number, event) if number == self.effect => {
                    self.under_way = None;
                    self.host.told_event(&self.id, event)
                }
                Message::OfRun(of, event) if self.is_about_now(of) => self.host.told_event(&self.id, event),
                Message::Outcome(..) | Message::OfRun(..) => continue,
                Message::EndedByUser => Event::EndedByUser,
            };
            self.advance(event);
        }
    }

    fn is_about_now(&self, of: Progress) -> bool {
        let now = self.state.observed.progress;
        (of.run, of.restart) == (now.run, now.restart)
    }

    fn wanted(&self) -> Option<Wanted> {
        let plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*plan, self.discarded) {
            (Some(plan), discarded) => Some(Wanted {
                desired: if discarded { Desired::Removed } else { plan.desired.clone() },
                restart: plan.spec.restart,
                auto_remove: plan.spec.auto_remove,
                healthcheck: plan.spec.healthcheck.clone(),
            }),
            (None, true) => Some(Wanted {
                desired: Desired::Removed,
                restart: model::RestartPolicy::No,
                auto_remove: false,
                healthcheck: None,
            }),
            // A directory without a plan waits for a full plan to say what it is.
            (None, false) => None,
        }
    }

    fn healthcheck(&self) -> Option<model::Healthcheck> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.spec.healthcheck.clone()
    }

    fn advance(&mut self, event: Event) {
        let Some(wanted) = self.wanted() else { return };
        let before = self.state.clone();
        let (state, effect) = step(before.clone(), &wanted, event, self.host.clock.now());
        self.state = state;
        if self.state.busy == Busy::Idle && before.busy == Busy::WaitingToRestart {
            self.stop_timer();
        }
        if self.state != before {
            self.save();
        }
        if self.state.observed != before.observed {
            self.publish(&before.observed, effect == Some(Effect::Remove));
        }
        if before.busy == Busy::Adopting && self.state.observed.progress.phase == Phase::Running {
            // Its plan may have changed while there was no agent, or right before the last one died.
            self.limit();
        }
        self.tend_health(before.observed.paused);
        if let Some(effect) = effect {
            self.perform(effect);
        }
    }

    fn save(&mut self) {
        let saved = self.host.ledger.save_state(&self.id, &self.state);
        self.unsaved = saved.err().map(|e| format!("the container's state cannot be saved: {e}"));
        if let Some(why) = &self.unsaved {
            tracing::error!(container = %self.id, why, "full disk?");
        }
    }

    fn publish(&self, before: &Observed, leaving: bool) {
        let observed = &self.state.observed;
        if observed.progress != before.progress {
            let model::Progress { run, restart, phase } = observed.progress;
            let exit_code = observed.exit.as_ref().map(|e| e.code);
            tracing::info!(container = %self.id, run, restart, ?phase, exit_code, "moved");
        }
        if !self.state.is_alive() {
            // Whoever still waits for the output of the run that ended here waits in vain.
            self.hub.run_ended(observed.progress != before.progress && observed.progress.phase >= Phase::Exited);
        }
        self.observed.send_replace(observed.clone());
        self.host.reports.moved(&self.id, observed, leaving);
    }

    fn stop_timer(&mut self) {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
    }

    /// Sends the event once the time has come, if the run is still the same.
    fn after(&mut self, delay: Duration, event: Event) {
        self.stop_timer();
        let (outbox, of) = (self.outbox.clone(), self.state.observed.progress);
        let task = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            if let Some(outbox) = outbox.upgrade() {
                let _ = outbox.send(Message::OfRun(of, event));
            }
        });
        self.timer = Some(task.abort_handle());
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Signal { signal, grace } => {
                let of = self.state.observed.progress;
                self.signal(&signal);
                match grace {
                    Some(grace) => self.after(grace, Event::GraceOver(of)),
                    None => self.stop_timer(),
                }
            }
            Effect::WaitToRestart { delay } => self.after(delay, Event::RestartDue(self.state.observed.progress)),
            Effect::KillAll => self.kill_all(),
            Effect::Prepare | Effect::Adopt | Effect::Start { .. } | Effect::Release | Effect::Remove => {
                self.begin(effect);
            }
        }
    }
}
