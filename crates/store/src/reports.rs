//! What hosts report, made durable: one transaction per report. Progress only moves forward, by one
//! guard in SQL; where it moved, the project's history is written in the same transaction, so an
//! event is told exactly once however often the report arrives.
//!
//! Lock order, the same as the gateway's: containers (by id), the host, projects (by id).

use std::collections::{BTreeMap, BTreeSet};

use contract::host::{ContainerReport, ExecReport, HostReport};
use model::{
    ContainerId, Desired, Error, HEALTH_LOG_ENTRIES, Health, HealthProbe, HealthStatus, HostId, Observed, Phase,
    Progress, ProjectId, RestartPolicy, Result, VolumeId, VolumeMount,
};
use sqlx::{PgConnection, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Store,
    execs::{Ended, end_execs},
    hosts::note_seen,
    report_history::{Before, OnNetwork, Told, exec_died, history, run_is_over, volume_event},
    store_error,
    stored::{number, parsed},
    volumes::{lock_volumes, remove_unused_volumes},
};

/// Longest text of a host that is kept.
const TEXT_MAX_BYTES: usize = 4_096;

/// What a report changed; whom to wake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Containers that got further.
    pub containers: BTreeSet<ContainerId>,
    /// Projects with new events.
    pub projects: BTreeSet<ProjectId>,
    /// The host itself has something to do because of it.
    pub has_more_to_do: bool,
}

impl Store {
    /// Records a report of `host`. Containers it does not have, and whatever is not news, are passed over.
    ///
    /// # Errors
    /// `Forbidden` if there is no such host any more.
    pub async fn record_report(&self, host: HostId, report: &HostReport) -> Result<Recorded> {
        let newest = newest(&report.containers);
        if !report.removed_volumes.is_empty() {
            self.volumes_gone(host, &report.removed_volumes).await?;
        }
        if newest.is_empty() && report.execs.is_empty() {
            self.host_seen(host, report).await?;
            return Ok(Recorded::default());
        }
        let mut tx = self.service_tx().await?;
        let known = lock_containers(tx.connection(), host, &newest, &report.execs).await?;
        let removed = |id: &ContainerId| newest.get(id).is_some_and(|now| now.progress.phase == Phase::Removed);
        let going = known.iter().filter(|(_, before)| before.drops_volumes && removed(&before.id));
        let made_for = going.map(|(project, before)| (*project, anonymous_volumes(before))).collect::<Vec<_>>();
        // Before the hosts, which the next statement locks.
        lock_volumes(tx.connection(), &made_for.iter().flat_map(|(_, ids)| ids).cloned().collect::<Vec<_>>()).await?;
        let moved =
            if newest.is_empty() { BTreeSet::new() } else { move_forward(tx.connection(), host, &newest).await? };
        let mut ended = execs_ended(tx.connection(), &known, &newest, &moved, &report.execs).await?;
        let mut events = BTreeMap::<ProjectId, Vec<Told>>::new();
        let (mut over, mut gone) = (Vec::new(), Vec::new());
        for (project, before) in known {
            if let Some(ended) = ended.remove(&before.id) {
                // What runs in a container ends before it does.
                let told = ended.iter().map(|exec| exec_died(&before, &exec.id, exec.exit_code));
                events.entry(project).or_default().extend(told);
            }
            let Some(now) = newest.get(&before.id).filter(|_| moved.contains(&before.id)) else { continue };
            let told = history(&before, now);
            if !told.is_empty() {
                events.entry(project).or_default().extend(told);
            }
            if run_is_over(&before, now) {
                over.push((before.id.as_str().to_owned(), i32::try_from(now.progress.run).unwrap_or(i32::MAX)));
            }
            if now.progress.phase == Phase::Removed {
                gone.push(before.id.as_str().to_owned());
            }
        }
        free_ports(tx.connection(), over).await?;
        free_endpoints(tx.connection(), &gone).await?;
        let mut has_more_to_do = false;
        for (project, volumes) in made_for {
            for removed in remove_unused_volumes(tx.connection(), &volumes).await? {
                events.entry(project).or_default().push(volume_event(&removed.name, "destroy", []));
                has_more_to_do = true;
            }
        }
        note_seen(tx.connection(), host, report).await?;
        for (project, told) in &events {
            append(tx.connection(), *project, told).await?;
        }
        tx.commit().await?;
        Ok(Recorded { containers: moved, projects: events.into_keys().collect(), has_more_to_do })
    }

    /// Nothing is left of these on their host.
    async fn volumes_gone(&self, host: HostId, volumes: &[VolumeId]) -> Result<()> {
        let ids: Vec<String> = volumes.iter().map(|id| id.as_str().to_owned()).collect();
        sqlx::query!("DELETE FROM volumes WHERE id = ANY($1) AND host_id = $2 AND removing", &ids, host.0)
            .execute(self.pool())
            .await
            .map_err(store_error)?;
        Ok(())
    }
}

/// Writes down which execs are over, by container; those that never ran are left out, nothing is told of them.
async fn execs_ended(
    connection: &mut PgConnection,
    known: &[(ProjectId, Before)],
    newest: &BTreeMap<ContainerId, Observed>,
    moved: &BTreeSet<ContainerId>,
    reports: &[ExecReport],
) -> Result<BTreeMap<ContainerId, Vec<Ended>>> {
    let name = |(_, before): &(ProjectId, Before)| before.id.as_str().to_owned();
    let is_over =
        |id: &ContainerId| moved.contains(id) && newest.get(id).is_some_and(|now| now.progress.phase >= Phase::Exited);
    let containers: Vec<String> = known.iter().map(name).collect();
    let over: Vec<String> = known.iter().filter(|(_, before)| is_over(&before.id)).map(name).collect();
    let mut by_container = BTreeMap::<ContainerId, Vec<Ended>>::new();
    for exec in end_execs(connection, &containers, reports, &over).await? {
        if exec.ran {
            by_container.entry(exec.container.clone()).or_default().push(exec);
        }
    }
    Ok(by_container)
}

/// The volumes that were made for a container.
fn anonymous_volumes(before: &Before) -> Vec<VolumeId> {
    before.volumes.iter().filter(|mount| mount.anonymous).map(|mount| mount.volume.clone()).collect()
}

/// The furthest observation of each container; of two equal ones the later.
fn newest(reports: &[ContainerReport]) -> BTreeMap<ContainerId, Observed> {
    let mut newest = BTreeMap::<ContainerId, Observed>::new();
    for report in reports {
        let kept = newest.entry(report.id.clone()).or_insert_with(|| report.observed.clone());
        if report.observed.order() >= kept.order() {
            *kept = report.observed.clone();
        }
    }
    newest
}

/// The containers of the report that are the host's and still there, held until the end of the transaction.
async fn lock_containers(
    connection: &mut PgConnection,
    host: HostId,
    newest: &BTreeMap<ContainerId, Observed>,
    execs: &[ExecReport],
) -> Result<Vec<(ProjectId, Before)>> {
    let ids: BTreeSet<&ContainerId> = newest.keys().chain(execs.iter().map(|exec| &exec.container)).collect();
    let ids: Vec<String> = ids.into_iter().map(|id| id.as_str().to_owned()).collect();
    let rows = sqlx::query!(
        r#"SELECT c.id, c.project_id, c.name, c.desired_state, c.run, c.observed_run, c.observed_restart,
               c.observed_phase, c.started_at, c.paused, c.oom_kills, c.health->>'status' AS health_status,
               coalesce(c.spec->>'image', '') AS "image!",
               coalesce(c.spec->'labels', '{}') AS "labels!: Json<BTreeMap<String, String>>",
               c.spec->'restart' AS "restart: Json<RestartPolicy>",
               coalesce(c.spec->'volumes', '[]') AS "volumes!: Json<Vec<VolumeMount>>",
               coalesce((c.spec->>'auto_remove')::boolean, false) OR c.drops_volumes AS "drops_volumes!",
               (SELECT coalesce(jsonb_agg(jsonb_build_object('id', n.id, 'name', n.name, 'driver', n.driver) ORDER BY n.name), '[]')
                FROM endpoints e JOIN networks n ON n.id = e.network_id WHERE e.container_id = c.id)
               AS "networks!: Json<Vec<OnNetwork>>"
           FROM containers c
           WHERE c.id = ANY($1) AND c.host_id = $2 AND c.removed_at IS NULL
           ORDER BY c.id FOR UPDATE OF c"#,
        &ids,
        host.0,
    )
    .fetch_all(connection)
    .await
    .map_err(store_error)?;
    rows.into_iter()
        .map(|row| {
            let run = number(row.run)?;
            let desired = match row.desired_state.as_str() {
                "running" => Desired::Running { run },
                // How it is to be stopped makes no difference here.
                "stopped" => Desired::Stopped { run, signal: String::new(), timeout_s: 0 },
                "created" => Desired::Created,
                _ => Desired::Removed,
            };
            let before = Before {
                id: parsed(&row.id)?,
                name: parsed(&row.name)?,
                image: row.image,
                labels: row.labels.0,
                restart: row.restart.map(|restart| restart.0).unwrap_or_default(),
                desired,
                progress: Progress {
                    run: number(row.observed_run)?,
                    restart: number(row.observed_restart)?,
                    phase: Phase::from_rank(row.observed_phase),
                },
                started_at: row.started_at,
                paused: row.paused,
                oom_kills: number(row.oom_kills)?,
                health: row.health_status.as_deref().and_then(health_status),
                networks: row.networks.0,
                volumes: row.volumes.0,
                drops_volumes: row.drops_volumes,
            };
            Ok((ProjectId(row.project_id), before))
        })
        .collect()
}

fn health_status(stored: &str) -> Option<HealthStatus> {
    [HealthStatus::Starting, HealthStatus::Healthy, HealthStatus::Unhealthy].into_iter().find(|s| s.as_str() == stored)
}

/// The report as columns.
#[derive(Default)]
struct Columns {
    id: Vec<String>,
    run: Vec<i32>,
    restart: Vec<i32>,
    phase: Vec<i16>,
    pid: Vec<Option<i32>>,
    started_at: Vec<Option<OffsetDateTime>>,
    exit_code: Vec<Option<i32>>,
    oom_killed: Vec<bool>,
    exit_error: Vec<String>,
    finished_at: Vec<Option<OffsetDateTime>>,
    prepare_error: Vec<Option<String>>,
    revision: Vec<i64>,
    paused: Vec<bool>,
    oom_kills: Vec<i32>,
    health: Vec<Option<Json<Health>>>,
}

impl Columns {
    fn of(newest: &BTreeMap<ContainerId, Observed>) -> Result<Self> {
        let count = |n: u32| i32::try_from(n).map_err(|_| Error::invalid("report", "counts too far"));
        let mut columns = Self::default();
        for (id, observed) in newest {
            let exit = observed.exit.as_ref();
            columns.id.push(id.as_str().to_owned());
            columns.run.push(count(observed.progress.run)?);
            columns.restart.push(count(observed.progress.restart)?);
            columns.phase.push(observed.progress.phase.rank());
            columns.pid.push(observed.pid.and_then(|pid| i32::try_from(pid).ok()));
            columns.started_at.push(observed.started_at);
            columns.exit_code.push(exit.map(|exit| exit.code));
            columns.oom_killed.push(exit.is_some_and(|exit| exit.oom_killed));
            columns.exit_error.push(exit.map(|exit| storable(&exit.error)).unwrap_or_default());
            columns.finished_at.push(exit.map(|exit| exit.finished_at));
            columns.prepare_error.push(observed.prepare_error.as_deref().map(storable));
            columns.revision.push(i64::from(observed.revision));
            columns.paused.push(observed.paused);
            columns.oom_kills.push(i32::try_from(observed.oom_kills).unwrap_or(i32::MAX));
            columns.health.push(observed.health.as_ref().map(|health| Json(bounded(health))));
        }
        Ok(columns)
    }
}

/// Text from a host, cut to size and without what Postgres cannot keep.
fn storable(text: &str) -> String {
    let mut kept = String::new();
    for character in text.chars().filter(|c| *c != '\0') {
        if kept.len() + character.len_utf8() > TEXT_MAX_BYTES {
            break;
        }
        kept.push(character);
    }
    kept
}

/// A host's health log, cut to what is kept.
fn bounded(health: &Health) -> Health {
    let newest = health.log.len().saturating_sub(HEALTH_LOG_ENTRIES);
    let log = health.log[newest..].iter();
    let log = log.map(|probe| HealthProbe { output: storable(&probe.output), ..probe.clone() }).collect();
    Health { log, ..*health }
}

/// Writes what is news and returns whom it was about. A run nobody asked for is no news: it cannot be.
async fn move_forward(
    connection: &mut PgConnection,
    host: HostId,
    newest: &BTreeMap<ContainerId, Observed>,
) -> Result<BTreeSet<ContainerId>> {
    let columns = Columns::of(newest)?;
    let moved = sqlx::query_scalar!(
        "UPDATE containers c SET
             observed_run = greatest(c.observed_run, r.run),
             observed_restart = CASE WHEN r.run < c.observed_run THEN c.observed_restart ELSE r.restart END,
             observed_phase = r.phase, pid = r.pid,
             started_at = coalesce(r.started_at, c.started_at),
             exit_code = coalesce(r.exit_code, c.exit_code),
             oom_killed = CASE WHEN r.finished_at IS NULL THEN c.oom_killed ELSE r.oom_killed END,
             exit_error = CASE WHEN r.finished_at IS NULL THEN c.exit_error ELSE r.exit_error END,
             finished_at = coalesce(r.finished_at, c.finished_at),
             prepare_error = r.prepare_error, observed_revision = r.revision,
             paused = r.paused, oom_kills = r.oom_kills, health = r.health,
             removed_at = CASE WHEN r.phase = 6 THEN now() END,
             desired_state = CASE WHEN r.phase = 6 THEN 'removed' ELSE c.desired_state END
         FROM unnest($2::text[], $3::int4[], $4::int4[], $5::int2[], $6::int4[], $7::timestamptz[], $8::int4[],
                     $9::bool[], $10::text[], $11::timestamptz[], $12::text[], $13::int8[], $14::bool[],
                     $15::int4[], $16::jsonb[])
              AS r (id, run, restart, phase, pid, started_at, exit_code, oom_killed, exit_error, finished_at, prepare_error,
                    revision, paused, oom_kills, health)
         WHERE c.id = r.id AND c.host_id = $1 AND c.removed_at IS NULL AND r.run <= c.run
           AND ((c.observed_run, c.observed_restart, c.observed_phase, c.observed_revision)
                    < (r.run, r.restart, r.phase, r.revision)
                -- Removed is the end of every run: a host that lost its disk knows of no run any more.
                OR r.phase = 6
                -- A failure while preparing is news though it is no step.
                OR ((c.observed_run, c.observed_restart, c.observed_phase) = (r.run, r.restart, r.phase)
                    AND r.phase < 2 AND r.prepare_error IS NOT NULL
                    AND c.prepare_error IS DISTINCT FROM r.prepare_error))
         RETURNING c.id",
        host.0,
        &columns.id,
        &columns.run,
        &columns.restart,
        &columns.phase,
        &columns.pid as &[Option<i32>],
        &columns.started_at as &[Option<OffsetDateTime>],
        &columns.exit_code as &[Option<i32>],
        &columns.oom_killed,
        &columns.exit_error,
        &columns.finished_at as &[Option<OffsetDateTime>],
        &columns.prepare_error as &[Option<String>],
        &columns.revision,
        &columns.paused,
        &columns.oom_kills,
        &columns.health as _,
    )
    .fetch_all(connection)
    .await
    .map_err(store_error)?;
    moved.iter().map(|id| parsed(id)).collect()
}

/// Ports of runs that are over, and of any run before.
async fn free_ports(connection: &mut PgConnection, over: Vec<(String, i32)>) -> Result<()> {
    if over.is_empty() {
        return Ok(());
    }
    let (ids, runs): (Vec<String>, Vec<i32>) = over.into_iter().unzip();
    sqlx::query!(
        "DELETE FROM published_ports p USING unnest($1::text[], $2::int4[]) AS r (id, run)
         WHERE p.container_id = r.id AND p.run <= r.run",
        &ids,
        &runs,
    )
    .execute(connection)
    .await
    .map_err(store_error)?;
    Ok(())
}

/// What removed containers held until now.
async fn free_endpoints(connection: &mut PgConnection, gone: &[String]) -> Result<()> {
    if gone.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "WITH ports AS (DELETE FROM published_ports WHERE container_id = ANY($1))
         DELETE FROM endpoints WHERE container_id = ANY($1)",
        gone
    )
    .execute(connection)
    .await
    .map_err(store_error)?;
    Ok(())
}

/// Adds to a project's history. Time is Postgres', read under the project's lock: it and the
/// sequence order events alike.
async fn append(connection: &mut PgConnection, project: ProjectId, told: &[Told]) -> Result<()> {
    let project: Uuid = project.0;
    let kinds: Vec<String> = told.iter().map(|event| event.kind.as_str().to_owned()).collect();
    let actions: Vec<String> = told.iter().map(|event| event.action.clone().into_owned()).collect();
    let actors: Vec<String> = told.iter().map(|event| event.actor.clone()).collect();
    let attributes: Vec<Json<&BTreeMap<String, String>>> = told.iter().map(|event| Json(&event.attributes)).collect();
    sqlx::query!(
        "WITH next AS (
             UPDATE projects SET event_sequence = event_sequence + $2 WHERE id = $1
             RETURNING event_sequence - $2 AS base)
         INSERT INTO events (project_id, sequence, kind, action, actor_id, attributes, at)
         SELECT $1, next.base + e.position, e.kind, e.action, e.actor, e.attributes, clock_timestamp()
         FROM next, unnest($3::text[], $4::text[], $5::text[], $6::jsonb[])
              WITH ORDINALITY AS e (kind, action, actor, attributes, position)",
        project,
        i64::try_from(told.len()).map_err(Error::internal)?,
        &kinds,
        &actions,
        &actors,
        &attributes as _,
    )
    .execute(connection)
    .await
    .map_err(store_error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_text_is_cut_between_characters_and_loses_its_nuls() {
        assert_eq!(storable("a\0b"), "ab");
        assert_eq!(storable(&"é".repeat(4_000)).len(), TEXT_MAX_BYTES);
    }

    #[test]
    fn of_several_observations_the_furthest_counts() {
        let id = ContainerId::from_bytes([1; 32]);
        let at = |run, phase| ContainerReport {
            id: id.clone(),
            observed: Observed::at(Progress { run, restart: 0, phase }),
        };
        let kept = newest(&[at(1, Phase::Exited), at(2, Phase::Starting), at(1, Phase::Running)]);
        assert_eq!(kept[&id].progress, Progress { run: 2, restart: 0, phase: Phase::Starting });
    }
}
