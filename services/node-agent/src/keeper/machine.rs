//! The life of one container on this host, pure: `step(state, wanted, event, now)` makes one
//! transition and names at most one effect. The keeper performs it and feeds the outcome back as the
//! next event, so at most one effect is ever under way (`Busy`), and every decision is in this file.
//!
//! ```text
//!            Prepare            Start             (shim)
//!  Pending ─▶ Preparing ─▶ Created ─▶ Starting ─▶ Running ─▶ Exited ─▶ Release ─▶ (restart | rest | Remove)
//!                                        └── could not be started ──▶┘
//! ```
//! Invariant: `observed.progress` never goes back.

use std::time::Duration;

use model::{Desired, Exit, HealthProbe, Healthcheck, Observed, Phase, Progress, RestartPolicy};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{health, restart};

/// What the keeper knows of its container. The part that is serialized is what a restarted agent
/// cannot find out by looking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// What is reported.
    pub(crate) observed: Observed,
    /// The user ended this run by a signal: the restart policy is off until the next start.
    #[serde(default)]
    pub(crate) ended_by_user: bool,
    /// The last attempt got as far as a running process.
    #[serde(default)]
    pub(crate) did_start: bool,
    /// The delay before the last restart.
    #[serde(default)]
    pub(crate) backoff: Option<Duration>,
    /// Layers and directories are there.
    #[serde(skip)]
    pub(crate) prepared: bool,
    /// A run's mount, namespace or shim may still be there. A restarted agent assumes so.
    #[serde(skip, default = "yes")]
    pub(crate) held: bool,
    /// Read from disk and not yet compared with what runs.
    #[serde(skip, default = "yes")]
    pub(crate) unseen: bool,
    /// The effect under way.
    #[serde(skip)]
    pub(crate) busy: Busy,
    /// How far ending the run has got.
    #[serde(skip)]
    pub(crate) ending: Ending,
    /// Why the host ends the run of its own accord.
    #[serde(skip)]
    pub(crate) undermined: Option<String>,
}

fn yes() -> bool {
    true
}

/// The effect under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Busy {
    #[default]
    Idle,
    Preparing,
    Adopting,
    Starting,
    Releasing,
    Removing,
    WaitingToRestart,
}

/// How far ending the run has got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ending {
    #[default]
    No,
    Asked {
        signal: String,
        timeout_s: i64,
    },
    Killed,
}

/// What is wanted, and the parts of the spec that decide what follows an exit.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) desired: Desired,
    pub(crate) restart: RestartPolicy,
    pub(crate) auto_remove: bool,
    pub(crate) healthcheck: Option<Healthcheck>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Nothing, or what is wanted changed.
    Look,
    Prepared,
    PrepareFailed(String),
    Started {
        pid: u32,
        started_at: OffsetDateTime,
        /// The kernel has it frozen: it was paused before this agent.
        frozen: bool,
    },
    /// Its processes were frozen, or thawed.
    Frozen(bool),
    /// So often the OOM killer was at it in this run.
    OomKills(u32),
    /// What it stands on was taken away: it must end, for this reason.
    Undermined(String),
    /// A health check came to an end.
    Probed(HealthProbe),
    /// PID 1 ended, or could not be started (then `started_at` is `None`).
    Exited {
        exit: Exit,
        started_at: Option<OffsetDateTime>,
    },
    /// Adopting found that the start had not got as far as the runtime.
    NeverStarted,
    GraceOver(Progress),
    RestartDue(Progress),
    Released,
    Removed,
    /// The user sent a signal that means the end.
    EndedByUser,
}

/// What the keeper shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Prepare,
    /// Find out what became of a run that the last agent began.
    Adopt,
    Start {
        run: u32,
        restart: u32,
    },
    /// Send the signal; after the grace (`None`: never) comes `GraceOver`.
    Signal {
        signal: String,
        grace: Option<Duration>,
    },
    KillAll,
    WaitToRestart {
        delay: Duration,
    },
    /// Give back what a run held: mount, namespace, shim.
    Release,
    /// Release, and delete everything the container owned.
    Remove,
}

impl State {
    /// A container this host has never seen.
    pub(crate) fn new() -> Self {
        Self {
            observed: Observed::at(Progress::NONE),
            ended_by_user: false,
            did_start: false,
            backoff: None,
            prepared: false,
            held: false,
            unseen: false,
            busy: Busy::Idle,
            ending: Ending::No,
            undermined: None,
        }
    }

    /// A container of which nothing is known but that a run was begun.
    pub(crate) fn begun(run: u32, restart: u32) -> Self {
        let progress = Progress { run, restart, phase: Phase::Starting };
        Self { observed: Observed::at(progress), held: true, ..Self::new() }
    }

    /// PID 1 runs, or the runtime is at it.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.observed.progress.phase, Phase::Starting | Phase::Running)
    }

    fn phase(&self) -> Phase {
        self.observed.progress.phase
    }

    fn run(&self) -> u32 {
        self.observed.progress.run
    }

    fn advance(&mut self, to: Progress) {
        debug_assert!(to >= self.observed.progress, "{to:?} after {:?}", self.observed.progress);
        self.observed.progress = self.observed.progress.max(to);
    }

    fn advance_phase(&mut self, phase: Phase) {
        self.advance(Progress { phase, ..self.observed.progress });
    }

    fn frozen(&mut self, frozen: bool) {
        if self.phase() == Phase::Running && self.observed.paused != frozen {
            self.observed.paused = frozen;
            self.observed.revision += 1;
        }
    }

    fn oom_kills(&mut self, kills: u32) {
        if self.is_alive() && kills > self.observed.oom_kills {
            self.observed.oom_kills = kills;
            self.observed.revision += 1;
        }
    }

    fn probed(&mut self, wanted: &Wanted, probe: HealthProbe) {
        // What stands still or has ended has the health it had.
        if self.phase() != Phase::Running || self.observed.paused {
            return;
        }
        if let (Some(check), Some(started_at)) = (&wanted.healthcheck, self.observed.started_at)
            && let Some(before) = self.observed.health.take()
        {
            self.observed.health = Some(health::after(before, check, started_at, probe));
            self.observed.revision += 1;
        }
    }

    fn exited(&mut self, progress: Progress, mut exit: Exit) {
        if let Some(why) = self.undermined.take().filter(|_| exit.error.is_empty()) {
            exit.error = why;
        }
        self.advance(Progress { phase: Phase::Exited, ..progress });
        self.observed.pid = None;
        self.observed.paused = false;
        self.observed.exit = Some(exit);
        self.held = true;
        self.ending = Ending::No;
    }
}

/// One transition.
pub(crate) fn step(mut state: State, wanted: &Wanted, event: Event, now: OffsetDateTime) -> (State, Option<Effect>) {
    if let Some(effect) = absorb(&mut state, wanted, event, now) {
        return (state, Some(effect));
    }
    let effect = decide(&mut state, wanted, now);
    (state, effect)
}

/// Takes the event into the state. Few events name their effect at once.
fn absorb(state: &mut State, wanted: &Wanted, event: Event, now: OffsetDateTime) -> Option<Effect> {
    match event {
        Event::Look => {}
        Event::Prepared => {
            state.busy = Busy::Idle;
            state.prepared = true;
            state.observed.prepare_error = None;
            if state.phase() < Phase::Created {
                state.advance_phase(Phase::Created);
            }
        }
        Event::PrepareFailed(cause) => prepare_failed(state, wanted, cause, now),
        Event::Started { pid, started_at, frozen } => {
            // A short run's end may be told before its start.
            if !state.is_alive() {
                return None;
            }
            state.busy = Busy::Idle;
            state.did_start = true;
            // One that was running for an earlier agent is as healthy as it was.
            let known = state.observed.health.take();
            let adopted = known.clone().filter(|_| state.phase() == Phase::Running);
            state.observed.health =
                wanted.healthcheck.as_ref().map(|_| adopted.unwrap_or_else(|| health::begun(known)));
            state.advance_phase(Phase::Running);
            state.observed.pid = Some(pid);
            state.observed.started_at = Some(started_at);
            state.frozen(frozen);
        }
        Event::Frozen(frozen) => state.frozen(frozen),
        Event::OomKills(kills) => state.oom_kills(kills),
        Event::Undermined(why) => {
            if state.phase() == Phase::Running && state.undermined.is_none() {
                state.undermined = Some(why);
                state.ending = Ending::Killed;
                return Some(Effect::KillAll);
            }
        }
        Event::Probed(probe) => state.probed(wanted, probe),
        Event::Exited { exit, started_at } => {
            if !state.is_alive() {
                return None;
            }
            state.busy = Busy::Idle;
            state.did_start = started_at.is_some();
            state.observed.started_at = started_at.or(state.observed.started_at);
            state.exited(state.observed.progress, exit);
        }
        Event::NeverStarted => state.busy = Busy::Idle,
        Event::GraceOver(of) => {
            let same = (of.run, of.restart) == (state.run(), state.observed.progress.restart);
            if same && state.is_alive() && state.ending != Ending::Killed {
                state.ending = Ending::Killed;
                return Some(Effect::KillAll);
            }
        }
        Event::RestartDue(of) => {
            if state.busy == Busy::WaitingToRestart && of == state.observed.progress {
                state.busy = Busy::Idle;
                if wanted.desired == (Desired::Running { run: of.run }) {
                    return Some(begin(state, of.run, of.restart + 1));
                }
            }
        }
        Event::Released => {
            state.busy = Busy::Idle;
            state.held = false;
        }
        Event::Removed => {
            state.busy = Busy::Idle;
            state.held = false;
            state.observed.pid = None;
            state.observed.paused = false;
            state.advance_phase(Phase::Removed);
        }
        Event::EndedByUser => state.ended_by_user = true,
    }
    None
}

fn prepare_failed(state: &mut State, wanted: &Wanted, cause: String, now: OffsetDateTime) {
    state.busy = Busy::Idle;
    state.observed.prepare_error = Some(cause.clone());
    let Desired::Running { run } = wanted.desired else {
        if state.phase() < Phase::Preparing {
            state.advance_phase(Phase::Preparing);
        }
        return;
    };
    let beginning = run > state.run() || (run == state.run() && state.phase() == Phase::Starting);
    if beginning {
        let restart = if run == state.run() { state.observed.progress.restart } else { 0 };
        state.did_start = false;
        let exit = Exit { code: 128, oom_killed: false, error: cause, finished_at: now };
        state.exited(Progress { run, restart, phase: Phase::Exited }, exit);
    }
}

fn decide(state: &mut State, wanted: &Wanted, now: OffsetDateTime) -> Option<Effect> {
    if state.phase() == Phase::Removed {
        return None;
    }
    if std::mem::take(&mut state.unseen) && state.is_alive() {
        state.busy = Busy::Adopting;
        return Some(Effect::Adopt);
    }
    match &wanted.desired {
        Desired::Removed => remove(state),
        Desired::Created => rest(state, wanted),
        Desired::Running { run } => want_running(state, wanted, *run),
        Desired::Stopped { run, signal, timeout_s } => want_stopped(state, wanted, *run, signal, *timeout_s, now),
    }
}

fn remove(state: &mut State) -> Option<Effect> {
    match state.busy {
        Busy::Removing | Busy::Releasing | Busy::Starting | Busy::Adopting => None,
        Busy::Idle if state.phase() == Phase::Running => kill(state),
        // A download under way is given up; a pending restart never comes.
        Busy::Idle | Busy::Preparing | Busy::WaitingToRestart => {
            state.busy = Busy::Removing;
            Some(Effect::Remove)
        }
    }
}

fn kill(state: &mut State) -> Option<Effect> {
    if state.ending == Ending::Killed {
        return None;
    }
    state.ending = Ending::Killed;
    Some(Effect::KillAll)
}

fn want_running(state: &mut State, wanted: &Wanted, run: u32) -> Option<Effect> {
    if state.busy == Busy::WaitingToRestart && run > state.run() {
        state.busy = Busy::Idle;
    }
    if state.busy != Busy::Idle {
        return None;
    }
    if state.phase() == Phase::Running {
        // The control plane begins a run only after it was told that the last one ended, so an older
        // one that lives on is a mistake that must not live beside the new one.
        return if state.run() < run { kill(state) } else { None };
    }
    let again = state.run() == run && state.phase() == Phase::Starting;
    if run > state.run() || again {
        if state.held && !again {
            return release(state);
        }
        if !state.prepared {
            return prepare(state);
        }
        let restart = if again { state.observed.progress.restart } else { 0 };
        return Some(begin(state, run, restart));
    }
    if state.run() == run && state.phase() == Phase::Exited && restarts(state, wanted) {
        if state.held {
            return release(state);
        }
        if !state.prepared {
            return prepare(state);
        }
        return wait_to_restart(state);
    }
    rest(state, wanted)
}

fn restarts(state: &State, wanted: &Wanted) -> bool {
    let code = state.observed.exit.as_ref().map_or(0, |e| e.code);
    state.did_start
        && !state.ended_by_user
        && state.observed.prepare_error.is_none()
        && restart::restarts(wanted.restart, code, state.observed.progress.restart)
}

fn wait_to_restart(state: &mut State) -> Option<Effect> {
    let ended = state.observed.exit.as_ref().map(|e| e.finished_at);
    let lasted = ended.zip(state.observed.started_at).map(|(end, begin)| end - begin);
    let lasted = lasted.and_then(|l| Duration::try_from(l).ok()).unwrap_or_default();
    let delay = restart::delay(state.backoff, lasted);
    state.backoff = Some(delay);
    state.busy = Busy::WaitingToRestart;
    Some(Effect::WaitToRestart { delay })
}

fn want_stopped(
    state: &mut State,
    wanted: &Wanted,
    run: u32,
    signal: &str,
    timeout_s: i64,
    now: OffsetDateTime,
) -> Option<Effect> {
    if matches!(state.busy, Busy::WaitingToRestart) {
        state.busy = Busy::Idle;
    }
    if state.phase() == Phase::Running {
        let asked = Ending::Asked { signal: signal.to_owned(), timeout_s };
        if state.run() > run || state.ending == Ending::Killed || state.ending == asked {
            return None;
        }
        state.ending = asked;
        let grace = u64::try_from(timeout_s).ok().map(Duration::from_secs);
        return Some(Effect::Signal { signal: signal.to_owned(), grace });
    }
    if matches!(state.busy, Busy::Starting | Busy::Adopting | Busy::Removing) {
        return None;
    }
    let never_begun = state.run() < run || (state.run() == run && state.phase() == Phase::Starting);
    if never_begun {
        let exit =
            Exit { code: 128, oom_killed: false, error: "stopped before it was started".into(), finished_at: now };
        state.did_start = false;
        state.exited(Progress { run, restart: state.observed.progress.restart, phase: Phase::Exited }, exit);
    }
    rest(state, wanted)
}

/// Nothing runs and nothing shall: give back, tidy up, or get ready.
fn rest(state: &mut State, wanted: &Wanted) -> Option<Effect> {
    if state.busy != Busy::Idle || state.is_alive() {
        return None;
    }
    let ended = state.phase() == Phase::Exited;
    if ended && wanted.auto_remove {
        state.busy = Busy::Removing;
        return Some(Effect::Remove);
    }
    if state.held {
        return release(state);
    }
    if !ended && !state.prepared && state.observed.prepare_error.is_none() {
        return prepare(state);
    }
    None
}

fn release(state: &mut State) -> Option<Effect> {
    state.busy = Busy::Releasing;
    Some(Effect::Release)
}

fn prepare(state: &mut State) -> Option<Effect> {
    state.busy = Busy::Preparing;
    state.observed.prepare_error = None;
    if state.phase() < Phase::Preparing {
        state.advance_phase(Phase::Preparing);
    }
    Some(Effect::Prepare)
}

fn begin(state: &mut State, run: u32, restart: u32) -> Effect {
    state.busy = Busy::Starting;
    state.ending = Ending::No;
    state.held = true;
    state.did_start = false;
    if restart == 0 {
        state.ended_by_user = false;
        state.backoff = None;
    }
    state.observed.pid = None;
    state.observed.oom_kills = 0;
    state.advance(Progress { run, restart, phase: Phase::Starting });
    Effect::Start { run, restart }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
