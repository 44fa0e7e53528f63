//! Snapshots, plans applied by compare-and-swap, and what hosts are told of it.

use std::{collections::BTreeMap, sync::Arc};

use model::{ContainerId, ContainerSpec, Desired, HostId, MemoryBytes, PortBinding, PortProtocol, Resources};
use planner::plan;
use sqlx::Row as _;
use store::{Applied, Store};
use testkit::{Seed, room_for};

use crate::{fresh, scheduler};

fn needs_a_gib() -> ContainerSpec {
    let resources = Resources { memory_bytes: Some(MemoryBytes(1 << 30)), ..Resources::default() };
    ContainerSpec { resources, ..ContainerSpec::default() }
}

/// Plans and applies until there is nothing to apply.
async fn settle(store: &Store, first: &[ContainerId]) -> (u32, u32) {
    let (mut applied, mut stale) = (0, 0);
    loop {
        let Some(snapshot) = store.plan_snapshot(first).await.expect("snapshot") else { return (applied, stale) };
        let plan = plan(&snapshot);
        if plan.steps.is_empty() {
            return (applied, stale);
        }
        match store.apply_plan(&plan).await.expect("apply") {
            Applied::Stale => stale += 1,
            Applied::Done { .. } => applied += 1,
        }
    }
}

async fn per_host(seed: &Seed) -> BTreeMap<String, i64> {
    sqlx::query("SELECT h.name, count(*) FROM containers c JOIN hosts h ON h.id = c.host_id GROUP BY 1")
        .fetch_all(seed.pool())
        .await
        .expect("rows")
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect()
}

/// What the trigger keeps is what adding up would give.
async fn assert_counters_add_up(seed: &Seed) {
    let wrong: Vec<String> = sqlx::query_scalar(
        "SELECT h.name FROM hosts h LEFT JOIN containers c ON c.host_id = h.id AND c.removed_at IS NULL
         GROUP BY h.id HAVING (h.placed, h.reserved_nano_cpus, h.reserved_memory_bytes) <> (
             count(c.id), coalesce(sum((c.spec->'resources'->>'nano_cpus')::bigint), 0),
             coalesce(sum((c.spec->'resources'->>'memory_bytes')::bigint), 0))",
    )
    .fetch_all(seed.pool())
    .await
    .expect("sums");
    assert!(wrong.is_empty(), "counters of {wrong:?} do not add up");
}

#[tokio::test]
async fn what_is_removed_gives_its_share_back_once() {
    let (database, seed) = fresh("plan_share").await;
    let project = seed.project().await.expect("project");
    let host = seed.host("a", room_for(2)).await.expect("host");
    for _ in 0..2 {
        seed.container(&project, &needs_a_gib()).await.expect("container");
    }
    let store = scheduler(&database);
    place_all(&store).await;
    let held = || async { store.hosts().await.expect("hosts")[0].clone() };
    assert_eq!((held().await.containers, held().await.reserved_memory_bytes), (2, MemoryBytes(2 << 30)));
    for statement in [
        "UPDATE containers SET desired_state = 'removed'",
        "UPDATE containers SET removed_at = now() WHERE id = (SELECT min(id) FROM containers)",
        "UPDATE containers SET removed_at = now() WHERE removed_at IS NOT NULL",
        "DELETE FROM containers WHERE removed_at IS NOT NULL",
    ] {
        sqlx::query(statement).execute(seed.pool()).await.expect(statement);
        assert_counters_add_up(&seed).await;
    }
    assert_eq!((held().await.containers, held().await.reserved_memory_bytes), (1, MemoryBytes(1 << 30)));
    sqlx::query("DELETE FROM containers").execute(seed.pool()).await.expect("delete");
    assert_counters_add_up(&seed).await;
    assert_eq!((held().await.containers, held().await.id), (0, host));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn schedulers_that_plan_at_once_never_promise_a_host_twice() {
    let (database, seed) = fresh("plan_race").await;
    let project = seed.project().await.expect("project");
    for (name, room) in [("a", 5), ("b", 4), ("c", 2)] {
        seed.host(name, room_for(room)).await.expect("host");
    }
    let mut containers = Vec::new();
    for _ in 0..32 {
        containers.push(seed.container(&project, &needs_a_gib()).await.expect("container"));
    }
    // Each scheduler has other containers to serve first: without the epoch, each would fill the hosts with its own.
    let together = Arc::new(tokio::sync::Barrier::new(4));
    let racing: Vec<_> = containers
        .chunks(8)
        .map(|own| {
            let (database, own, together) = (database.clone(), own.to_vec(), together.clone());
            tokio::spawn(async move {
                let store = scheduler(&database);
                store.check().await.expect("connected");
                together.wait().await;
                settle(&store, &own).await
            })
        })
        .collect();
    let mut rounds = (0, 0);
    for racer in racing {
        let (applied, stale) = racer.await.expect("no panic");
        rounds = (rounds.0 + applied, rounds.1 + stale);
    }
    let placed = per_host(&seed).await;
    let expected = BTreeMap::from([("a".to_owned(), 5), ("b".to_owned(), 4), ("c".to_owned(), 2)]);
    assert_eq!(placed, expected, "after {rounds:?} applied and stale plans");
    assert_counters_add_up(&seed).await;
    let epoch: i64 = sqlx::query_scalar("SELECT n FROM plan_epoch").fetch_one(seed.pool()).await.expect("epoch");
    assert_eq!(epoch, i64::from(rounds.0), "one epoch per applied plan");
}

#[tokio::test]
async fn of_two_plans_for_the_last_place_one_is_stale() {
    let (database, seed) = fresh("plan_last_place").await;
    let project = seed.project().await.expect("project");
    seed.host("a", room_for(1)).await.expect("host");
    let one = seed.container(&project, &needs_a_gib()).await.expect("container");
    let two = seed.container(&project, &needs_a_gib()).await.expect("container");
    let store = scheduler(&database);
    let planned = |first: ContainerId| {
        let store = store.clone();
        async move { plan(&store.plan_snapshot(&[first]).await.expect("snapshot").expect("two to place")) }
    };
    let (plan_of_one, plan_of_two) = (planned(one.clone()).await, planned(two.clone()).await);
    assert_eq!((&plan_of_one.steps[0].container, &plan_of_two.steps[0].container), (&one, &two));
    assert!(matches!(store.apply_plan(&plan_of_two).await.expect("apply"), Applied::Done { .. }));
    assert_eq!(store.apply_plan(&plan_of_one).await.expect("apply"), Applied::Stale);
    assert_eq!(store.placements(&[one, two.clone()]).await.expect("placements").into_keys().collect::<Vec<_>>(), [two]);
}

#[tokio::test]
async fn a_plan_on_an_old_epoch_changes_nothing() {
    let (database, seed) = fresh("plan_stale").await;
    let project = seed.project().await.expect("project");
    seed.host("a", room_for(5)).await.expect("host");
    seed.container(&project, &needs_a_gib()).await.expect("container");
    let store = scheduler(&database);
    let snapshot = store.plan_snapshot(&[]).await.expect("snapshot").expect("something to place");
    let plan = plan(&snapshot);
    sqlx::query("UPDATE plan_epoch SET n = n + 1").execute(seed.pool()).await.expect("another scheduler's plan");
    assert_eq!(store.apply_plan(&plan).await.expect("apply"), Applied::Stale);
    assert!(per_host(&seed).await.is_empty());
}

#[tokio::test]
async fn a_container_removed_while_it_was_planned_is_not_placed() {
    let (database, seed) = fresh("plan_removed").await;
    let project = seed.project().await.expect("project");
    seed.host("a", room_for(5)).await.expect("host");
    let gone = seed.container(&project, &needs_a_gib()).await.expect("container");
    let kept = seed.container(&project, &needs_a_gib()).await.expect("container");
    let store = scheduler(&database);
    let plan = plan(&store.plan_snapshot(&[]).await.expect("snapshot").expect("two to place"));
    sqlx::query("UPDATE containers SET desired_state = 'removed' WHERE id = $1")
        .bind(gone.as_str())
        .execute(seed.pool())
        .await
        .expect("remove");
    let Applied::Done { placed, .. } = store.apply_plan(&plan).await.expect("apply") else { panic!("stale") };
    assert_eq!(placed.keys().collect::<Vec<_>>(), [&kept]);
    assert_eq!(store.placements(&[gone, kept.clone()]).await.expect("placements").keys().collect::<Vec<_>>(), [&kept]);
}

#[tokio::test]
async fn a_silent_host_gets_nothing_new() {
    let (database, seed) = fresh("plan_silent").await;
    let project = seed.project().await.expect("project");
    seed.host("a", room_for(5)).await.expect("host");
    seed.container(&project, &needs_a_gib()).await.expect("container");
    sqlx::query("UPDATE hosts SET last_seen_at = now() - interval '13 seconds'")
        .execute(seed.pool())
        .await
        .expect("late");
    let plan = plan(&scheduler(&database).plan_snapshot(&[]).await.expect("snapshot").expect("one"));
    assert_eq!(plan.unplaced[0].1.to_string(), "no suitable host (1 host is down)");
}

/// Places everything; returns the hosts whose plan changed.
async fn place_all(store: &Store) -> Vec<HostId> {
    let plan = plan(&store.plan_snapshot(&[]).await.expect("snapshot").expect("something to place"));
    match store.apply_plan(&plan).await.expect("apply") {
        Applied::Done { changed, .. } => changed.into_iter().collect(),
        Applied::Stale => panic!("nobody else plans here"),
    }
}

#[tokio::test]
async fn hosts_on_a_network_learn_of_each_other_as_they_come_and_go() {
    let (database, seed) = fresh("plan_peers").await;
    let project = seed.project().await.expect("project");
    let store = scheduler(&database);
    let a = seed.host("a", room_for(1)).await.expect("host");
    let first = seed.container(&project, &needs_a_gib()).await.expect("container");
    assert_eq!(place_all(&store).await, [a]);
    let full = store.host_changes(a, None).await.expect("plan").expect("everything");
    assert!(full.full && full.networks[0].peers.is_empty() && full.containers.len() == 1);
    assert_eq!(full.containers[0].endpoints.first().map(|e| &e.network), Some(&project.network));

    let b = seed.host("b", room_for(1)).await.expect("host");
    let second = seed.container(&project, &needs_a_gib()).await.expect("container");
    assert_eq!(place_all(&store).await, [a, b], "both are to be woken");
    let delta = store.host_changes(a, Some(full.generation)).await.expect("plan").expect("news");
    assert!(!delta.full && delta.containers.is_empty(), "only the network changed for a: {delta:?}");
    assert_eq!(delta.networks[0].peers.len(), 1);
    assert_eq!(store.host_changes(a, Some(delta.generation)).await.expect("plan").map(|d| d.generation), None);
    let of_b = store.host_changes(b, None).await.expect("plan").expect("everything");
    assert_eq!((of_b.containers[0].id.clone(), of_b.networks[0].peers.len()), (second.clone(), 1));

    // b's container goes; a forgets b. a still has one, so b's side is told nothing it does not need.
    sqlx::query("DELETE FROM endpoints WHERE container_id = $1")
        .bind(second.as_str())
        .execute(seed.pool())
        .await
        .expect("gone");
    let touched = store.prune_network_hosts().await.expect("prune");
    assert_eq!(touched.into_iter().collect::<Vec<_>>(), [a]);
    let delta = store.host_changes(a, Some(delta.generation)).await.expect("plan").expect("news");
    assert!(delta.networks[0].peers.is_empty());
    assert!(store.prune_network_hosts().await.expect("prune").is_empty(), "once");
    assert_eq!(full.containers[0].id, first);
}

#[tokio::test]
async fn a_delta_carries_what_changed_and_only_that() {
    let (database, seed) = fresh("plan_delta").await;
    let project = seed.project().await.expect("project");
    let store = scheduler(&database);
    let host = seed.host("a", room_for(5)).await.expect("host");
    let shown = BTreeMap::from([("Hostname".to_owned(), serde_json::json!("x"))]);
    let one = seed.container(&project, &ContainerSpec { shown, ..needs_a_gib() }).await.expect("container");
    let two = seed.container(&project, &needs_a_gib()).await.expect("container");
    place_all(&store).await;
    let full = store.host_changes(host, None).await.expect("plan").expect("everything");
    assert_eq!(full.containers.len(), 2);
    assert!(full.containers.iter().all(|c| c.spec.shown.is_empty()), "hosts need not know what clients wrote");
    seed.want_running(&one).await.expect("start");
    let delta = store.host_changes(host, Some(full.generation)).await.expect("plan").expect("news");
    let changed: Vec<_> = delta.containers.iter().map(|c| (&c.id, &c.desired)).collect();
    assert_eq!(changed, [(&one, &Desired::Running { run: 1 })]);
    assert_ne!(one, two);
}

#[tokio::test]
async fn new_limits_move_the_hosts_plan_and_never_promise_more_than_it_has() {
    let (database, seed) = fresh("plan_limits").await;
    let project = seed.project().await.expect("project");
    let host = seed.host("a", room_for(2)).await.expect("host");
    let id = seed.container(&project, &needs_a_gib()).await.expect("container");
    let store = scheduler(&database);
    place_all(&store).await;
    let generation: i64 =
        sqlx::query_scalar("SELECT generation FROM hosts").fetch_one(seed.pool()).await.expect("generation");
    let epoch = store.plan_snapshot(&[]).await.expect("snapshot");
    assert!(epoch.is_none(), "nothing is unplaced");
    let set = |memory: i64| {
        sqlx::query("UPDATE containers SET spec = jsonb_set(spec, '{resources,memory_bytes}', to_jsonb($1::bigint)) WHERE id = $2")
            .bind(memory)
            .bind(id.as_str())
            .execute(seed.pool())
    };
    set(3 << 29).await.expect("there is room");
    assert_counters_add_up(&seed).await;
    let delta = store.host_changes(host, Some(generation)).await.expect("changes").expect("something changed");
    assert_eq!(delta.containers[0].spec.resources.memory_bytes, Some(MemoryBytes(3 << 29)));
    let refused = set(1 << 40).await.expect_err("there is no room");
    assert_eq!(refused.as_database_error().and_then(|e| e.constraint()), Some("hosts_capacity"));
    set(1 << 20).await.expect("less is always possible");
    assert_counters_add_up(&seed).await;
}

async fn put_on(seed: &Seed, container: &ContainerId, host: HostId) {
    sqlx::query("UPDATE containers SET host_id = $2 WHERE id = $1")
        .bind(container.as_str())
        .bind(host.0)
        .execute(seed.pool())
        .await
        .expect("placed");
}

/// Why there is no host for the only container that has none.
async fn why_not(store: &Store) -> String {
    let snapshot = store.plan_snapshot(&[]).await.expect("snapshot").expect("one to place");
    let plan = plan(&snapshot);
    assert!(plan.steps.is_empty(), "{plan:?}");
    plan.unplaced[0].1.to_string()
}

#[tokio::test]
async fn a_container_goes_where_those_are_whose_namespaces_it_shares() {
    let (database, seed) = fresh("plan_joined").await;
    let (project, stranger) = (seed.project().await.expect("project"), seed.project().await.expect("project"));
    let crowded = seed.host("a", room_for(6)).await.expect("host");
    let empty = seed.host("b", room_for(100)).await.expect("host");
    let store = scheduler(&database);
    let web = seed.container(&project, &needs_a_gib()).await.expect("container");
    put_on(&seed, &web, crowded).await;
    let of = |id: &ContainerId| Some(id.clone());
    let kinds: [fn(Option<ContainerId>) -> ContainerSpec; 3] = [
        |id| ContainerSpec { network_of: id, ..ContainerSpec::default() },
        |id| ContainerSpec { pid_of: id, ..ContainerSpec::default() },
        |id| ContainerSpec { ipc_of: id, ..ContainerSpec::default() },
    ];
    for spec in kinds {
        let beside = seed.container(&project, &spec(of(&web))).await.expect("container");
        settle(&store, &[]).await;
        assert_eq!(store.placements(std::slice::from_ref(&beside)).await.expect("placements")[&beside], crowded);
    }
    // Of two on different hosts neither wins.
    let far = seed.container(&project, &ContainerSpec::default()).await.expect("container");
    put_on(&seed, &far, empty).await;
    let spec = ContainerSpec { network_of: of(&web), pid_of: of(&far), ..ContainerSpec::default() };
    let torn = seed.container(&project, &spec).await.expect("container");
    let why = why_not(&store).await;
    assert!(why.contains(", which it joins, are on different hosts"), "{why}");
    sqlx::query("DELETE FROM containers WHERE id = $1").bind(torn.as_str()).execute(seed.pool()).await.expect("gone");
    // What is of another project is nowhere.
    let foreign = seed.container(&stranger, &kinds[0](of(&web))).await.expect("container");
    let why = why_not(&store).await;
    assert!(why.contains(&format!("2 hosts do not have container {web}, which it joins")), "{why}");
    assert!(store.placements(&[foreign]).await.expect("placements").is_empty());
}

#[tokio::test]
async fn a_container_goes_to_the_host_where_a_port_of_its_range_is_free() {
    let (database, seed) = fresh("plan_ranges").await;
    let project = seed.project().await.expect("project");
    // The one with the room has no port left.
    let full = seed.host("a", room_for(100)).await.expect("host");
    let other = seed.host("b", room_for(6)).await.expect("host");
    let store = scheduler(&database);
    let binding = |host_port, host_range| PortBinding {
        container_port: 80,
        protocol: PortProtocol::Tcp,
        host_ip: None,
        host_port,
        host_range,
    };
    let with =
        |bindings: &[PortBinding]| ContainerSpec { port_bindings: bindings.to_vec(), ..ContainerSpec::default() };
    let holder = seed.container(&project, &ContainerSpec::default()).await.expect("container");
    put_on(&seed, &holder, full).await;
    let heavy = seed.container(&project, &needs_a_gib()).await.expect("container");
    put_on(&seed, &heavy, other).await;
    let hold = async |host: HostId, protocol: &str, port: i32| {
        sqlx::query(
            "INSERT INTO published_ports (host_id, protocol, host_port, container_id, project_id, container_port, run)
             VALUES ($1, $2, $3, $4, $5, 80, 1)",
        )
        .bind(host.0)
        .bind(protocol)
        .bind(port)
        .bind(holder.as_str())
        .bind(project.id.0)
        .execute(seed.pool())
        .await
        .expect("held");
    };
    hold(full, "tcp", 8000).await;
    hold(full, "tcp", 8001).await;
    hold(full, "udp", 8002).await;
    let placed = async |bindings: &[PortBinding]| {
        let container = seed.container(&project, &with(bindings)).await.expect("container");
        settle(&store, &[]).await;
        store.placements(std::slice::from_ref(&container)).await.expect("placements")[&container]
    };
    let range = binding(None, Some((8000, 8001)));
    assert_eq!(placed(&[binding(None, None)]).await, full, "the one with the room, for any port");
    assert_eq!(placed(std::slice::from_ref(&range)).await, other, "a range that is used up");
    assert_eq!(placed(&[binding(Some(8001), None)]).await, other, "a port that is taken");
    assert_eq!(placed(&[binding(None, Some((8001, 8002)))]).await, full, "8002 is held for udp alone");
    hold(other, "tcp", 8000).await;
    assert_eq!(placed(&[range]).await, other, "one is left there");
}
