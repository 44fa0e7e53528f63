//! Docker's word for how a container is doing, from what is wanted and what was observed. Pure.

use model::{ContainerSpec, Desired, Error, Health, HealthStatus, Observed, Phase, RestartPolicy, Result};
use store::ContainerRecord;
use time::OffsetDateTime;

use super::elapsed;

/// Docker's states that exist here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Never ran, or could not be started.
    Created,
    /// PID 1 runs.
    Running,
    /// PID 1 runs, but for being frozen.
    Paused,
    /// Between two runs that its host makes by itself.
    Restarting,
    /// Over.
    Exited,
    /// On its way out.
    Removing,
}

impl State {
    /// The word in lists and filters.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Removing => "removing",
        }
    }

    /// Whether Docker counts it as running: a paused one is, and a restarting one.
    pub(crate) fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }

    /// Whether it has a process.
    pub(crate) fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// A container's state.
pub(crate) fn of(container: &ContainerRecord) -> State {
    from_parts(&container.desired, &container.observed, container.spec.restart)
}

/// The same from its parts.
pub(crate) fn from_parts(desired: &Desired, observed: &Observed, policy: RestartPolicy) -> State {
    match observed.progress.phase {
        _ if *desired == Desired::Removed => State::Removing,
        Phase::Removed => State::Removing,
        Phase::Running if observed.paused => State::Paused,
        Phase::Running => State::Running,
        Phase::Exited if restarts(desired, observed, policy) => State::Restarting,
        Phase::Pending | Phase::Preparing | Phase::Created | Phase::Starting if observed.progress.restart > 0 => {
            State::Restarting
        }
        Phase::Exited | Phase::Pending | Phase::Preparing | Phase::Created | Phase::Starting => {
            // One that could not be started never ran: Docker leaves it `created`.
            if observed.exit.as_ref().is_some_and(|exit| !exit.never_started() || observed.started_at.is_some()) {
                State::Exited
            } else {
                State::Created
            }
        }
    }
}

/// Whether its host will start an exited one again without being asked.
fn restarts(desired: &Desired, observed: &Observed, policy: RestartPolicy) -> bool {
    let Desired::Running { run } = desired else { return false };
    let Some(exit) = &observed.exit else { return false };
    *run == observed.progress.run
        && !exit.never_started()
        && match policy {
            RestartPolicy::No => false,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
            RestartPolicy::OnFailure { max_retries } => {
                exit.code != 0 && (max_retries == 0 || observed.progress.restart < max_retries)
            }
        }
}

/// Its health, once it has been started with a check. As in dockerd, one that does not run (or stands
/// still) is not healthy.
pub(crate) fn health(container: &ContainerRecord) -> Option<(HealthStatus, &Health)> {
    let health = container.observed.health.as_ref()?;
    Some((if of(container) == State::Running { health.status } else { HealthStatus::Unhealthy }, health))
}

/// `starting`, `healthy`, `unhealthy`, or `none` where nothing is checked.
pub(crate) fn health_word(container: &ContainerRecord) -> &'static str {
    health(container).map_or("none", |(status, _)| status.as_str())
}

/// `Up 3 seconds (healthy)`, `Exited (0) 2 minutes ago`, `Created`.
pub(crate) fn status_text(container: &ContainerRecord, now: OffsetDateTime) -> String {
    let since = |then: Option<OffsetDateTime>| elapsed::human(now - then.unwrap_or(now));
    let exit = container.observed.exit.as_ref();
    let ended = || (exit.map_or(0, |e| e.code), since(exit.map(|e| e.finished_at)));
    match of(container) {
        State::Created => "Created".into(),
        State::Running => {
            let up = since(container.observed.started_at);
            match health(container) {
                None => format!("Up {up}"),
                Some((HealthStatus::Starting, _)) => format!("Up {up} (health: starting)"),
                Some((status, _)) => format!("Up {up} ({})", status.as_str()),
            }
        }
        State::Paused => format!("Up {} (Paused)", since(container.observed.started_at)),
        State::Restarting => {
            let (code, ago) = ended();
            format!("Restarting ({code}) {ago} ago")
        }
        State::Exited => {
            let (code, ago) = ended();
            format!("Exited ({code}) {ago} ago")
        }
        State::Removing => "Removal In Progress".into(),
    }
}

/// Refuses what needs processes that run now; `doing` names what a paused one must not have, in dockerd's words.
pub(crate) fn must_run(container: &ContainerRecord, doing: &str) -> Result<()> {
    match of(container) {
        State::Running => Ok(()),
        State::Paused => {
            Err(Error::Conflict(format!("Container {} is paused, unpause the container before {doing}", container.id)))
        }
        State::Restarting => Err(restarting(container)),
        State::Created | State::Exited | State::Removing => {
            Err(Error::Conflict(format!("container {} is not running", container.id)))
        }
    }
}

/// dockerd's refusal of what cannot be done between two runs.
pub(crate) fn restarting(container: &ContainerRecord) -> Error {
    Error::Conflict(format!("Container {} is restarting, wait until the container is running", container.id))
}

/// Program and arguments as Docker splits them.
pub(crate) fn program(spec: &ContainerSpec) -> (&str, Vec<&str>) {
    let mut words = spec.entrypoint.iter().chain(&spec.cmd).map(String::as_str);
    (words.next().unwrap_or_default(), words.collect())
}

#[cfg(test)]
mod tests {
    use model::{Exit, Progress};

    use super::*;

    fn observed(run: u32, restart: u32, phase: Phase, code: Option<i32>) -> Observed {
        Observed {
            started_at: code.map(|_| OffsetDateTime::UNIX_EPOCH),
            exit: code.map(|code| Exit {
                code,
                oom_killed: false,
                error: String::new(),
                finished_at: OffsetDateTime::UNIX_EPOCH,
            }),
            ..Observed::at(Progress { run, restart, phase })
        }
    }

    #[test]
    fn a_run_goes_from_created_over_running_to_exited() {
        let wanted = Desired::Running { run: 1 };
        let state = |o: Observed| from_parts(&wanted, &o, RestartPolicy::No);
        assert_eq!(state(observed(0, 0, Phase::Created, None)), State::Created);
        assert_eq!(state(observed(1, 0, Phase::Starting, None)), State::Created);
        assert_eq!(state(observed(1, 0, Phase::Running, None)), State::Running);
        let paused = Observed { paused: true, ..observed(1, 0, Phase::Running, None) };
        assert_eq!(state(paused), State::Paused);
        assert_eq!(state(observed(1, 0, Phase::Exited, Some(3))), State::Exited);
    }

    #[test]
    fn a_second_start_still_shows_the_first_ones_end_until_it_runs() {
        let state =
            from_parts(&Desired::Running { run: 2 }, &observed(2, 0, Phase::Starting, Some(0)), RestartPolicy::No);
        assert_eq!(state, State::Exited);
    }

    #[test]
    fn one_that_its_host_starts_again_is_restarting_until_it_is_stopped() {
        let exited = observed(1, 0, Phase::Exited, Some(1));
        let running = Desired::Running { run: 1 };
        assert_eq!(from_parts(&running, &exited, RestartPolicy::Always), State::Restarting);
        assert_eq!(from_parts(&running, &exited, RestartPolicy::OnFailure { max_retries: 1 }), State::Restarting);
        let again = observed(1, 1, Phase::Exited, Some(1));
        assert_eq!(from_parts(&running, &again, RestartPolicy::OnFailure { max_retries: 1 }), State::Exited);
        let stopped = Desired::Stopped { run: 1, signal: "SIGTERM".into(), timeout_s: 10 };
        assert_eq!(from_parts(&stopped, &exited, RestartPolicy::Always), State::Exited);
    }

    #[test]
    fn one_that_could_not_be_started_stays_created() {
        let mut failed = observed(1, 0, Phase::Exited, Some(127));
        failed.started_at = None;
        failed.exit.as_mut().expect("exit").error = "executable file not found in $PATH".into();
        assert_eq!(from_parts(&Desired::Running { run: 1 }, &failed, RestartPolicy::Always), State::Created);
    }
}
