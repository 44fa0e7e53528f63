//! What is to be told to the scheduler. Of each container only the furthest observation is kept, so
//! a slow scheduler costs memory for one entry a container. What was sent and not acknowledged is
//! sent again; after a reconnect everything is. Of execs only their ends are told; the record on disk
//! stays until that has been taken note of.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chassis::{backoff::Backoff, client::Internal};
use contract::host::{ContainerReport, EXECS_MAX, ExecReport, HEARTBEAT_INTERVAL_MS, HostReport, HostRuntime, REPORT};
use model::{ContainerId, ExecId, HostCapacity, Observed, Phase, VolumeId};
use tokio::sync::Notify;

/// What is to be told.
#[derive(Clone, Default)]
pub(crate) struct Reports(Arc<Inner>);

#[derive(Default)]
struct Inner {
    book: Mutex<Book>,
    /// Something is worth a report of its own.
    urgent: Notify,
    /// Something is worth one soon.
    leisurely: Notify,
}

#[derive(Default)]
struct Book {
    latest: BTreeMap<ContainerId, Observed>,
    untold: BTreeSet<ContainerId>,
    removed_volumes: BTreeSet<VolumeId>,
    /// Ends of execs, until they have been taken note of.
    execs: BTreeMap<ExecId, ExecReport>,
    generation: i64,
    runtimes: Vec<HostRuntime>,
}

/// How long news wait for company that nobody waits for.
const SOON: Duration = Duration::from_secs(1);

/// Nothing but further probes with the same verdict.
fn only_probed(before: &Observed, now: &Observed) -> bool {
    let same_verdict = match (&before.health, &now.health) {
        (Some(before), Some(now)) => before.status == now.status && before.log != now.log,
        (None, _) | (_, None) => false,
    };
    same_verdict && *before == Observed { health: before.health.clone(), revision: before.revision, ..now.clone() }
}

/// What has been taken note of, durably.
#[derive(Debug)]
pub(crate) enum Noted {
    /// Nothing is left of a container.
    Removed(ContainerId),
    /// An exec of a container is over.
    ExecEnded(ContainerId, ExecId),
}

/// Who wants to know.
pub(crate) type Acknowledged = Box<dyn Fn(Noted) + Send + Sync>;

impl Reports {
    /// A container moved. Phases nobody waits for ride along with the next report; so do, for a
    /// second, probes that changed no verdict: a host may have a hundred of them in it.
    ///
    /// `leaving`: it is about to be removed, so its end is told with that, and costs no report of its own.
    pub(crate) fn moved(&self, id: &ContainerId, observed: &Observed, leaving: bool) {
        let awaited = match observed.progress.phase {
            Phase::Pending | Phase::Starting => false,
            Phase::Preparing => observed.prepare_error.is_some(),
            Phase::Exited => !leaving,
            Phase::Created | Phase::Running | Phase::Removed => true,
        };
        let before = self.edit(|book| {
            book.untold.insert(id.clone());
            book.latest.insert(id.clone(), observed.clone())
        });
        if before.is_some_and(|before| only_probed(&before, observed)) {
            self.0.leisurely.notify_one();
        } else if awaited {
            self.0.urgent.notify_one();
        }
    }

    /// Nothing is left of a volume.
    pub(crate) fn volume_removed(&self, id: &VolumeId) {
        self.edit(|book| book.removed_volumes.insert(id.clone()));
        self.0.urgent.notify_one();
    }

    /// An exec is over. Of two tellings the first counts.
    pub(crate) fn exec_ended(&self, exec: ExecReport) {
        self.edit(|book| {
            book.execs.entry(exec.id.clone()).or_insert(exec);
        });
        self.0.urgent.notify_one();
    }

    /// The OCI runtimes of this host.
    pub(crate) fn runtimes_are(&self, runtimes: Vec<HostRuntime>) {
        self.edit(|book| book.runtimes = runtimes);
    }

    /// A generation was applied.
    pub(crate) fn reached(&self, generation: i64) {
        self.edit(|book| book.generation = generation);
    }

    /// The connection is new: the other side may have missed anything.
    pub(crate) fn tell_all(&self) {
        self.edit(|book| book.untold = book.latest.keys().cloned().collect());
        self.0.urgent.notify_one();
    }

    /// Sends for as long as the agent lives.
    pub(crate) async fn send(self, scheduler: Internal, capacity: HostCapacity, acknowledged: Acknowledged) {
        let heartbeat = Duration::from_millis(HEARTBEAT_INTERVAL_MS);
        let scheduler = scheduler.with_timeout(Duration::from_secs(10));
        let mut backoff = Backoff::new(Duration::from_millis(100), heartbeat);
        loop {
            let report = self.take(capacity);
            match scheduler.post::<_, ()>(REPORT, &report).await {
                Ok(()) => {
                    backoff.reset();
                    self.edit(|book| book.removed_volumes.retain(|id| !report.removed_volumes.contains(id)));
                    let removed = report.containers.iter().filter(|c| c.observed.progress.phase == Phase::Removed);
                    for container in removed {
                        self.edit(|book| book.latest.remove(&container.id));
                        acknowledged(Noted::Removed(container.id.clone()));
                    }
                    for exec in &report.execs {
                        self.edit(|book| book.execs.remove(&exec.id));
                        acknowledged(Noted::ExecEnded(exec.container.clone(), exec.id.clone()));
                    }
                    // Returns at once if something moved while the report was under way.
                    if report.execs.len() < EXECS_MAX {
                        _ = tokio::time::timeout(heartbeat, self.news()).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, containers = report.containers.len(), "the scheduler did not take a report");
                    self.put_back(&report);
                    backoff.wait().await;
                }
            }
        }
    }

    async fn news(&self) {
        let soon = async {
            self.0.leisurely.notified().await;
            tokio::time::sleep(SOON).await;
        };
        tokio::select! {
            () = self.0.urgent.notified() => {}
            () = soon => {}
        }
    }

    fn take(&self, capacity: HostCapacity) -> HostReport {
        self.edit(|book| {
            let untold = std::mem::take(&mut book.untold);
            let containers = untold
                .into_iter()
                .filter_map(|id| Some(ContainerReport { observed: book.latest.get(&id)?.clone(), id }))
                .collect();
            let removed_volumes = book.removed_volumes.iter().cloned().collect();
            let execs = book.execs.values().take(EXECS_MAX).cloned().collect();
            let runtimes = Some(book.runtimes.clone());
            HostReport { generation: book.generation, capacity, containers, removed_volumes, execs, runtimes }
        })
    }

    fn put_back(&self, report: &HostReport) {
        self.edit(|book| book.untold.extend(report.containers.iter().map(|c| c.id.clone())));
    }

    fn edit<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        change(&mut self.0.book.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use model::{Health, HealthProbe, HealthStatus, Progress};

    use super::*;

    fn observed(phase: Phase) -> Observed {
        Observed::at(Progress { run: 1, restart: 0, phase })
    }

    #[test]
    fn what_was_not_acknowledged_is_told_again_in_its_latest_form() {
        let reports = Reports::default();
        let id = ContainerId::from_bytes([1; 32]);
        reports.moved(&id, &observed(Phase::Running), false);
        let lost = reports.take(HostCapacity::default());
        assert_eq!(lost.containers.len(), 1);
        assert!(reports.take(HostCapacity::default()).containers.is_empty());
        reports.moved(&id, &observed(Phase::Exited), false);
        reports.put_back(&lost);
        let again = reports.take(HostCapacity::default());
        let phases: Vec<_> = again.containers.iter().map(|c| c.observed.progress.phase).collect();
        assert_eq!(phases, [Phase::Exited]);
        reports.tell_all();
        assert_eq!(reports.take(HostCapacity::default()).containers.len(), 1);
    }

    #[test]
    fn the_end_of_an_exec_is_told_until_it_has_been_heard_and_the_first_telling_counts() {
        let reports = Reports::default();
        let id: ExecId = "e".repeat(64).parse().expect("an id");
        let ended = |exit_code| ExecReport {
            id: id.clone(),
            container: ContainerId::from_bytes([1; 32]),
            exit_code,
            ran: true,
        };
        reports.exec_ended(ended(7));
        reports.exec_ended(ended(137));
        for _ in 0..2 {
            assert_eq!(reports.take(HostCapacity::default()).execs, [ended(7)]);
        }
    }

    #[test]
    fn probes_that_change_no_verdict_may_wait_and_nothing_else_may() {
        let healthy = |output: &str| {
            let at = time::OffsetDateTime::UNIX_EPOCH;
            let probe = HealthProbe { started_at: at, finished_at: at, exit_code: 0, output: output.into() };
            let health = Health { status: HealthStatus::Healthy, failing_streak: 0, log: vec![probe] };
            Observed { health: Some(health), ..observed(Phase::Running) }
        };
        let (one, two) = (healthy("1"), healthy("2"));
        assert!(only_probed(&one, &Observed { revision: 1, ..two.clone() }));
        assert!(!only_probed(&one, &Observed { oom_kills: 1, ..two.clone() }));
        assert!(!only_probed(&observed(Phase::Running), &two));
        let mut worse = two;
        worse.health.as_mut().expect("has one").status = HealthStatus::Unhealthy;
        assert!(!only_probed(&one, &worse));
    }
}
