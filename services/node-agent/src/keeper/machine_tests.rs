//! The machine against tables of events, and against any order of events at all.

use model::HealthStatus;
use proptest::prelude::*;
use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-01-01 00:00:00 UTC);

fn wanted(desired: Desired) -> Wanted {
    Wanted { desired, restart: RestartPolicy::No, auto_remove: false, healthcheck: None }
}

fn running(run: u32) -> Wanted {
    wanted(Desired::Running { run })
}

fn stopped(run: u32, timeout_s: i64) -> Wanted {
    wanted(Desired::Stopped { run, signal: "SIGTERM".into(), timeout_s })
}

fn exit(code: i32) -> Exit {
    Exit { code, oom_killed: false, error: String::new(), finished_at: NOW }
}

fn exited(code: i32) -> Event {
    Event::Exited { exit: exit(code), started_at: Some(NOW) }
}

fn started() -> Event {
    Event::Started { pid: 7, started_at: NOW, frozen: false }
}

/// Feeds the events and returns the state and every effect in order.
fn play(state: State, script: &[(&Wanted, Event)]) -> (State, Vec<Effect>) {
    let mut effects = Vec::new();
    let end = script.iter().fold(state, |state, (wanted, event)| {
        let (state, effect) = step(state, wanted, event.clone(), NOW);
        effects.extend(effect);
        state
    });
    (end, effects)
}

fn phase(state: &State) -> (u32, u32, Phase) {
    let p = state.observed.progress;
    (p.run, p.restart, p.phase)
}

#[test]
fn a_run_goes_from_create_to_exit_and_gives_back_what_it_held() {
    let (created, run) = (wanted(Desired::Created), running(1));
    let (state, effects) = play(
        State::new(),
        &[
            (&created, Event::Look),
            (&created, Event::Prepared),
            (&run, Event::Look),
            (&run, started()),
            (&run, Event::Look),
            (&run, exited(3)),
            (&run, Event::Released),
            (&run, Event::Look),
        ],
    );
    assert_eq!(effects, [Effect::Prepare, Effect::Start { run: 1, restart: 0 }, Effect::Release]);
    assert_eq!(phase(&state), (1, 0, Phase::Exited));
    assert_eq!(state.observed.exit.map(|e| e.code), Some(3));
}

#[test]
fn a_start_that_comes_before_the_image_waits_for_it() {
    let run = running(1);
    let (state, effects) = play(State::new(), &[(&run, Event::Look), (&run, Event::Look), (&run, Event::Prepared)]);
    assert_eq!(effects, [Effect::Prepare, Effect::Start { run: 1, restart: 0 }]);
    assert_eq!(phase(&state), (1, 0, Phase::Starting));
}

#[test]
fn an_image_that_cannot_be_had_stays_in_preparing_until_a_start_reports_it() {
    let (created, run) = (wanted(Desired::Created), running(1));
    let failed = Event::PrepareFailed("no space left on device".into());
    let (state, effects) =
        play(State::new(), &[(&created, Event::Look), (&created, failed.clone()), (&created, Event::Look)]);
    assert_eq!(effects, [Effect::Prepare]);
    assert_eq!(phase(&state), (0, 0, Phase::Preparing));
    assert_eq!(state.observed.prepare_error.as_deref(), Some("no space left on device"));
    let (state, effects) = play(state, &[(&run, Event::Look), (&run, failed)]);
    // Each start tries once more: the disk may have been cleared.
    assert_eq!(effects, [Effect::Prepare, Effect::Release]);
    let told = state.observed.exit.clone().expect("told");
    assert_eq!(
        (phase(&state), told.code, told.error.as_str()),
        ((1, 0, Phase::Exited), 128, "no space left on device")
    );
}

#[test]
fn stop_signals_once_and_kills_when_the_grace_is_over() {
    let (run, stop) = (running(1), stopped(1, 5));
    let (state, _) = play(State::new(), &[(&run, Event::Look), (&run, Event::Prepared), (&run, started())]);
    let of = state.observed.progress;
    let (_, effects) = play(
        state.clone(),
        &[(&stop, Event::Look), (&stop, Event::Look), (&stop, Event::GraceOver(of)), (&stop, Event::GraceOver(of))],
    );
    let signal = Effect::Signal { signal: "SIGTERM".into(), grace: Some(Duration::from_secs(5)) };
    assert_eq!(effects, [signal, Effect::KillAll]);
    let for_ever = stopped(1, -1);
    let (_, effects) = play(state, &[(&for_ever, Event::Look)]);
    assert_eq!(effects, [Effect::Signal { signal: "SIGTERM".into(), grace: None }]);
}

#[test]
fn a_freeze_is_a_revision_and_ends_with_the_run() {
    let run = running(1);
    let (state, _) = play(State::new(), &[(&run, Event::Look), (&run, Event::Prepared), (&run, started())]);
    let (paused, effects) = play(state, &[(&run, Event::Frozen(true)), (&run, Event::Frozen(true))]);
    assert!(effects.is_empty());
    assert_eq!((paused.observed.paused, paused.observed.revision), (true, 1));
    let adopted = Event::Started { pid: 7, started_at: NOW, frozen: true };
    let (again, _) = play(State { unseen: true, ..paused.clone() }, &[(&run, Event::Look), (&run, adopted)]);
    assert_eq!((again.observed.paused, again.observed.revision), (true, 1), "an adopted one is as it was");
    let (over, _) = play(paused, &[(&run, exited(137)), (&run, Event::Frozen(true))]);
    assert!(!over.observed.paused, "what does not run is not frozen");
}

fn checked(run: u32) -> Wanted {
    let check = Healthcheck {
        command: vec!["true".into()],
        interval_ms: 1_000,
        timeout_ms: 1_000,
        start_period_ms: 0,
        start_interval_ms: 1_000,
        retries: 1,
    };
    Wanted { healthcheck: Some(check), ..running(run) }
}

fn probed(exit_code: i32) -> Event {
    Event::Probed(HealthProbe { started_at: NOW, finished_at: NOW, exit_code, output: String::new() })
}

#[test]
fn health_begins_with_the_run_and_every_probe_is_a_revision() {
    let run = checked(1);
    let verdict = |state: &State| state.observed.health.as_ref().map(|health| health.status);
    let (state, _) = play(State::new(), &[(&run, Event::Look), (&run, Event::Prepared), (&run, probed(0))]);
    assert_eq!(verdict(&state), None, "what does not run is not probed");
    let (state, effects) = play(state, &[(&run, started())]);
    assert_eq!((verdict(&state), state.observed.revision), (Some(HealthStatus::Starting), 0));
    assert!(effects.is_empty());
    let (state, _) = play(state, &[(&run, probed(0)), (&run, probed(0))]);
    assert_eq!((verdict(&state), state.observed.revision), (Some(HealthStatus::Healthy), 2));
    let (paused, _) = play(state.clone(), &[(&run, Event::Frozen(true)), (&run, probed(1))]);
    assert_eq!((verdict(&paused), paused.observed.revision), (Some(HealthStatus::Healthy), 3), "it stands still");

    let read: State = serde_json::from_str(&serde_json::to_string(&state).expect("is JSON")).expect("reads back");
    let (adopted, _) = play(read, &[(&run, Event::Look), (&run, started())]);
    assert_eq!((verdict(&adopted), adopted.observed.revision), (Some(HealthStatus::Healthy), 2));

    let (ended, _) = play(state, &[(&run, exited(1)), (&run, probed(1)), (&run, Event::Released)]);
    assert_eq!(ended.observed.revision, 2, "it has ended");
    let again = checked(2);
    let (state, _) = play(ended, &[(&again, Event::Look), (&again, started())]);
    assert_eq!(verdict(&state), Some(HealthStatus::Starting));
    assert_eq!(verdict(&play(State::new(), &[(&running(1), Event::Look), (&running(1), started())]).0), None);
}

#[test]
fn the_oom_killers_visits_are_counted_anew_in_every_run() {
    let run = running(1);
    let (state, _) = play(State::new(), &[(&run, Event::Look), (&run, Event::Prepared), (&run, started())]);
    let (hit, _) = play(state, &[(&run, Event::OomKills(2)), (&run, Event::OomKills(2)), (&run, Event::OomKills(1))]);
    assert_eq!((hit.observed.oom_kills, hit.observed.revision), (2, 1));
    let (over, _) = play(hit, &[(&run, exited(137)), (&run, Event::OomKills(3)), (&run, Event::Released)]);
    assert_eq!(over.observed.oom_kills, 2, "what is over is told by its exit");
    let again = running(2);
    let (next, _) = play(over, &[(&again, Event::Look), (&again, Event::Prepared)]);
    assert_eq!((next.observed.progress.run, next.observed.oom_kills), (2, 0));
}

#[test]
fn who_loses_the_ground_is_ended_with_the_reason_and_may_be_restarted() {
    let always = Wanted { restart: RestartPolicy::Always, ..running(1) };
    let (state, _) = play(State::new(), &[(&always, Event::Look), (&always, Event::Prepared), (&always, started())]);
    let lost = Event::Undermined("its root is gone".into());
    let (state, effects) = play(state, &[(&always, lost.clone()), (&always, lost), (&always, exited(137))]);
    assert_eq!(effects, [Effect::KillAll, Effect::Release]);
    assert_eq!(state.observed.exit.as_ref().map(|e| e.error.as_str()), Some("its root is gone"));
    let (_, effects) = play(state, &[(&always, Event::Released)]);
    assert!(matches!(effects[..], [Effect::WaitToRestart { .. }]), "{effects:?}");
}

#[test]
fn the_grace_of_an_earlier_run_kills_nobody() {
    let run = running(2);
    let mut state = State::new();
    state.prepared = true;
    let (state, effects) = play(
        state,
        &[
            (&run, Event::Look),
            (&run, started()),
            (&run, Event::GraceOver(Progress { run: 1, restart: 0, phase: Phase::Running })),
        ],
    );
    assert_eq!(effects, [Effect::Start { run: 2, restart: 0 }]);
    assert_eq!(phase(&state), (2, 0, Phase::Running));
}

#[test]
fn a_stop_that_overtakes_its_start_ends_the_run_without_beginning_it() {
    let (state, effects) = play(State::new(), &[(&stopped(1, 10), Event::Look)]);
    assert_eq!(effects, [Effect::Release]);
    assert_eq!(phase(&state), (1, 0, Phase::Exited));
    assert!(state.observed.exit.is_some_and(|e| e.never_started()));
}

#[test]
fn a_stop_during_the_start_waits_for_it() {
    let (run, stop) = (running(1), stopped(1, 10));
    let (_, effects) =
        play(State::new(), &[(&run, Event::Look), (&run, Event::Prepared), (&stop, Event::Look), (&stop, started())]);
    assert_eq!(effects.len(), 3);
    assert!(matches!(effects[2], Effect::Signal { .. }));
}

#[test]
fn removal_kills_first_and_deletes_after_the_exit() {
    let (run, gone) = (running(1), wanted(Desired::Removed));
    let (state, effects) = play(
        State::new(),
        &[
            (&run, Event::Look),
            (&run, Event::Prepared),
            (&gone, Event::Look),
            (&gone, started()),
            (&gone, Event::Look),
            (&gone, exited(137)),
            (&gone, Event::Removed),
            (&gone, Event::Look),
        ],
    );
    assert_eq!(effects[2..], [Effect::KillAll, Effect::Remove]);
    assert_eq!(phase(&state), (1, 0, Phase::Removed));
}

#[test]
fn removal_does_not_wait_for_a_download() {
    let (created, gone) = (wanted(Desired::Created), wanted(Desired::Removed));
    let (_, effects) = play(State::new(), &[(&created, Event::Look), (&gone, Event::Look)]);
    assert_eq!(effects, [Effect::Prepare, Effect::Remove]);
}

#[test]
fn auto_remove_deletes_right_after_the_exit() {
    let run = Wanted { auto_remove: true, ..running(1) };
    let (state, effects) = play(
        State::new(),
        &[(&run, Event::Look), (&run, Event::Prepared), (&run, started()), (&run, exited(0)), (&run, Event::Removed)],
    );
    assert_eq!(effects[2..], [Effect::Remove]);
    assert_eq!(phase(&state), (1, 0, Phase::Removed));
}

#[test]
fn on_failure_restarts_within_the_run_until_it_has_tried_enough() {
    let run = Wanted { restart: RestartPolicy::OnFailure { max_retries: 1 }, ..running(1) };
    let (state, _) =
        play(State::new(), &[(&run, Event::Look), (&run, Event::Prepared), (&run, started()), (&run, exited(1))]);
    let of = state.observed.progress;
    let (state, effects) = play(
        state,
        &[
            (&run, Event::Released),
            (&run, Event::RestartDue(of)),
            (&run, started()),
            (&run, exited(1)),
            (&run, Event::Released),
        ],
    );
    let wait = Effect::WaitToRestart { delay: Duration::from_millis(100) };
    assert_eq!(effects, [wait, Effect::Start { run: 1, restart: 1 }, Effect::Release]);
    assert_eq!(phase(&state), (1, 1, Phase::Exited));
}

#[test]
fn a_run_that_the_user_killed_or_that_never_started_is_not_restarted() {
    let run = Wanted { restart: RestartPolicy::Always, ..running(1) };
    let begin = [(&run, Event::Look), (&run, Event::Prepared), (&run, started())];
    let (state, _) = play(State::new(), &begin);
    let (_, effects) = play(state, &[(&run, Event::EndedByUser), (&run, exited(137)), (&run, Event::Released)]);
    assert_eq!(effects, [Effect::Release]);
    let (state, _) = play(State::new(), &begin[..2]);
    let missing = Event::Exited { exit: Exit { error: "not found".into(), ..exit(127) }, started_at: None };
    let (_, effects) = play(state, &[(&run, missing), (&run, Event::Released)]);
    assert_eq!(effects, [Effect::Release]);
}

#[test]
fn a_stop_takes_back_a_pending_restart() {
    let run = Wanted { restart: RestartPolicy::Always, ..running(1) };
    let (state, _) = play(
        State::new(),
        &[(&run, Event::Look), (&run, Event::Prepared), (&run, started()), (&run, exited(0)), (&run, Event::Released)],
    );
    assert_eq!(state.busy, Busy::WaitingToRestart);
    let of = state.observed.progress;
    let (_, effects) = play(state, &[(&stopped(1, 1), Event::Look), (&stopped(1, 1), Event::RestartDue(of))]);
    assert_eq!(effects, []);
}

#[test]
fn a_restarted_agent_adopts_before_it_decides_anything() {
    let run = running(1);
    let (state, _) = play(State::new(), &[(&run, Event::Look), (&run, Event::Prepared), (&run, started())]);
    let text = serde_json::to_string(&state).expect("is JSON");
    let read: State = serde_json::from_str(&text).expect("reads back");
    let gone = wanted(Desired::Removed);
    let (state, effects) = play(read, &[(&gone, Event::Look), (&gone, Event::Look), (&gone, exited(137))]);
    assert_eq!(effects, [Effect::Adopt, Effect::Remove]);
    assert_eq!(phase(&state), (1, 0, Phase::Exited));
}

#[test]
fn a_start_that_never_reached_the_runtime_is_made_again() {
    let run = running(1);
    let (state, _) = play(State::new(), &[(&run, Event::Look), (&run, Event::Prepared)]);
    let read: State = serde_json::from_str(&serde_json::to_string(&state).expect("is JSON")).expect("reads back");
    let (_, effects) = play(read, &[(&run, Event::Look), (&run, Event::NeverStarted), (&run, Event::Prepared)]);
    assert_eq!(effects, [Effect::Adopt, Effect::Prepare, Effect::Start { run: 1, restart: 0 }]);
}

fn any_wanted() -> impl Strategy<Value = Wanted> {
    let desired = prop_oneof![
        Just(Desired::Created),
        (1_u32..4).prop_map(|run| Desired::Running { run }),
        (1_u32..4, -1_i64..3).prop_map(|(run, timeout_s)| Desired::Stopped { run, signal: "TERM".into(), timeout_s }),
        Just(Desired::Removed),
    ];
    let policy = prop_oneof![Just(RestartPolicy::No), Just(RestartPolicy::Always)];
    (desired, policy, any::<bool>()).prop_map(|(desired, restart, auto_remove)| Wanted {
        desired,
        restart,
        auto_remove,
        healthcheck: None,
    })
}

/// The outcome of the effect under way, good or bad.
fn outcome(effect: &Effect, good: bool, state: &State) -> Option<Event> {
    match effect {
        Effect::Prepare if good => Some(Event::Prepared),
        Effect::Prepare => Some(Event::PrepareFailed("no".into())),
        Effect::Adopt | Effect::Start { .. } if good => Some(started()),
        Effect::Adopt => Some(Event::NeverStarted),
        Effect::Start { .. } => Some(Event::Exited { exit: exit(127), started_at: None }),
        Effect::KillAll => Some(exited(137)),
        Effect::Signal { .. } => good.then(|| exited(0)),
        Effect::WaitToRestart { .. } => Some(Event::RestartDue(state.observed.progress)),
        Effect::Release => Some(Event::Released),
        Effect::Remove => Some(Event::Removed),
    }
}

proptest! {
    /// Whatever is wanted in whatever order: progress never goes back, at most one effect is under
    /// way, and a container whose removal stays wanted is removed.
    #[test]
    fn progress_moves_forward_and_removal_always_ends(
        script in proptest::collection::vec((any_wanted(), any::<bool>(), any::<bool>()), 1..40)
    ) {
        let mut state = State::new();
        let mut pending: Option<Event> = None;
        let gone = wanted(Desired::Removed);
        let tail = std::iter::repeat_n((gone, true, true), 12);
        for (want, deliver, good) in script.into_iter().chain(tail) {
            let event = if deliver { pending.take().unwrap_or(Event::Look) } else { Event::Look };
            let before = state.observed.progress;
            let (next, effect) = step(state, &want, event, NOW);
            prop_assert!(next.observed.progress >= before);
            state = next;
            if let Some(effect) = effect {
                let replaced = matches!(effect, Effect::Remove | Effect::KillAll | Effect::Release | Effect::Prepare | Effect::Start { .. } | Effect::Signal { .. });
                prop_assert!(pending.is_none() || replaced, "{effect:?} beside {pending:?}");
                pending = outcome(&effect, good, &state).or(pending);
            }
        }
        prop_assert_eq!(state.observed.progress.phase, Phase::Removed);
    }
}
