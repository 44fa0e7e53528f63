//! Reports: late, duplicate, reordered, wrong and hostile ones.

use contract::host::{ContainerReport, ExecReport, HostReport};
use model::{ContainerId, ContainerSpec, Error, ExecId, Exit, HostId, Observed, Phase, Progress};
use planner::plan;
use sqlx::Row as _;
use store::{Recorded, Store};
use testkit::{Seed, SeededProject, room_for};
use time::{Duration, OffsetDateTime};

use crate::{fresh, scheduler};

struct Fixture {
    store: Store,
    seed: Seed,
    project: SeededProject,
    host: HostId,
    container: ContainerId,
}

/// One container on one host, wanted running.
async fn running(name: &str, spec: ContainerSpec) -> Fixture {
    let (database, seed) = fresh(name).await;
    let store = scheduler(&database);
    let project = seed.project().await.expect("project");
    let host = seed.host("a", room_for(5)).await.expect("host");
    let container = seed.container(&project, &spec).await.expect("container");
    let plan = plan(&store.plan_snapshot(&[]).await.expect("snapshot").expect("one"));
    store.apply_plan(&plan).await.expect("apply");
    seed.want_running(&container).await.expect("start");
    Fixture { store, seed, project, host, container }
}

fn at(run: u32, restart: u32, phase: Phase) -> Observed {
    let start = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
    let ended = phase >= Phase::Exited;
    Observed {
        pid: (phase == Phase::Running).then_some(4242),
        started_at: (phase >= Phase::Running).then_some(start),
        exit: ended.then(|| Exit {
            code: 3,
            oom_killed: false,
            error: String::new(),
            finished_at: start + Duration::seconds(5),
        }),
        ..Observed::at(Progress { run, restart, phase })
    }
}

impl Fixture {
    async fn report(&self, observed: Observed) -> Recorded {
        self.report_of(self.host, self.container.clone(), observed).await.expect("recorded")
    }

    async fn report_of(&self, host: HostId, id: ContainerId, observed: Observed) -> model::Result<Recorded> {
        let containers = vec![ContainerReport { id, observed }];
        let report = HostReport { generation: 1, capacity: room_for(5), containers, ..HostReport::default() };
        self.store.record_report(host, &report).await
    }

    async fn progress(&self) -> (i32, i32, i16) {
        let row = sqlx::query("SELECT observed_run, observed_restart, observed_phase FROM containers WHERE id = $1")
            .bind(self.container.as_str())
            .fetch_one(self.seed.pool())
            .await
            .expect("the row");
        (row.get(0), row.get(1), row.get(2))
    }

    async fn told(&self) -> Vec<String> {
        let rows =
            sqlx::query("SELECT sequence, action FROM events WHERE project_id = $1::text::uuid ORDER BY sequence")
                .bind(self.project.id.to_string())
                .fetch_all(self.seed.pool())
                .await
                .expect("events");
        for (index, row) in rows.iter().enumerate() {
            assert_eq!(row.get::<i64, _>(0), i64::try_from(index).expect("small") + 1, "a hole in the history");
        }
        rows.iter().map(|row| row.get(1)).collect()
    }

    async fn count(&self, table: &'static str) -> i64 {
        let count = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        sqlx::query_scalar(count).fetch_one(self.seed.pool()).await.expect(table)
    }

    async fn reserve_port(&self) {
        sqlx::query(
            "INSERT INTO published_ports (host_id, protocol, host_port, container_id, project_id, container_port, run)
             SELECT host_id, 'tcp', 8080, id, project_id, 80, run FROM containers WHERE id = $1",
        )
        .bind(self.container.as_str())
        .execute(self.seed.pool())
        .await
        .expect("a port");
    }
}

#[tokio::test]
async fn late_duplicate_and_reordered_reports_move_nothing_back_and_tell_nothing_twice() {
    let f = running("report_order", ContainerSpec::default()).await;
    let phases = [Phase::Created, Phase::Starting, Phase::Running, Phase::Exited];
    for phase in phases {
        assert_eq!(f.report(at(1, 0, phase)).await.containers.len(), 1, "{phase:?} is news");
    }
    assert_eq!(f.progress().await, (1, 0, 5));
    let history = ["connect", "start", "disconnect", "die"];
    assert_eq!(f.told().await, history);
    for phase in phases.into_iter().rev().chain(phases) {
        assert_eq!(f.report(at(1, 0, phase)).await, Recorded::default(), "{phase:?} is old");
    }
    assert_eq!(f.progress().await, (1, 0, 5));
    assert_eq!(f.told().await, history);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_report_from_many_connections_is_told_once() {
    let f = std::sync::Arc::new(running("report_race", ContainerSpec::default()).await);
    let racers: Vec<_> = (0..16)
        .map(|n| {
            let f = f.clone();
            let phase = if n % 2 == 0 { Phase::Running } else { Phase::Exited };
            tokio::spawn(async move { f.report(at(1, 0, phase)).await })
        })
        .collect();
    for racer in racers {
        racer.await.expect("no panic");
    }
    assert_eq!(f.progress().await, (1, 0, 5));
    assert_eq!(f.told().await, ["connect", "start", "disconnect", "die"]);
}

/// A started exec of the fixture's container.
async fn exec(f: &Fixture, byte: u8) -> ExecId {
    let id = ExecId::from_bytes([byte; 32]);
    sqlx::query(
        "INSERT INTO execs (id, project_id, container_id, spec, started_at)
         SELECT $1, project_id, id, '{}', now() FROM containers WHERE id = $2",
    )
    .bind(id.as_str())
    .bind(f.container.as_str())
    .execute(f.seed.pool())
    .await
    .expect("an exec");
    id
}

async fn exit_codes(f: &Fixture) -> Vec<Option<i32>> {
    sqlx::query_scalar("SELECT exit_code FROM execs ORDER BY id").fetch_all(f.seed.pool()).await.expect("codes")
}

#[tokio::test]
async fn the_end_of_an_exec_is_told_once_however_often_it_is_reported() {
    let f = running("report_exec", ContainerSpec::default()).await;
    f.report(at(1, 0, Phase::Running)).await;
    let (ran, refused) = (exec(&f, 1).await, exec(&f, 2).await);
    let ended =
        |id: &ExecId, exit_code, ran| ExecReport { id: id.clone(), container: f.container.clone(), exit_code, ran };
    let report = HostReport {
        generation: 1,
        capacity: room_for(5),
        execs: vec![ended(&ran, 7, true), ended(&refused, 126, false), ended(&ExecId::from_bytes([9; 32]), 1, true)],
        ..HostReport::default()
    };
    for _ in 0..3 {
        f.store.record_report(f.host, &report).await.expect("recorded");
    }
    assert_eq!(f.told().await, ["connect", "start", "exec_die"], "what never ran did not end");
    assert_eq!(exit_codes(&f).await, [Some(7), Some(126)]);
    let attributes: sqlx::types::JsonValue =
        sqlx::query_scalar("SELECT attributes FROM events WHERE action = 'exec_die'")
            .fetch_one(f.seed.pool())
            .await
            .expect("the event");
    assert_eq!((&attributes["execID"], &attributes["exitCode"]), (&ran.as_str().into(), &"7".into()));
    let other = f.seed.host("b", room_for(5)).await.expect("host");
    let open = exec(&f, 3).await;
    let foreign = HostReport { execs: vec![ended(&open, 0, true)], ..report };
    assert_eq!(f.store.record_report(other, &foreign).await.expect("passed over"), Recorded::default());
    assert_eq!(exit_codes(&f).await, [Some(7), Some(126), None], "a host speaks only for its own containers");
}

#[tokio::test]
async fn with_a_container_everything_in_it_ends_and_before_it() {
    let f = running("report_exec_container", ContainerSpec::default()).await;
    f.report(at(1, 0, Phase::Running)).await;
    let (known, _) = (exec(&f, 1).await, exec(&f, 2).await);
    let report = HostReport {
        generation: 1,
        capacity: room_for(5),
        containers: vec![ContainerReport { id: f.container.clone(), observed: at(1, 0, Phase::Exited) }],
        execs: vec![ExecReport { id: known.clone(), container: f.container.clone(), exit_code: 0, ran: true }],
        ..HostReport::default()
    };
    f.store.record_report(f.host, &report).await.expect("recorded");
    assert_eq!(f.told().await, ["connect", "start", "exec_die", "exec_die", "disconnect", "die"]);
    assert_eq!(exit_codes(&f).await, [Some(0), Some(137)], "as reported; the other went with the container");
    f.store.record_report(f.host, &report).await.expect("recorded");
    f.report(at(1, 0, Phase::Removed)).await;
    assert_eq!(f.told().await.len(), 7, "and destroy");
}

#[tokio::test]
async fn an_exit_frees_the_ports_of_its_run_but_a_host_that_restarts_keeps_them() {
    let f = running("report_ports", ContainerSpec::default()).await;
    f.reserve_port().await;
    f.report(at(1, 0, Phase::Running)).await;
    assert_eq!(f.count("published_ports").await, 1);
    f.report(at(1, 0, Phase::Exited)).await;
    assert_eq!(f.count("published_ports").await, 0);

    let spec = ContainerSpec { restart: model::RestartPolicy::Always, ..ContainerSpec::default() };
    let f = running("report_ports_restart", spec).await;
    f.reserve_port().await;
    f.report(at(1, 0, Phase::Exited)).await;
    assert_eq!(f.count("published_ports").await, 1, "the host starts it again by itself");
    f.report(at(1, 0, Phase::Removed)).await;
    assert_eq!(f.count("published_ports").await, 0);
}

#[tokio::test]
async fn an_old_runs_exit_does_not_free_the_new_runs_ports() {
    let f = running("report_ports_run", ContainerSpec::default()).await;
    f.seed.want_running(&f.container).await.expect("run 2");
    f.reserve_port().await;
    f.report(at(1, 0, Phase::Exited)).await;
    assert_eq!(f.count("published_ports").await, 1);
}

#[tokio::test]
async fn a_removal_leaves_a_row_for_those_who_wait_and_nothing_else() {
    let f = running("report_removed", ContainerSpec { auto_remove: true, ..ContainerSpec::default() }).await;
    f.reserve_port().await;
    let batch = vec![
        ContainerReport { id: f.container.clone(), observed: at(1, 0, Phase::Exited) },
        ContainerReport { id: ContainerId::from_bytes([9; 32]), observed: at(1, 0, Phase::Running) },
    ];
    let report = HostReport { generation: 1, capacity: room_for(5), containers: batch, ..HostReport::default() };
    f.store.record_report(f.host, &report).await.expect("unknown containers are passed over");
    f.report(at(1, 0, Phase::Removed)).await;
    assert_eq!(f.told().await, ["connect", "start", "disconnect", "die", "destroy"]);
    assert_eq!((f.count("endpoints").await, f.count("published_ports").await), (0, 0));
    let row = sqlx::query("SELECT desired_state, removed_at IS NOT NULL, exit_code FROM containers")
        .fetch_one(f.seed.pool())
        .await
        .expect("still there");
    assert_eq!((row.get::<String, _>(0), row.get::<bool, _>(1), row.get::<i32, _>(2)), ("removed".into(), true, 3));
    assert_eq!(f.report(at(1, 9, Phase::Running)).await, Recorded::default(), "nothing comes back from removal");
    let plan = f.store.host_changes(f.host, None).await.expect("plan").expect("everything");
    assert!(plan.containers.is_empty());

    let kept = std::time::Duration::from_secs(600);
    assert_eq!(f.store.purge(kept, kept).await.expect("purge").containers, 0, "not yet");
    sqlx::query("UPDATE containers SET removed_at = now() - interval '11 minutes'")
        .execute(f.seed.pool())
        .await
        .expect("later");
    sqlx::query("UPDATE events SET at = now() - interval '8 days' WHERE action = 'start'")
        .execute(f.seed.pool())
        .await
        .expect("older");
    let purged = f.store.purge(store::REMOVED_KEPT, store::EVENTS_KEPT).await.expect("purge");
    assert_eq!((purged.containers, purged.events), (1, 1));
}

#[tokio::test]
async fn a_host_that_lost_its_disk_can_still_say_that_nothing_is_left() {
    let f = running("report_lost_disk", ContainerSpec::default()).await;
    f.report(at(1, 2, Phase::Running)).await;
    assert_eq!(f.report(at(0, 0, Phase::Removed)).await.containers.len(), 1, "it is taken");
    assert_eq!(f.progress().await, (1, 2, 6), "the run it was in stays known");
    assert_eq!(f.report(at(1, 2, Phase::Exited)).await, Recorded::default(), "and nothing undoes it");
}

#[tokio::test]
async fn a_host_that_comes_back_at_another_address_is_known_there() {
    let f = running("host_moves", ContainerSpec::default()).await;
    let host = f.store.hosts().await.expect("hosts").remove(0);
    let address = "192.0.2.77".parse().expect("an address");
    f.store.host_reached_at(host.id, host.address, host.agent_port).await.expect("the same");
    f.store.host_reached_at(host.id, address, 7777).await.expect("moved");
    let now = f.store.hosts().await.expect("hosts").remove(0);
    assert_eq!((now.address, now.agent_port), (address, 7777));
}

#[tokio::test]
async fn a_host_speaks_only_for_its_own_containers_and_only_of_runs_that_were_wanted() {
    let f = running("report_foreign", ContainerSpec::default()).await;
    let other = f.seed.host("b", room_for(5)).await.expect("host");
    let said = f.report_of(other, f.container.clone(), at(1, 0, Phase::Running)).await.expect("passed over");
    assert_eq!(said, Recorded::default());
    assert_eq!(f.report(at(2, 0, Phase::Running)).await, Recorded::default(), "run 2 was never wanted");
    assert_eq!(f.progress().await, (0, 0, 0));
    let nobody = "01900000-0000-7000-8000-0000ffffffff".parse().expect("a uuid");
    let refused = f.report_of(nobody, f.container.clone(), at(1, 0, Phase::Running)).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
}

#[tokio::test]
async fn why_preparing_failed_is_kept_and_goes_away_with_success() {
    let f = running("report_prepare", ContainerSpec::default()).await;
    let error = || async {
        sqlx::query_scalar::<_, Option<String>>("SELECT prepare_error FROM containers")
            .fetch_one(f.seed.pool())
            .await
            .expect("row")
    };
    f.report(at(0, 0, Phase::Preparing)).await;
    let failed = Observed { prepare_error: Some("disk\0 full".into()), ..at(0, 0, Phase::Preparing) };
    assert_eq!(f.report(failed.clone()).await.containers.len(), 1);
    assert_eq!(f.report(failed).await.containers.len(), 0, "once is enough");
    assert_eq!(error().await.as_deref(), Some("disk full"));
    f.report(at(0, 0, Phase::Created)).await;
    assert_eq!(error().await, None);
}

#[tokio::test]
async fn any_report_is_a_sign_of_life_and_tells_the_capacity() {
    let f = running("report_alive", ContainerSpec::default()).await;
    sqlx::query("UPDATE hosts SET last_seen_at = now() - interval '1 hour'")
        .execute(f.seed.pool())
        .await
        .expect("late");
    let report = HostReport { generation: 1, capacity: room_for(7), ..HostReport::default() };
    f.store.record_report(f.host, &report).await.expect("recorded");
    let hosts = f.store.hosts().await.expect("hosts");
    assert_eq!((hosts[0].condition, hosts[0].capacity), (model::HostCondition::Ready, room_for(7)));
    assert_eq!((hosts[0].containers, hosts[0].running), (1, 0));
}
