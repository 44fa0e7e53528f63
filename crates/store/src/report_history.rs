//! What the project's history says about a report: from how far a container was known to have come
//! and how far it has come now, the events in between. Pure. Reports may be coalesced, so a step
//! that was never seen on its own is still told once, in order.

use std::{borrow::Cow, collections::BTreeMap};

use model::{
    ContainerId, ContainerName, Desired, EventKind, ExecId, Exit, HealthStatus, NetworkId, Observed, Phase, Progress,
    RestartPolicy, VolumeMount, VolumeName,
};
use serde::Deserialize;
use time::OffsetDateTime;

/// A container as it was known before the report.
#[derive(Clone, Debug)]
pub(crate) struct Before {
    pub(crate) id: ContainerId,
    pub(crate) name: ContainerName,
    pub(crate) image: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) restart: RestartPolicy,
    pub(crate) desired: Desired,
    pub(crate) progress: Progress,
    pub(crate) started_at: Option<OffsetDateTime>,
    pub(crate) paused: bool,
    pub(crate) oom_kills: u32,
    pub(crate) health: Option<HealthStatus>,
    /// Its networks.
    pub(crate) networks: Vec<OnNetwork>,
    /// Its volumes.
    pub(crate) volumes: Vec<VolumeMount>,
    /// The volumes that were made for it go with it.
    pub(crate) drops_volumes: bool,
}

/// A network a container is on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct OnNetwork {
    pub(crate) id: NetworkId,
    pub(crate) name: String,
    pub(crate) driver: String,
}

/// An event without its place in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) kind: EventKind,
    pub(crate) action: Cow<'static, str>,
    pub(crate) actor: String,
    pub(crate) attributes: BTreeMap<String, String>,
}

/// The events between `before` and `now`, in order.
pub(crate) fn history(before: &Before, now: &Observed) -> Vec<Told> {
    let (was, is) = (before.progress, now.progress);
    let same_attempt = (was.run, was.restart) == (is.run, is.restart);
    let was_running = was.phase == Phase::Running;
    let mut told = Vec::new();
    // The earlier attempt's end was not seen. While the later one has not ended, `exit` is the earlier one's.
    let end_unseen = was_running && (!same_attempt && is.phase < Phase::Exited || is.phase == Phase::Removed);
    if end_unseen && let Some(exit) = &now.exit {
        let oom_told = before.oom_kills > 0 && (same_attempt || is.phase < Phase::Exited);
        told.extend(ended(before, exit, before.started_at, oom_told));
    }
    // A removal tells of no start: what was removed unseen was never of interest to anybody.
    let has_started = now.started_at.is_some() && matches!(is.phase, Phase::Running | Phase::Exited);
    if has_started && !(same_attempt && was.phase >= Phase::Running) && !failed_to_start(now) {
        told.extend(before.volumes.iter().map(|mount| volume_mounted(before, mount)));
        told.extend(network_events(before, "connect"));
        told.push(container_event(before, "start", []));
    }
    if is.phase == Phase::Running {
        told.extend(while_running(before, now, same_attempt && was_running));
    }
    if is.phase == Phase::Exited
        && let Some(exit) = &now.exit
    {
        let oom_told = same_attempt && before.oom_kills > 0;
        told.extend(ended(before, exit, now.started_at.or(before.started_at), oom_told));
    }
    if is.phase == Phase::Removed {
        told.push(container_event(before, "destroy", []));
    }
    told
}

/// Whether a run that ended as `now` says is over for good: the host will not start it again by
/// itself. Only then are its ports free.
pub(crate) fn run_is_over(before: &Before, now: &Observed) -> bool {
    if now.progress.phase != Phase::Exited {
        return now.progress.phase == Phase::Removed;
    }
    let still_wanted = matches!(before.desired, Desired::Running { run } if run == now.progress.run);
    if !still_wanted || failed_to_start(now) {
        return true;
    }
    match before.restart {
        RestartPolicy::No => true,
        RestartPolicy::Always | RestartPolicy::UnlessStopped => false,
        RestartPolicy::OnFailure { max_retries } => {
            now.exit.as_ref().is_some_and(|exit| exit.code == 0)
                || (max_retries > 0 && now.progress.restart >= max_retries)
        }
    }
}

/// What happened to a container that goes on running. Of an attempt not seen before everything is new.
fn while_running(before: &Before, now: &Observed, seen: bool) -> Vec<Told> {
    let mut told = Vec::new();
    if now.oom_kills > if seen { before.oom_kills } else { 0 } {
        told.push(container_event(before, "oom", []));
    }
    if now.paused != (seen && before.paused) {
        told.push(container_event(before, if now.paused { "pause" } else { "unpause" }, []));
    }
    let verdict = now.health.as_ref().map(|health| health.status);
    if let Some(status) = verdict.filter(|s| *s != HealthStatus::Starting && !(seen && before.health == Some(*s))) {
        told.push(container_event(before, format!("health_status: {}", status.as_str()), []));
    }
    told
}

fn failed_to_start(now: &Observed) -> bool {
    now.progress.phase == Phase::Exited && now.exit.as_ref().is_some_and(Exit::never_started)
}

/// `oom_told`: the history has a kill of this attempt already.
fn ended(before: &Before, exit: &Exit, started_at: Option<OffsetDateTime>, oom_told: bool) -> Vec<Told> {
    let mut told: Vec<Told> = network_events(before, "disconnect").collect();
    if started_at.is_some() {
        told.extend(before.volumes.iter().map(|mount| volume_unmounted(before, mount)));
    }
    if exit.oom_killed && !oom_told {
        told.push(container_event(before, "oom", []));
    }
    let lasted = started_at.map_or(0, |start| (exit.finished_at - start).whole_seconds().max(0));
    let code = exit.code.to_string();
    told.push(container_event(before, "die", [("execDuration", lasted.to_string()), ("exitCode", code)]));
    told
}

fn container_event<const N: usize>(
    before: &Before,
    action: impl Into<Cow<'static, str>>,
    more: [(&str, String); N],
) -> Told {
    // Labels first: they cannot pass themselves off as what the platform says.
    let mut attributes = before.labels.clone();
    attributes.insert("image".to_owned(), before.image.clone());
    attributes.insert("name".to_owned(), before.name.as_str().to_owned());
    attributes.extend(more.map(|(key, value)| (key.to_owned(), value)));
    Told { kind: EventKind::Container, action: action.into(), actor: before.id.as_str().to_owned(), attributes }
}

/// The end of an exec.
pub(crate) fn exec_died(before: &Before, exec: &ExecId, exit_code: i32) -> Told {
    let more = [("execID", exec.as_str().to_owned()), ("exitCode", exit_code.to_string())];
    container_event(before, "exec_die", more)
}

fn volume_mounted(before: &Before, mount: &VolumeMount) -> Told {
    let more = [
        ("container", before.id.to_string()),
        ("destination", mount.path.clone()),
        ("propagation", String::new()),
        ("read/write", (!mount.read_only).to_string()),
    ];
    volume_event(&mount.name, "mount", more)
}

fn volume_unmounted(before: &Before, mount: &VolumeMount) -> Told {
    volume_event(&mount.name, "unmount", [("container", before.id.to_string())])
}

/// dockerd names a volume by its name, in this place too.
pub(crate) fn volume_event<const N: usize>(name: &VolumeName, action: &'static str, more: [(&str, String); N]) -> Told {
    let mut attributes: BTreeMap<_, _> = more.map(|(key, value)| (key.to_owned(), value)).into();
    attributes.insert("driver".to_owned(), "local".to_owned());
    Told { kind: EventKind::Volume, action: action.into(), actor: name.to_string(), attributes }
}

fn network_events(before: &Before, action: &'static str) -> impl Iterator<Item = Told> {
    before.networks.iter().map(move |network| {
        let attributes = BTreeMap::from([
            ("container".to_owned(), before.id.as_str().to_owned()),
            ("name".to_owned(), network.name.clone()),
            ("type".to_owned(), network.driver.clone()),
        ]);
        let actor = network.id.as_str().to_owned();
        Told { kind: EventKind::Network, action: action.into(), actor, attributes }
    })
}

#[cfg(test)]
mod tests {
    use model::Health;
    use time::macros::datetime;

    use super::*;

    const START: OffsetDateTime = datetime!(2026-01-01 00:00:00 UTC);
    const END: OffsetDateTime = datetime!(2026-01-01 00:00:21.9 UTC);

    fn before(run: u32, restart: u32, phase: Phase) -> Before {
        Before {
            id: ContainerId::from_bytes([1; 32]),
            name: "s1".parse().expect("a name"),
            image: "alpine:latest".into(),
            labels: BTreeMap::from([("a".into(), "b".into()), ("name".into(), "forged".into())]),
            restart: RestartPolicy::No,
            desired: Desired::Running { run },
            progress: Progress { run, restart, phase },
            started_at: (phase == Phase::Running).then_some(START),
            paused: false,
            oom_kills: 0,
            health: None,
            networks: Vec::new(),
            volumes: Vec::new(),
            drops_volumes: false,
        }
    }

    fn now(run: u32, restart: u32, phase: Phase) -> Observed {
        let started = phase >= Phase::Running;
        let exit = Exit { code: 137, oom_killed: false, error: String::new(), finished_at: END };
        Observed {
            started_at: started.then_some(START),
            exit: (phase >= Phase::Exited || restart > 0).then_some(exit),
            ..Observed::at(Progress { run, restart, phase })
        }
    }

    fn actions(before: &Before, now: &Observed) -> Vec<Cow<'static, str>> {
        history(before, now).into_iter().map(|told| told.action).collect()
    }

    #[test]
    fn a_die_event_has_dockers_attributes_and_labels_cannot_forge_them() {
        let told = history(&before(1, 0, Phase::Running), &now(1, 0, Phase::Exited));
        let text: Vec<String> = told[0].attributes.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(text, ["a=b", "execDuration=21", "exitCode=137", "image=alpine:latest", "name=s1"]);
        assert_eq!((told.len(), &*told[0].action), (1, "die"));
    }

    #[test]
    fn a_run_too_short_to_be_seen_running_still_started_and_died() {
        assert_eq!(actions(&before(1, 0, Phase::Starting), &now(1, 0, Phase::Exited)), ["start", "die"]);
        assert_eq!(actions(&before(0, 0, Phase::Created), &now(1, 0, Phase::Exited)), ["start", "die"]);
    }

    #[test]
    fn preparing_and_starting_are_not_told() {
        assert!(actions(&before(0, 0, Phase::Pending), &now(0, 0, Phase::Preparing)).is_empty());
        assert!(actions(&before(0, 0, Phase::Created), &now(1, 0, Phase::Starting)).is_empty());
    }

    #[test]
    fn a_restart_by_the_host_is_an_end_and_a_start() {
        assert_eq!(actions(&before(1, 0, Phase::Running), &now(1, 1, Phase::Running)), ["die", "start"]);
        assert_eq!(actions(&before(1, 0, Phase::Exited), &now(1, 1, Phase::Running)), ["start"]);
    }

    #[test]
    fn what_could_not_be_started_never_started() {
        let mut failed = now(1, 0, Phase::Exited);
        failed.exit = failed.exit.map(|exit| Exit { error: "exec: no such file".into(), code: 127, ..exit });
        assert_eq!(actions(&before(1, 0, Phase::Starting), &failed), ["die"]);
    }

    #[test]
    fn oom_is_told_before_the_death_and_networks_around_the_run() {
        let mut start = before(1, 0, Phase::Starting);
        start.networks =
            vec![OnNetwork { id: NetworkId::from_bytes([2; 32]), name: "bridge".into(), driver: "bridge".into() }];
        let mut killed = now(1, 0, Phase::Exited);
        killed.exit = killed.exit.map(|exit| Exit { oom_killed: true, ..exit });
        assert_eq!(actions(&start, &killed), ["connect", "start", "disconnect", "oom", "die"]);
        start.volumes = vec![VolumeMount {
            volume: model::VolumeId::from_bytes([3; 32]),
            name: "sv1".parse().expect("a name"),
            backing: model::VolumeBacking::Directory,
            path: "/data".into(),
            subpath: String::new(),
            read_only: false,
            no_copy: false,
            anonymous: false,
            shown_mode: "z".into(),
        }];
        let told = history(&start, &killed);
        let order: Vec<&str> = told.iter().map(|told| told.action.as_ref()).collect();
        assert_eq!(
            order,
            ["mount", "connect", "start", "disconnect", "unmount", "oom", "die"],
            "as dockerd tells them"
        );
        let text: Vec<String> = told[0].attributes.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let container = format!("container={}", start.id);
        assert_eq!(text, [&container, "destination=/data", "driver=local", "propagation=", "read/write=true"]);
        assert_eq!((told[0].actor.as_str(), told[4].attributes.len()), ("sv1", 2));
    }

    #[test]
    fn an_oom_kill_is_told_once_an_attempt_whenever_it_is_seen() {
        let hit = Observed { oom_kills: 1, revision: 1, ..now(1, 0, Phase::Running) };
        assert_eq!(actions(&before(1, 0, Phase::Running), &hit), ["oom"]);
        assert_eq!(actions(&before(1, 0, Phase::Created), &hit), ["start", "oom"]);
        let known = Before { oom_kills: 1, ..before(1, 0, Phase::Running) };
        assert!(actions(&known, &hit).is_empty());
        let end = |restart| {
            let mut killed = Observed { oom_kills: 1, ..now(1, restart, Phase::Exited) };
            killed.exit = killed.exit.map(|exit| Exit { oom_killed: true, ..exit });
            killed
        };
        assert_eq!(actions(&known, &end(0)), ["die"]);
        let earlier = Before { progress: Progress { run: 1, restart: 0, phase: Phase::Exited }, ..known };
        assert_eq!(actions(&earlier, &end(1)), ["start", "oom", "die"], "of an attempt not seen before");
        let ran = Before { progress: Progress { run: 1, restart: 0, phase: Phase::Running }, ..earlier };
        let removed = Observed { progress: Progress { phase: Phase::Removed, ..end(1).progress }, ..end(1) };
        assert_eq!(actions(&ran, &removed), ["oom", "die", "destroy"], "the later one's, unseen");
    }

    #[test]
    fn a_verdict_is_told_when_it_changes_and_starting_never() {
        let at = |status| {
            let health = Health { status, failing_streak: 0, log: Vec::new() };
            Observed { health: Some(health), ..now(1, 0, Phase::Running) }
        };
        let knew = |health| Before { health, ..before(1, 0, Phase::Running) };
        assert!(actions(&knew(None), &at(HealthStatus::Starting)).is_empty());
        assert_eq!(
            actions(&knew(Some(HealthStatus::Starting)), &at(HealthStatus::Healthy)),
            ["health_status: healthy"]
        );
        assert!(actions(&knew(Some(HealthStatus::Healthy)), &at(HealthStatus::Healthy)).is_empty());
        let worse = actions(&knew(Some(HealthStatus::Healthy)), &at(HealthStatus::Unhealthy));
        assert_eq!(worse, ["health_status: unhealthy"]);
    }

    #[test]
    fn a_removal_of_a_running_container_is_a_death_and_a_destruction() {
        assert_eq!(actions(&before(1, 0, Phase::Running), &now(1, 0, Phase::Removed)), ["die", "destroy"]);
        assert_eq!(actions(&before(1, 0, Phase::Exited), &now(1, 0, Phase::Removed)), ["destroy"]);
        assert_eq!(actions(&before(0, 0, Phase::Created), &now(0, 0, Phase::Removed)), ["destroy"]);
    }

    #[test]
    fn ports_stay_reserved_while_the_host_will_start_it_again() {
        let over = |restart, desired| {
            let before = Before { restart, desired, ..before(1, 0, Phase::Running) };
            run_is_over(&before, &now(1, 0, Phase::Exited))
        };
        let (wanted, stopped) =
            (Desired::Running { run: 1 }, Desired::Stopped { run: 1, signal: String::new(), timeout_s: 1 });
        assert!(over(RestartPolicy::No, wanted.clone()));
        assert!(!over(RestartPolicy::Always, wanted.clone()));
        assert!(!over(RestartPolicy::OnFailure { max_retries: 0 }, wanted.clone()));
        assert!(over(RestartPolicy::Always, stopped));
        assert!(over(RestartPolicy::Always, Desired::Running { run: 2 }), "of a run that is no longer wanted");
    }
}
