//! Names, references, addresses and ports of containers, as the gateway's own role sees them.

use std::{collections::BTreeSet, sync::Arc};

use model::{ContainerId, ContainerName, ContainerSpec, Desired, Error, PortProtocol, PublishedPort};
use store::{NewContainer, ProjectScope, Store};
use testkit::{Database, SeededProject, room_for};
use time::OffsetDateTime;

use crate::fresh;

fn gateway(database: &Database) -> Store {
    Store::connect_lazy(&database.gateway, 24).expect("a url")
}

fn id(digits: &str) -> ContainerId {
    format!("{digits:0<64}").parse().expect("hex")
}

async fn create(store: &Store, project: &SeededProject, id: &ContainerId, name: &str) -> model::Result<bool> {
    let name: ContainerName = name.parse()?;
    let mut tx = store.project_tx(&ProjectScope::delegated(project.id)).await?;
    let image_id = project.image.parse()?;
    let spec = ContainerSpec { image: "busybox".into(), ..ContainerSpec::default() };
    let new = NewContainer { id, name: &name, image_id: &image_id, spec: &spec, created_at: OffsetDateTime::now_utc() };
    let written = tx.insert_container(new).await?;
    if written {
        tx.allocate_endpoint(id, &store::NewEndpoint::default()).await?;
    }
    tx.commit().await?;
    Ok(written)
}

#[tokio::test]
async fn a_name_is_unique_in_its_project_and_free_in_the_next() {
    let (database, seed) = fresh("names").await;
    let store = gateway(&database);
    let (one, two) = (seed.project().await.expect("project"), seed.project().await.expect("project"));
    assert_eq!(create(&store, &one, &id("a1"), "web").await, Ok(true));
    assert_eq!(create(&store, &two, &id("b1"), "web").await, Ok(true));
    assert_eq!(create(&store, &one, &id("a2"), "web").await, Ok(false));
    let mut tx = store.project_tx(&ProjectScope::delegated(one.id)).await.expect("tx");
    assert_eq!(tx.find_container("web").await.expect("found").id, id("a1"));
    assert_eq!(tx.find_container("/web").await.expect("found").id, id("a1"));
    assert!(!tx.rename_container(&id("a1"), &"web".parse().expect("name")).await.expect("asked"));
    assert!(tx.want_removed(&id("a1"), false).await.expect("removed"), "it was on no host");
    tx.commit().await.expect("commit");
    assert_eq!(create(&store, &one, &id("a3"), "web").await, Ok(true), "a removed one's name is free at once");
}

#[tokio::test]
async fn a_reference_never_reaches_another_project() {
    let (database, seed) = fresh("container_references").await;
    let store = gateway(&database);
    let (mine, theirs) = (seed.project().await.expect("project"), seed.project().await.expect("project"));
    create(&store, &mine, &id("ab1"), "mine").await.expect("created");
    create(&store, &mine, &id("cd1"), "ab").await.expect("created");
    create(&store, &mine, &id("ce1"), "other").await.expect("created");
    create(&store, &theirs, &id("ab2"), "theirs").await.expect("created");
    let scope = ProjectScope::delegated(mine.id);
    let mut tx = store.project_tx(&scope).await.expect("tx");
    assert_eq!(tx.find_container("ab1").await.expect("prefix").id, id("ab1"));
    assert_eq!(tx.find_container("ab").await.expect("a name before a prefix").id, id("cd1"));
    assert_eq!(tx.find_container("a").await.expect("not ambiguous with theirs").id, id("ab1"));
    let ambiguous = tx.find_container("c").await.expect_err("two of mine");
    assert_eq!(ambiguous, Error::InvalidArgument("multiple IDs found with provided prefix: c".into()));
    for foreign in ["theirs", "ab2", id("ab2").as_str(), "%", "a%", "_b1", "", "nope", "a\0b"] {
        let error = tx.find_container(foreign).await.expect_err(foreign);
        assert_eq!(error, Error::NotFound(format!("No such container: {foreign}")));
    }
    assert_eq!(tx.list_containers(true).await.expect("list").len(), 3);
    assert_eq!(tx.container_progress(&id("ab2")).await.expect("asked"), None);
}

#[tokio::test]
async fn a_hundred_creates_at_once_get_a_hundred_addresses() {
    let (database, seed) = fresh("addresses").await;
    let store = gateway(&database);
    let project = Arc::new(seed.project().await.expect("project"));
    let creates = (0..100).map(|n| {
        let (store, project) = (store.clone(), Arc::clone(&project));
        tokio::spawn(async move { create(&store, &project, &id(&format!("{n:03}")), &format!("c{n}")).await })
    });
    for created in futures_of(creates).await {
        assert_eq!(created, Ok(true));
    }
    let mut tx = store.project_tx(&ProjectScope::delegated(project.id)).await.expect("tx");
    let containers = tx.list_containers(true).await.expect("list");
    let ips: BTreeSet<_> = containers.iter().flat_map(|c| &c.endpoints).map(|e| e.ip).collect();
    assert_eq!(ips.len(), 100);
    let subnet = containers[0].endpoints[0].subnet;
    let reserved = [subnet.network(), subnet.broadcast(), (u32::from(subnet.network()) + 1).into()];
    assert!(reserved.iter().all(|ip| !ips.contains(ip)), "network, gateway and broadcast stay free");
}

async fn futures_of<T>(tasks: impl Iterator<Item = tokio::task::JoinHandle<T>>) -> Vec<T> {
    let mut results = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        results.push(task.await.expect("no panic"));
    }
    results
}

#[tokio::test]
async fn a_small_network_is_used_up_to_the_last_address_and_then_says_so() {
    let (database, seed) = fresh("exhaustion").await;
    let store = gateway(&database);
    let project = seed.project().await.expect("project");
    sqlx_execute(&seed, "UPDATE networks SET subnet = '10.200.0.0/28', next_offset = 9, last_offset = 14").await;
    for n in 0..13 {
        assert_eq!(create(&store, &project, &id(&format!("{n:02}")), &format!("c{n}")).await, Ok(true), "{n}");
    }
    let full = create(&store, &project, &id("ff"), "toomany").await.expect_err("full");
    assert!(matches!(&full, Error::Failed(text) if text.contains("no available IPv4 addresses")), "{full:?}");
    let mut tx = store.project_tx(&ProjectScope::delegated(project.id)).await.expect("tx");
    assert!(tx.want_removed(&id("05"), false).await.expect("removed"));
    tx.commit().await.expect("commit");
    assert_eq!(create(&store, &project, &id("fe"), "again").await, Ok(true), "a freed address is found");
}

async fn sqlx_execute(seed: &testkit::Seed, statement: &'static str) {
    sqlx::query(statement).execute(seed.pool()).await.expect("executes");
}

#[tokio::test]
async fn a_port_of_a_host_belongs_to_one_container_of_all_projects() {
    let (database, seed) = fresh("ports").await;
    let store = gateway(&database);
    let (one, two) = (seed.project().await.expect("project"), seed.project().await.expect("project"));
    let host = seed.host("h1", room_for(10)).await.expect("host");
    let other_host = seed.host("h2", room_for(10)).await.expect("host");
    create(&store, &one, &id("a1"), "web").await.expect("created");
    create(&store, &two, &id("b1"), "web").await.expect("created");
    let port = |host_port| PublishedPort { container_port: 80, protocol: PortProtocol::Tcp, host_ip: None, host_port };
    let mut first = store.project_tx(&ProjectScope::delegated(one.id)).await.expect("tx");
    assert_eq!(first.reserve_ports(host, &id("a1"), 1, &[port(8080), port(8081)]).await, Ok(vec![]));
    first.commit().await.expect("commit");
    let mut second = store.project_tx(&ProjectScope::delegated(two.id)).await.expect("tx");
    assert_eq!(second.reserve_ports(host, &id("b1"), 1, &[port(9000), port(8081)]).await, Ok(vec![port(8081)]));
    assert_eq!(second.reserve_ports(other_host, &id("b1"), 1, &[port(8081)]).await, Ok(vec![]));
    drop(second);
    let mut first = store.project_tx(&ProjectScope::delegated(one.id)).await.expect("tx");
    assert_eq!(first.find_container("web").await.expect("found").ports, [port(8080), port(8081)]);
    first.free_ports(&id("a1")).await.expect("freed");
    first.commit().await.expect("commit");
    let mut second = store.project_tx(&ProjectScope::delegated(two.id)).await.expect("tx");
    assert_eq!(second.reserve_ports(host, &id("b1"), 1, &[port(8081)]).await, Ok(vec![]));
}

#[tokio::test]
async fn wishes_count_runs_and_end_with_removal() {
    let (database, seed) = fresh("wishes").await;
    let store = gateway(&database);
    let project = seed.project().await.expect("project");
    create(&store, &project, &id("a1"), "web").await.expect("created");
    let mut tx = store.project_tx(&ProjectScope::delegated(project.id)).await.expect("tx");
    assert_eq!(tx.want_running(&id("a1")).await, Ok(1));
    tx.want_stopped(&id("a1"), "SIGINT", 3).await.expect("stopped");
    let stopped = Desired::Stopped { run: 1, signal: "SIGINT".into(), timeout_s: 3 };
    assert_eq!(tx.lock_container("web").await.expect("found").desired, stopped);
    assert_eq!(tx.want_running(&id("a1")).await, Ok(2));
    tx.want_removed(&id("a1"), false).await.expect("removed");
    assert!(tx.want_running(&id("a1")).await.is_err(), "nothing is wanted of it any more");
}
