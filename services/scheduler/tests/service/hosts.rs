//! What a host sees: joining, its plan as a stream, reporting; and what it does not.

use std::time::{Duration, Instant};

use chassis::{client::stream_lines, ids, pki};
use contract::{
    host::{ContainerReport, HostDelta, HostReport, JOIN, JoinReply, JoinRequest, PLAN, REPORT},
    place::{PLACE, PlaceRequest, Placement},
};
use futures::StreamExt as _;
use model::{ContainerSpec, Desired, Error, HostCondition, Observed, Phase, Progress};
use testkit::room_for;

use crate::Service;

async fn token(service: &Service, expires_in: &'static str) -> String {
    let token = ids::random_token();
    sqlx::query("INSERT INTO join_tokens (secret_sha256, expires_at) VALUES ($1, now() + $2::text::interval)")
        .bind(ids::sha256(token.as_bytes()).to_vec())
        .bind(expires_in)
        .execute(service.seed.pool())
        .await
        .expect("a token");
    token
}

fn join(token: &str, name: &str, csr_pem: &str) -> JoinRequest {
    JoinRequest {
        token: token.to_owned(),
        csr_pem: csr_pem.to_owned(),
        name: name.to_owned(),
        address: [192, 0, 2, 7].into(),
        agent_port: 7400,
        capacity: room_for(100),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_joins_hears_its_plan_and_reports_over_its_own_certificate() {
    let service = Service::start("host_life").await;
    let token = token(&service, "1 hour").await;
    let (csr, key) = pki::new_csr().expect("csr");
    let reply: JoinReply = service.client(None).post(JOIN, &join(&token, "node-1", &csr)).await.expect("joined");
    service.write_identity("node-1", &reply.certificate_pem, &key);
    let host = service.client(Some("node-1"));

    // Heard from, hence ready; placed on, hence told.
    let alive = HostReport { capacity: room_for(100), ..HostReport::default() };
    host.post::<_, ()>(REPORT, &alive).await.expect("a sign of life");
    let response = host.stream(axum::http::Method::GET, PLAN, None::<&()>, None::<&()>).await.expect("a stream");
    let mut lines = stream_lines::<HostDelta>(response);
    let full = lines.next().await.expect("a line").expect("a delta");
    assert!(full.full && full.containers.is_empty());

    let project = service.seed.project().await.expect("project");
    let container = service.seed.container(&project, &ContainerSpec::default()).await.expect("container");
    let gateway = service.client_named("service:gateway");
    let asked = PlaceRequest { project: project.id, container: container.clone() };
    let placed: Placement = gateway.post(PLACE, &asked).await.expect("placed");
    assert_eq!(placed.host, reply.host);
    let delta = lines.next().await.expect("a line").expect("a delta");
    assert_eq!((delta.full, delta.containers[0].id.clone()), (false, container.clone()));
    assert_eq!(delta.networks[0].id, project.network);
    assert!(delta.generation > full.generation);

    // Again with every connection warm.
    let mut took = Vec::new();
    for _ in 0..21 {
        let container = service.seed.container(&project, &ContainerSpec::default()).await.expect("container");
        let asked = PlaceRequest { project: project.id, container: container.clone() };
        let began = Instant::now();
        let (placed, told) = tokio::join!(gateway.post::<_, Placement>(PLACE, &asked), lines.next());
        placed.expect("placed");
        assert_eq!(told.expect("a line").expect("a delta").containers[0].id, container);
        took.push(began.elapsed());
    }
    took.sort();
    println!("request to delta at the host: p50 {:?}", took[10]);

    service.seed.want_running(&container).await.expect("start");
    let delta = lines.next().await.expect("a line").expect("a delta");
    assert_eq!(delta.containers[0].desired, Desired::Running { run: 1 });

    let observed = Observed {
        pid: Some(17),
        started_at: Some(time::OffsetDateTime::UNIX_EPOCH),
        ..Observed::at(Progress { run: 1, restart: 0, phase: Phase::Running })
    };
    let report = HostReport { containers: vec![ContainerReport { id: container.clone(), observed }], ..alive };
    host.post::<_, ()>(REPORT, &report).await.expect("durable");
    let phase: i16 = sqlx::query_scalar("SELECT observed_phase FROM containers WHERE id = $1")
        .bind(container.as_str())
        .fetch_one(service.seed.pool())
        .await
        .expect("the row");
    assert_eq!(phase, Phase::Running.rank());
    service.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_takes_in_one_host_and_that_host_again() {
    let service = Service::start("host_tokens").await;
    let nobody = service.client(None);
    let (csr, _) = pki::new_csr().expect("csr");
    let first_token = token(&service, "1 hour").await;
    let first: JoinReply = nobody.post(JOIN, &join(&first_token, "node-1", &csr)).await.expect("joined");
    let again: JoinReply = nobody.post(JOIN, &join(&first_token, "node-1", &csr)).await.expect("joined again");
    assert_eq!(first.host, again.host);
    let other = nobody.post::<_, JoinReply>(JOIN, &join(&first_token, "node-2", &csr)).await;
    assert!(matches!(other, Err(Error::Forbidden(_))), "{other:?}");
    let renewed = token(&service, "1 hour").await;
    let renewed: JoinReply = nobody.post(JOIN, &join(&renewed, "node-1", &csr)).await.expect("with a new token");
    assert_eq!(first.host, renewed.host);

    let expired = token(&service, "-1 second").await;
    for wrong in [expired.as_str(), "", "whf_wrong"] {
        let refused = nobody.post::<_, JoinReply>(JOIN, &join(wrong, "node-3", &csr)).await;
        assert!(matches!(refused, Err(Error::Unauthenticated(_))), "{refused:?}");
    }
    let unused = token(&service, "1 hour").await;
    for (name, csr) in [("node-3", "no request"), ("../x", csr.as_str()), ("", csr.as_str())] {
        let refused = nobody.post::<_, JoinReply>(JOIN, &join(&unused, name, csr)).await;
        assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{refused:?}");
    }
    let hosts: i64 =
        sqlx::query_scalar("SELECT count(*) FROM hosts").fetch_one(service.seed.pool()).await.expect("hosts");
    assert_eq!(hosts, 1, "nothing half-made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hosts_door_opens_to_hosts_of_the_fleet_only() {
    let service = Service::start("host_door").await;
    let report = HostReport::default();
    for stranger in [service.client(None), service.client_named("service:gateway")] {
        let refused = stranger.post::<_, ()>(REPORT, &report).await;
        assert!(matches!(refused, Err(Error::Unauthenticated(_))), "{refused:?}");
        let refused = stranger.get::<HostDelta>(PLAN).await;
        assert!(matches!(refused, Err(Error::Unauthenticated(_))), "{refused:?}");
    }
    // Signed by us once, but no longer in the fleet.
    let removed = service.client_named("host:01900000-0000-7000-8000-0000deadbeef");
    let refused = removed.post::<_, ()>(REPORT, &report).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    let refused = removed.get::<HostDelta>(PLAN).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_host_counts_once_it_was_heard_from() {
    let service = Service::start("host_ready").await;
    let (csr, key) = pki::new_csr().expect("csr");
    let token = token(&service, "1 hour").await;
    let reply: JoinReply = service.client(None).post(JOIN, &join(&token, "node-1", &csr)).await.expect("joined");
    service.write_identity("node-1", &reply.certificate_pem, &key);
    let store = store::Store::connect_lazy(&service.database.scheduler, 2).expect("a url");
    assert_eq!(store.hosts().await.expect("hosts")[0].condition, HostCondition::Down);
    let report = HostReport { capacity: room_for(10), ..HostReport::default() };
    service.client(Some("node-1")).post::<_, ()>(REPORT, &report).await.expect("report");
    assert_eq!(store.hosts().await.expect("hosts")[0].condition, HostCondition::Ready);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_stream_still_beats() {
    let service = Service::start("host_heartbeat").await;
    let id = service.seed.host("a", room_for(10)).await.expect("host");
    let host = service.host_client(id);
    let response = host.stream(axum::http::Method::GET, PLAN, None::<&()>, None::<&()>).await.expect("a stream");
    let mut bytes = response.bytes_stream();
    let first = bytes.next().await.expect("a line").expect("bytes");
    assert!(first.ends_with(b"\n") && first.len() > 1);
    let beat = tokio::time::timeout(Duration::from_secs(8), bytes.next()).await.expect("in time");
    assert_eq!(beat.expect("open").expect("bytes").as_ref(), b"\n");
}
