//! Who a container with the Docker socket is, by what Postgres knows at that moment.

use contract::{
    host::{ContainerReport, HostReport},
    socket::Claim,
};
use model::{ContainerId, ContainerSpec, Error, HostId, Observed, Phase, Progress, SocketMount};
use planner::plan;
use sqlx::{Connection as _, PgConnection};
use store::{Principal, Store};
use testkit::{Database, SeededProject, room_for};

use crate::{fresh, scheduler};

struct Fixture {
    database: Database,
    gateway: Store,
    project: SeededProject,
    host: HostId,
    elsewhere: HostId,
    container: ContainerId,
}

/// A container with the socket, wanted running for the first time, in a project that allows it.
async fn fixture(name: &str, spec: ContainerSpec) -> Fixture {
    let (database, seed) = fresh(name).await;
    let project = seed.project().await.expect("project");
    let host = seed.host("a", room_for(5)).await.expect("host");
    let container = seed.container(&project, &spec).await.expect("container");
    let scheduler = scheduler(&database);
    let plan = plan(&scheduler.plan_snapshot(&[]).await.expect("snapshot").expect("one"));
    scheduler.apply_plan(&plan).await.expect("apply");
    let elsewhere = seed.host("b", room_for(5)).await.expect("host");
    seed.want_running(&container).await.expect("start");
    let gateway = Store::connect_lazy(&database.gateway, 2).expect("a url");
    let fixture = Fixture { database, gateway, project, host, elsewhere, container };
    fixture.sql("UPDATE projects SET docker_socket = true").await;
    fixture
}

fn with_socket() -> ContainerSpec {
    let socket = SocketMount { path: "/var/run/docker.sock".into(), ..SocketMount::default() };
    ContainerSpec { docker_sockets: vec![socket], ..ContainerSpec::default() }
}

impl Fixture {
    async fn sql(&self, statement: &'static str) {
        let mut owner = PgConnection::connect(&self.database.owner).await.expect("connect");
        sqlx::query(statement).execute(&mut owner).await.expect(statement);
    }

    async fn ask(&self, host: HostId, run: u32, restart: u32) -> model::Result<Option<Principal>> {
        let claim = Claim { container: self.container.clone(), run, restart };
        self.gateway.authenticate_container(host, &claim).await
    }

    async fn is_somebody(&self, run: u32, restart: u32) -> bool {
        self.ask(self.host, run, restart).await.expect("answers").is_some()
    }

    async fn reports(&self, run: u32, restart: u32, phase: Phase) {
        let observed = Observed::at(Progress { run, restart, phase });
        let containers = vec![ContainerReport { id: self.container.clone(), observed }];
        let report = HostReport { generation: 1, capacity: room_for(5), containers, ..HostReport::default() };
        scheduler(&self.database).record_report(self.host, &report).await.expect("recorded");
    }
}

#[tokio::test]
async fn a_run_on_its_host_is_its_project_and_told_apart_from_a_token() {
    let it = fixture("socket_principal", with_socket()).await;
    match it.ask(it.host, 1, 0).await {
        Ok(Some(Principal::Container(scope, container))) => {
            assert_eq!((scope.project(), container), (it.project.id, it.container.clone()));
            assert!(scope.token().is_none() && scope.tenant().is_some());
        }
        other => panic!("{other:?}"),
    }
    assert!(it.ask(it.elsewhere, 1, 0).await.expect("answers").is_none(), "another host asks");
    let none = Claim { container: ContainerId::from_bytes([9; 32]), run: 1, restart: 0 };
    assert!(it.gateway.authenticate_container(it.host, &none).await.expect("answers").is_none());
}

#[tokio::test]
async fn it_ends_with_the_run_and_not_before() {
    let it = fixture("socket_run", with_socket()).await;
    assert!(!it.is_somebody(2, 0).await, "a run nobody wants");
    it.reports(1, 0, Phase::Running).await;
    assert!(it.is_somebody(1, 0).await);
    // Its host starts it again before it has told of the end.
    assert!(it.is_somebody(1, 1).await);
    it.reports(1, 1, Phase::Running).await;
    assert!(!it.is_somebody(1, 0).await, "the life before");
    it.sql("UPDATE containers SET desired_state = 'stopped'").await;
    assert!(it.is_somebody(1, 1).await, "while it is being stopped it may tidy up");
    it.reports(1, 1, Phase::Exited).await;
    assert!(!it.is_somebody(1, 1).await, "it is over");
    it.sql("UPDATE containers SET desired_state = 'running', run = run + 1").await;
    assert!(!it.is_somebody(1, 1).await, "the run before");
    assert!(it.is_somebody(2, 0).await);
    it.sql("UPDATE containers SET desired_state = 'removed'").await;
    assert!(!it.is_somebody(2, 0).await, "it is being removed");
}

#[tokio::test]
async fn the_policy_is_asked_each_time_and_a_container_without_the_mount_is_nobody() {
    let it = fixture("socket_policy", with_socket()).await;
    assert!(it.is_somebody(1, 0).await);
    it.sql("UPDATE projects SET docker_socket = false").await;
    let refused = it.ask(it.host, 1, 0).await.expect_err("refused");
    assert!(matches!(&refused, Error::Forbidden(text) if text.contains("/api/v1/project")), "{refused:?}");
    let without = fixture("socket_without", ContainerSpec::default()).await;
    assert!(!without.is_somebody(1, 0).await);
}
