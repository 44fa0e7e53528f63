//! A list is what Postgres holds now, whoever changed it and whatever was listed before.

use model::{ContainerId, ContainerName, ContainerSpec, PortProtocol, PublishedPort};
use store::{ContainerRecord, NewContainer, NewEndpoint, ProjectScope, ProjectTx, Store};
use testkit::{SeededProject, room_for};
use time::OffsetDateTime;

use crate::fresh;

fn id(digits: &str) -> ContainerId {
    format!("{digits:0<64}").parse().expect("hex")
}

async fn begin(store: &Store, project: &SeededProject) -> ProjectTx {
    store.project_tx(&ProjectScope::delegated(project.id)).await.expect("tx")
}

async fn create(store: &Store, project: &SeededProject, id: &ContainerId, name: &str) {
    let mut tx = begin(store, project).await;
    let (name, image_id): (ContainerName, _) = (name.parse().expect("name"), project.image.parse().expect("digest"));
    let spec = ContainerSpec { image: "busybox".into(), ..ContainerSpec::default() };
    let new = NewContainer { id, name: &name, image_id: &image_id, spec: &spec, created_at: OffsetDateTime::now_utc() };
    assert!(tx.insert_container(new).await.expect("inserted"));
    tx.allocate_endpoint(id, &NewEndpoint::default()).await.expect("an address");
    tx.commit().await.expect("commit");
}

/// What one query each says of the same containers.
async fn one_by_one(store: &Store, project: &SeededProject, listed: &[ContainerRecord]) -> Vec<ContainerRecord> {
    let mut tx = begin(store, project).await;
    let mut records = Vec::new();
    for container in listed {
        records.push(tx.find_container(container.id.as_str()).await.expect("still there"));
    }
    records
}

#[tokio::test]
async fn a_list_that_was_read_before_tells_every_change_since() {
    let (database, seed) = fresh("lists").await;
    let store = || Store::connect_lazy(&database.gateway, 4).expect("a url");
    let (warm, other) = (store(), store());
    let project = seed.project().await.expect("project");
    let host = seed.host("h1", room_for(10)).await.expect("host");
    for n in 1..=3 {
        create(&other, &project, &id(&format!("a{n}")), &format!("c{n}")).await;
    }
    let seen = async || {
        let listed = begin(&warm, &project).await.list_containers(true).await.expect("list");
        assert_eq!(listed, one_by_one(&other, &project, &listed).await);
        assert_eq!(listed, begin(&warm, &project).await.list_containers(true).await.expect("listed again"));
        listed
    };
    let mut before = seen().await;
    assert_eq!(before.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["c3", "c2", "c1"], "newest first");
    let port = PublishedPort { container_port: 80, protocol: PortProtocol::Tcp, host_ip: None, host_port: 8080 };
    for step in 0..7 {
        let mut tx = begin(&other, &project).await;
        match step {
            0 => assert!(tx.rename_container(&id("a1"), &"web".parse().expect("name")).await.expect("asked")),
            1 => assert_eq!(tx.want_running(&id("a2")).await, Ok(1)),
            2 => assert_eq!(tx.reserve_ports(host, &id("a2"), 1, std::slice::from_ref(&port)).await, Ok(vec![])),
            3 => tx.free_ports(&id("a2")).await.expect("freed"),
            4 => sqlx::query("UPDATE containers SET host_id = $1, observed_phase = 3, pid = 7 WHERE id = $2")
                .bind(host.0)
                .bind(id("a3").as_str())
                .execute(seed.pool())
                .await
                .map(drop)
                .expect("reported"),
            5 => sqlx::query("DELETE FROM endpoints WHERE container_id = $1")
                .bind(id("a3").as_str())
                .execute(seed.pool())
                .await
                .map(drop)
                .expect("disconnected"),
            _ => assert!(tx.want_removed(&id("a1"), false).await.expect("removed"), "it was on no host"),
        }
        tx.commit().await.expect("commit");
        let now = seen().await;
        assert_ne!(now, before, "step {step} shows");
        before = now;
    }
    // A host's sign of life touches no container's row.
    sqlx::query("UPDATE hosts SET last_seen_at = now(), agent_port = 4711").execute(seed.pool()).await.expect("seen");
    let now = seen().await;
    let ports = now.iter().filter_map(|c| c.host.as_ref()).map(|host| host.agent_port).collect::<Vec<_>>();
    assert_eq!(ports, [4711]);
}

#[tokio::test]
async fn a_list_inside_a_change_is_not_what_others_are_told_after_it() {
    let (database, seed) = fresh("lists_inside_a_change").await;
    let store = Store::connect_lazy(&database.gateway, 4).expect("a url");
    let project = seed.project().await.expect("project");
    create(&store, &project, &id("a1"), "web").await;
    let mut tx = begin(&store, &project).await;
    assert_eq!(tx.want_running(&id("a1")).await, Ok(1));
    assert_eq!(tx.list_containers(true).await.expect("list")[0].run, 1);
    assert_eq!(tx.want_running(&id("a1")).await, Ok(2));
    tx.commit().await.expect("commit");
    let listed = begin(&store, &project).await.list_containers(true).await.expect("list");
    assert_eq!(listed[0].run, 2, "both writes have the number of one transaction");
}

#[tokio::test]
async fn a_list_under_change_is_never_older_than_its_question() {
    let (database, seed) = fresh("lists_under_change").await;
    let store = Store::connect_lazy(&database.gateway, 8).expect("a url");
    let project = seed.project().await.expect("project");
    for n in 0..8 {
        create(&store, &project, &id(&format!("a{n}")), &format!("c{n}")).await;
    }
    let writer = async {
        for run in 1..=40 {
            for n in 0..8 {
                let mut tx = begin(&store, &project).await;
                tx.lock_container(&format!("c{n}")).await.expect("found");
                assert_eq!(tx.want_running(&id(&format!("a{n}"))).await, Ok(run));
                tx.commit().await.expect("commit");
            }
        }
    };
    let reader = async {
        let mut runs = [0; 8];
        while runs.iter().any(|run| *run < 40) {
            for container in begin(&store, &project).await.list_containers(true).await.expect("list") {
                let n = container.name.as_str()[1..].parse::<usize>().expect("a number");
                assert!(container.run >= runs[n], "{}: run {} after {}", container.name, container.run, runs[n]);
                runs[n] = container.run;
            }
        }
    };
    tokio::join!(writer, reader);
}
