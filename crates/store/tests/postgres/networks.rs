//! Networks that users make: names, subnets, and what hosts hear of them.

use std::collections::{BTreeMap, BTreeSet};

use model::{ContainerId, ContainerSpec, Error, NetworkId};
use store::{ChosenSubnet, NewEndpoint, NewNetwork, ProjectScope, Store};
use testkit::{Database, SeededProject, room_for};
use time::OffsetDateTime;

use crate::{fresh, scheduler};

fn gateway(database: &Database) -> Store {
    Store::connect_lazy(&database.gateway, 8).expect("a url")
}

fn chosen(subnet: &str) -> ChosenSubnet {
    let subnet: ipnet::Ipv4Net = subnet.parse().expect("a subnet");
    let gateway = subnet.hosts().next().expect("room");
    let last = u32::from(subnet.broadcast()) - u32::from(subnet.network()) - 1;
    ChosenSubnet { subnet, gateway, reserved: Vec::new(), offsets: (1, last) }
}

async fn create(
    store: &Store,
    project: &SeededProject,
    n: u8,
    name: &str,
    subnet: Option<&str>,
) -> model::Result<NetworkId> {
    let (id, none) = (NetworkId::from_bytes([n; 32]), BTreeMap::new());
    let mut tx = store.project_tx(&ProjectScope::delegated(project.id)).await?;
    let new = NewNetwork {
        id: &id,
        name,
        driver: "bridge",
        internal: false,
        attachable: false,
        labels: &none,
        options: &none,
        ipam: None,
        subnet: subnet.map(chosen),
        created_at: OffsetDateTime::now_utc(),
    };
    tx.create_network(&new).await?;
    tx.commit().await?;
    Ok(id)
}

async fn connect(store: &Store, project: &SeededProject, container: &ContainerId, network: &NetworkId, alias: &str) {
    let mut tx = store.project_tx(&ProjectScope::delegated(project.id)).await.expect("tx");
    let aliases = [alias.to_owned()];
    let new = NewEndpoint { network: Some(network), interface: 1, aliases: &aliases, ..NewEndpoint::default() };
    tx.allocate_endpoint(container, &new).await.expect("an address");
    tx.networks_changed(container).await.expect("told");
    tx.commit().await.expect("commit");
}

#[tokio::test]
async fn a_name_is_a_projects_own_and_a_subnet_is_nobody_elses() {
    let (database, seed) = fresh("networks").await;
    let store = gateway(&database);
    let (one, two) = (seed.project().await.expect("project"), seed.project().await.expect("project"));
    create(&store, &one, 1, "app", None).await.expect("made");
    create(&store, &two, 2, "app", None).await.expect("the name is free there");
    let taken = create(&store, &one, 3, "app", None).await.expect_err("taken");
    assert_eq!(taken, Error::Conflict("network with name app already exists".into()));
    create(&store, &one, 4, "mine", Some("172.28.0.0/24")).await.expect("made");
    let overlap = create(&store, &two, 5, "theirs", Some("172.28.0.0/16")).await.expect_err("overlaps");
    assert!(overlap.to_string().contains("Pool overlaps with other one on this address space"), "{overlap}");
    for (n, subnet) in [(6, "8.8.8.0/24"), (7, "10.128.0.0/20")] {
        let refused = create(&store, &two, n, "wild", Some(subnet)).await.expect_err("not to choose");
        assert!(matches!(refused, Error::Forbidden(_)), "{subnet}: {refused}");
    }
    let mut tx = store.project_tx(&ProjectScope::delegated(one.id)).await.expect("tx");
    let networks = tx.networks().await.expect("list");
    assert_eq!(networks.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["app", "bridge", "mine"]);
    assert!(networks.iter().all(|n| n.named == (n.name != "bridge")));
}

#[tokio::test]
async fn a_full_network_gives_no_reserved_address_and_frees_what_is_given_up() {
    let (database, seed) = fresh("network_full").await;
    let (store, project) = (gateway(&database), seed.project().await.expect("project"));
    let network = create(&store, &project, 1, "tiny", Some("172.28.0.0/29")).await.expect("made");
    let mut containers = Vec::new();
    for _ in 0..6 {
        containers.push(seed.container(&project, &ContainerSpec::default()).await.expect("container"));
    }
    let mut tx = store.project_tx(&ProjectScope::delegated(project.id)).await.expect("tx");
    let new = NewEndpoint { network: Some(&network), interface: 1, ..NewEndpoint::default() };
    let mut given = BTreeSet::new();
    for container in &containers[..5] {
        given.insert(tx.allocate_endpoint(container, &new).await.expect("room").ip.octets()[3]);
    }
    assert_eq!(given.into_iter().collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
    let full = tx.allocate_endpoint(&containers[5], &new).await.expect_err("full");
    assert!(full.to_string().contains("no available IPv4 addresses"), "{full}");
    tx.free_endpoint(&containers[2], &network).await.expect("freed");
    let fixed = NewEndpoint { ip: Some([172, 28, 0, 2].into()), ..new.clone() };
    let held = tx.allocate_endpoint(&containers[5], &fixed).await.expect_err("held");
    assert_eq!(held, Error::Forbidden("Address already in use".into()));
    assert!(tx.allocate_endpoint(&containers[5], &new).await.is_ok());
}

#[tokio::test]
async fn hosts_hear_of_names_when_a_run_is_wanted_and_until_it_is_over() {
    let (database, seed) = fresh("network_names").await;
    let (store, project) = (gateway(&database), seed.project().await.expect("project"));
    let planner = scheduler(&database);
    let host = seed.host("a", room_for(5)).await.expect("host");
    let network = create(&store, &project, 1, "app", None).await.expect("made");
    let container = seed.container(&project, &ContainerSpec::default()).await.expect("container");
    let plan = planner::plan(&planner.plan_snapshot(&[]).await.expect("snapshot").expect("one"));
    planner.apply_plan(&plan).await.expect("placed");
    let full = planner.host_changes(host, None).await.expect("plan").expect("everything");
    assert_eq!(full.networks.iter().map(|n| n.names.is_some()).collect::<Vec<_>>(), [false], "only the bridge");

    // Connected where the host has the network not yet: it comes with the container at once.
    connect(&store, &project, &container, &network, "Web").await;
    let delta = planner.host_changes(host, Some(full.generation)).await.expect("plan").expect("news");
    assert_eq!(delta.containers[0].endpoints.len(), 2);
    let named = |delta: &contract::host::HostDelta| -> Vec<String> {
        let network = delta.networks.iter().find(|n| n.id == network).expect("described");
        network.names.iter().flatten().map(|name| name.name.clone()).collect()
    };
    assert!(named(&delta).is_empty(), "it does not run");
    assert_eq!(planner.spread_network_changes().await.expect("spread"), BTreeSet::from([host]));
    assert!(planner.spread_network_changes().await.expect("spread").is_empty(), "once");

    seed.want_running(&container).await.expect("start");
    planner.spread_network_changes().await.expect("spread");
    let started = planner.host_changes(host, Some(delta.generation)).await.expect("plan").expect("news");
    assert!(named(&started).contains(&"web".to_owned()), "{:?}", named(&started));
    assert!(named(&started).contains(&container.short().to_owned()));

    let mut tx = store.project_tx(&ProjectScope::delegated(project.id)).await.expect("tx");
    let record = tx.networks().await.expect("list").into_iter().find(|n| n.id == network).expect("there");
    let busy = tx.delete_network(&record).await.expect_err("in use");
    assert!(busy.to_string().contains("has active endpoints"), "{busy}");
    tx.want_removed(&container, false).await.expect("removed");
    tx.commit().await.expect("commit");
    assert_eq!(planner.spread_network_changes().await.expect("spread"), BTreeSet::from([host]));
    let over = planner.host_changes(host, Some(started.generation)).await.expect("plan").expect("news");
    assert!(named(&over).is_empty());
}
