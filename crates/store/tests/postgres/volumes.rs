//! Volumes: names, use as a constraint, binding to a host, and their end.

use std::collections::BTreeMap;

use contract::host::{ContainerReport, HostReport};
use model::{
    ContainerId, ContainerSpec, Error, Observed, Phase, Progress, VolumeBacking, VolumeId, VolumeMount, VolumeName,
};
use planner::plan;
use store::{Applied, NewVolume, ProjectScope, ProjectTx, Store};
use testkit::{Database, Seed, SeededProject, room_for};
use time::OffsetDateTime;

use crate::{fresh, scheduler};

fn id(n: u8) -> VolumeId {
    VolumeId::from_bytes([n; 32])
}

fn gateway(database: &Database) -> Store {
    Store::connect_lazy(&database.gateway, 8).expect("a url")
}

async fn open(store: &Store, project: &SeededProject) -> ProjectTx {
    store.project_tx(&ProjectScope::delegated(project.id)).await.expect("tx")
}

async fn create(store: &Store, project: &SeededProject, n: u8, name: &str) -> bool {
    let name: VolumeName = name.parse().expect("a name");
    let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let new = NewVolume {
        id: &id(n),
        name: &name,
        labels: Some(&labels),
        options: None,
        backing: &VolumeBacking::Sized { size_bytes: 64 << 20 },
        anonymous: false,
        created_at: OffsetDateTime::now_utc(),
    };
    let mut tx = open(store, project).await;
    let written = tx.insert_volume(new).await.expect("asked");
    tx.commit().await.expect("commit");
    written
}

async fn remove(store: &Store, project: &SeededProject, n: u8) -> usize {
    let mut tx = open(store, project).await;
    let removed = tx.remove_unused_volumes(&[id(n)]).await.expect("asked").len();
    tx.commit().await.expect("commit");
    removed
}

/// A container that uses volumes, not placed.
async fn user(store: &Store, seed: &Seed, project: &SeededProject, volumes: &[u8]) -> ContainerId {
    let mount = |n: &u8| VolumeMount {
        volume: id(*n),
        name: format!("v{n}").parse().expect("a name"),
        backing: VolumeBacking::Directory,
        path: format!("/v{n}"),
        subpath: String::new(),
        read_only: false,
        no_copy: false,
        anonymous: true,
        shown_mode: String::new(),
    };
    let spec =
        ContainerSpec { volumes: volumes.iter().map(mount).collect(), auto_remove: true, ..ContainerSpec::default() };
    let container = seed.container(project, &spec).await.expect("container");
    let mut tx = open(store, project).await;
    tx.use_volumes(&container, &volumes.iter().map(|n| id(*n)).collect::<Vec<_>>()).await.expect("used");
    tx.commit().await.expect("commit");
    container
}

async fn hosts_of(seed: &Seed, table: &str) -> Vec<Option<String>> {
    let query = format!("SELECT host_id::text FROM {table} ORDER BY 1");
    sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_all(seed.pool()).await.expect("rows")
}

#[tokio::test]
async fn a_name_is_unique_in_its_project_and_another_project_has_its_own() {
    let (database, seed) = fresh("volume_names").await;
    let store = gateway(&database);
    let (one, two) = (seed.project().await.expect("project"), seed.project().await.expect("project"));
    assert!(create(&store, &one, 1, "data").await && create(&store, &two, 2, "data").await);
    assert!(!create(&store, &one, 3, "data").await);
    let mut tx = open(&store, &one).await;
    let found = tx.volumes(Some("data")).await.expect("read");
    assert_eq!(found.iter().map(|v| v.id.clone()).collect::<Vec<_>>(), [id(1)]);
    assert_eq!(found[0].backing, VolumeBacking::Sized { size_bytes: 64 << 20 });
    assert_eq!(found[0].labels.as_ref().and_then(|l| l.get("a")).map(String::as_str), Some("b"));
    assert_eq!(tx.remove_unused_volumes(&[id(2)]).await.expect("asked"), [], "theirs is not there");
    drop(tx);
    assert_eq!(remove(&store, &one, 1).await, 1);
    assert!(create(&store, &one, 3, "data").await, "a removed one's name is free at once");
}

#[tokio::test]
async fn a_volume_in_use_cannot_be_removed_whoever_tries() {
    let (database, seed) = fresh("volume_use").await;
    let store = gateway(&database);
    let project = seed.project().await.expect("project");
    create(&store, &project, 1, "data").await;
    let container = user(&store, &seed, &project, &[1]).await;
    assert_eq!(remove(&store, &project, 1).await, 0);
    let forced = sqlx::query("UPDATE volumes SET removing = true").execute(seed.pool()).await.expect_err("refused");
    assert_eq!(forced.as_database_error().and_then(|e| e.constraint()), Some("container_volumes_use_fkey"));
    let mut tx = open(&store, &project).await;
    assert_eq!(tx.volumes(None).await.expect("read")[0].used_by, std::slice::from_ref(&container));
    tx.want_removed(&container, false).await.expect("removed");
    tx.commit().await.expect("commit");
    assert_eq!(remove(&store, &project, 1).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_use_and_a_removal_at_once_only_one_succeeds() {
    let (database, seed) = fresh("volume_race").await;
    let store = gateway(&database);
    let project = seed.project().await.expect("project");
    for round in 0..20 {
        create(&store, &project, round, &format!("v{round}")).await;
        let container = seed.container(&project, &ContainerSpec::default()).await.expect("container");
        let mut using = open(&store, &project).await;
        let mut removing = open(&store, &project).await;
        let volumes = [id(round)];
        let (used, removed) = tokio::join!(
            async {
                let used = using.use_volumes(&container, &volumes).await;
                if used.is_ok() {
                    using.commit().await.expect("commit");
                }
                used
            },
            async {
                let removed = removing.remove_unused_volumes(&volumes).await.expect("asked").len();
                removing.commit().await.expect("commit");
                removed
            }
        );
        assert_eq!(used.is_ok(), removed == 0, "round {round}: {used:?}, {removed} removed");
        if let Err(error) = used {
            assert!(matches!(error, Error::Conflict(_)), "{error:?}");
        }
    }
}

#[tokio::test]
async fn the_first_container_places_a_volume_and_everything_else_follows() {
    let (database, seed) = fresh("volume_binding").await;
    let (gateway, scheduler) = (gateway(&database), scheduler(&database));
    let project = seed.project().await.expect("project");
    let hosts = [seed.host("a", room_for(9)).await.expect("host"), seed.host("b", room_for(9)).await.expect("host")];
    create(&gateway, &project, 1, "data").await;
    // Two at once: without the binding they would be spread.
    for _ in 0..2 {
        user(&gateway, &seed, &project, &[1]).await;
    }
    let snapshot = scheduler.plan_snapshot(&[]).await.expect("snapshot").expect("something");
    let applied = scheduler.apply_plan(&plan(&snapshot)).await.expect("applied");
    assert!(matches!(applied, Applied::Done { placed, .. } if placed.len() == 2));
    let places = hosts_of(&seed, "containers").await;
    assert!(places[0].is_some() && places[0] == places[1], "{places:?}");
    assert_eq!(hosts_of(&seed, "volumes").await, places[..1]);
    assert_eq!(hosts_of(&seed, "container_volumes").await, places);
    // A plan that is wrong about it is refused whole.
    let late = user(&gateway, &seed, &project, &[1]).await;
    let mut wrong = plan(&scheduler.plan_snapshot(&[]).await.expect("snapshot").expect("something"));
    for step in &mut wrong.steps {
        step.host = if step.host == hosts[0] { hosts[1] } else { hosts[0] };
    }
    assert!(scheduler.apply_plan(&wrong).await.is_err(), "a container went away from its volume");
    assert!(scheduler.placements(&[late]).await.expect("asked").is_empty());
}

#[tokio::test]
async fn a_removed_volume_is_told_to_its_host_until_the_host_says_it_is_gone() {
    let (database, seed) = fresh("volume_removal").await;
    let (gateway, scheduler) = (gateway(&database), scheduler(&database));
    let project = seed.project().await.expect("project");
    let host = seed.host("a", room_for(9)).await.expect("host");
    create(&gateway, &project, 1, "data").await;
    let container = user(&gateway, &seed, &project, &[1]).await;
    let snapshot = scheduler.plan_snapshot(&[]).await.expect("snapshot").expect("something");
    scheduler.apply_plan(&plan(&snapshot)).await.expect("applied");
    let whole = scheduler.host_changes(host, None).await.expect("read").expect("a plan");
    assert_eq!(whole.volumes.iter().map(|v| (v.id.clone(), v.removed)).collect::<Vec<_>>(), [(id(1), false)]);
    // `--rm`: the report of the container's end removes what was made for it.
    let observed = Observed {
        progress: Progress { phase: Phase::Removed, ..Progress::NONE },
        ..serde_json::from_value(serde_json::json!({"progress": Progress::NONE})).expect("an observation")
    };
    let report = HostReport {
        containers: vec![ContainerReport { id: container, observed }],
        capacity: room_for(9),
        ..HostReport::default()
    };
    let recorded = scheduler.record_report(host, &report).await.expect("recorded");
    assert!(recorded.has_more_to_do);
    let mut tx = open(&gateway, &project).await;
    assert_eq!(tx.volumes(None).await.expect("read"), []);
    let told = tx.events_after(0, 100).await.expect("read");
    let told: Vec<String> = told.iter().map(|e| format!("{} {}", e.kind.as_str(), e.action)).collect();
    assert_eq!(told, ["container destroy", "volume destroy"]);
    drop(tx);
    let change = scheduler.host_changes(host, Some(whole.generation)).await.expect("read").expect("a change");
    assert_eq!(change.volumes.iter().map(|v| (v.id.clone(), v.removed)).collect::<Vec<_>>(), [(id(1), true)]);
    let again = scheduler.record_report(host, &report).await.expect("recorded");
    assert!(!again.has_more_to_do, "told twice, done once");
    let gone = HostReport { removed_volumes: vec![id(1)], capacity: room_for(9), ..HostReport::default() };
    scheduler.record_report(host, &gone).await.expect("recorded");
    assert!(hosts_of(&seed, "volumes").await.is_empty());
}
