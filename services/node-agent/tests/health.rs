//! Health checks and the OOM killer, as a host tells of them: a real agent, real shims and runc.

mod support;

use std::time::{Duration, Instant};

use contract::{
    agent::{FreezeRequest, KillRequest},
    host::PlannedContainer,
};
use model::{ContainerId, Desired, HealthStatus, Healthcheck, MemoryBytes, Observed, Phase};
use support::{World, busybox, shell};

/// A check by a shell command, twice a second.
fn check(script: &str) -> Healthcheck {
    Healthcheck {
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        interval_ms: 400,
        timeout_ms: 10_000,
        start_period_ms: 0,
        start_interval_ms: 400,
        retries: 2,
    }
}

async fn run(world: &World, mut container: PlannedContainer, check: Option<Healthcheck>) -> ContainerId {
    container.spec.healthcheck = check;
    let id = container.id.clone();
    world.control.want(container);
    world.control.want_state(&id, Desired::Running { run: 1 });
    world.control.until_phase(&id, 1, Phase::Running).await;
    id
}

fn is(status: HealthStatus) -> impl Fn(&Observed) -> bool {
    move |o| o.progress.phase == Phase::Running && o.health.as_ref().is_some_and(|health| health.status == status)
}

fn probes(observed: &Observed) -> usize {
    observed.health.as_ref().map_or(0, |health| health.log.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_goes_from_starting_over_healthy_to_unhealthy_and_back() {
    let mut world = World::begin("health").await;
    let image = busybox(&world.control);
    let container =
        shell(&image, "trap 'touch /sick' USR1; trap 'rm /sick' USR2; trap 'exit 3' TERM; while :; do sleep 0.1; done");
    let id = run(&world, container, Some(check("echo looked; echo twice >&2; test ! -e /sick"))).await;
    let first = world.control.until(&id, "starting", is(HealthStatus::Starting)).await;
    assert_eq!(probes(&first), 0);
    let well = world.control.until(&id, "healthy", is(HealthStatus::Healthy)).await;
    let health = well.health.expect("has a check");
    assert_eq!((health.failing_streak, health.log[0].exit_code), (0, 0));
    assert_eq!(health.log[0].output, "looked\ntwice\n");
    let kill_path = format!("/containers/v1/{id}/kill");
    let (usr1, usr2) = (KillRequest { signal: 10 }, KillRequest { signal: 12 });
    world.gateway().post::<_, ()>(&kill_path, &usr1).await.expect("makes it sick");
    let sick = world.control.until(&id, "unhealthy", is(HealthStatus::Unhealthy)).await;
    let health = sick.health.expect("has a check");
    assert_eq!((health.failing_streak, health.log.last().map(|probe| probe.exit_code)), (2, Some(1)));
    let five = world.control.until(&id, "five probes", |o| probes(o) == 5).await;
    assert!(five.revision > 5, "each counts: {}", five.revision);
    world.gateway().post::<_, ()>(&kill_path, &usr2).await.expect("heals it");
    world.control.until(&id, "healthy again", is(HealthStatus::Healthy)).await;
    let execs = world.path("run/containers").join(id.as_str()).join("execs");
    assert!(std::fs::read_dir(execs).expect("lists").count() < 6, "probes leave no records");

    // It ends with the run, and the next run begins anew.
    world.control.want_state(&id, Desired::Stopped { run: 1, signal: "SIGTERM".into(), timeout_s: 5 });
    let over = world.control.until_phase(&id, 1, Phase::Exited).await;
    assert_eq!(over.exit.as_ref().map(|exit| exit.code), Some(3));
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    let still = world.control.history(&id).last().cloned().expect("reported");
    assert_eq!(still.revision, over.revision, "nothing is probed that does not run");
    world.control.want_state(&id, Desired::Running { run: 2 });
    let again = world.control.until_phase(&id, 2, Phase::Running).await;
    assert_eq!(again.health.map(|health| health.status), Some(HealthStatus::Starting));
    world.control.until(&id, "healthy in run 2", is(HealthStatus::Healthy)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_that_takes_too_long_is_killed_and_one_that_cannot_be_run_fails() {
    let world = World::begin("slow").await;
    let image = busybox(&world.control);
    let slow = Healthcheck { timeout_ms: 500, retries: 1, ..check("echo here; sleep 100; sleep 100") };
    let id = run(&world, shell(&image, "sleep 600"), Some(slow)).await;
    let sick = world.control.until(&id, "unhealthy", is(HealthStatus::Unhealthy)).await;
    let probe = sick.health.expect("has a check").log[0].clone();
    assert_eq!(
        (probe.exit_code, probe.output.as_str()),
        (-1, "Health check exceeded timeout (500ms): here\n"),
        "in dockerd's words"
    );
    world.control.until(&id, "three probes", |o| probes(o) >= 3).await;
    let sleeping = world.processes_of(&id).iter().filter(|line| line.contains("sleep 100")).count();
    assert!(sleeping <= 1, "no probe outlives its time");

    let missing = Healthcheck { command: vec!["no-such-probe".into()], retries: 1, ..check("") };
    let other = run(&world, shell(&image, "sleep 600"), Some(missing)).await;
    let sick = world.control.until(&other, "unhealthy", is(HealthStatus::Unhealthy)).await;
    let probe = sick.health.expect("has a check").log[0].clone();
    assert_eq!(probe.exit_code, -1);
    assert!(probe.output.contains("exec: \"no-such-probe\": executable file not found in $PATH"), "{probe:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_outlives_the_agent_and_waits_while_paused() {
    let mut world = World::begin("adopt-health").await;
    let image = busybox(&world.control);
    // The second probe never ends: it must not outlive the agent that wants to know.
    let script = "echo x >> /probes; test $(wc -l < /probes) != 2 || sleep 100";
    let id = run(&world, shell(&image, "sleep 600"), Some(check(script))).await;
    let well = world.control.until(&id, "healthy", is(HealthStatus::Healthy)).await;
    let hangs = |world: &World| world.processes_of(&id).iter().any(|line| line.contains("sleep 100"));
    let deadline = Instant::now() + Duration::from_secs(10);
    while !hangs(&world) {
        assert!(Instant::now() < deadline, "the second probe hangs");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.kill_agent();
    let deadline = Instant::now() + Duration::from_secs(10);
    while hangs(&world) {
        assert!(Instant::now() < deadline, "a probe on a lifeline");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.start_agent().await;
    let adopted = world.control.until(&id, "further probes", |o| probes(o) >= 3).await;
    let since = world.control.history(&id).iter().filter(|o| o.revision >= well.revision).cloned().collect::<Vec<_>>();
    assert!(since.iter().all(is(HealthStatus::Healthy)), "a restarted agent does not begin at starting: {since:?}");
    assert_eq!(adopted.progress, well.progress);

    let path = format!("/containers/v1/{id}/freeze");
    world.gateway().post::<_, ()>(&path, &FreezeRequest { frozen: true }).await.expect("freezes");
    let paused = world.control.until(&id, "paused", |o| o.paused).await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let last = world.control.history(&id).last().cloned().expect("reported");
    assert_eq!(last.revision, paused.revision, "nothing is probed that stands still");
    world.gateway().post::<_, ()>(&path, &FreezeRequest { frozen: false }).await.expect("thaws");
    world.control.until(&id, "probed again", |o| !o.paused && o.revision > paused.revision + 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_starts_again_does_not_begin_the_interval_again() {
    let mut world = World::begin("interval").await;
    let image = busybox(&world.control);
    let slow = Healthcheck { interval_ms: 5_000, start_period_ms: 60_000, ..check("true") };
    let id = run(&world, shell(&image, "sleep 600"), Some(slow)).await;
    world.control.until(&id, "healthy", is(HealthStatus::Healthy)).await;
    tokio::time::sleep(Duration::from_millis(3_000)).await;
    world.kill_agent();
    world.start_agent().await;
    let second = world.control.until(&id, "a second probe", |o| probes(o) == 2).await;
    let log = second.health.expect("has a check").log;
    let rested_ms = (log[1].started_at - log[0].finished_at).whole_milliseconds();
    assert!((5_000..7_500).contains(&rested_ms), "{rested_ms} ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_start_period_is_probed_faster_and_forgives() {
    let world = World::begin("start-period").await;
    let image = busybox(&world.control);
    let slow_starter = Healthcheck {
        interval_ms: 60_000,
        start_period_ms: 50_000,
        start_interval_ms: 200,
        retries: 1,
        ..check("test -e /ready")
    };
    let id = run(&world, shell(&image, "sleep 2; touch /ready; sleep 600"), Some(slow_starter)).await;
    let well = world.control.until(&id, "healthy", is(HealthStatus::Healthy)).await;
    let health = well.health.expect("has a check");
    assert!(health.log.len() > 2 && health.failing_streak == 0, "{health:?}");
    let all = world.control.history(&id);
    assert!(!all.iter().any(is(HealthStatus::Unhealthy)), "{all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oom_killer_is_told_of_while_the_container_runs_and_with_its_end() {
    let mut world = World::begin("oom").await;
    let image = busybox(&world.control);
    let limited = |script: &str| {
        let mut container = shell(&image, script);
        container.spec.resources.memory_bytes = Some(MemoryBytes(16 << 20));
        container
    };
    let id = run(&world, limited("dd if=/dev/zero of=/dev/null bs=64M; echo survived; sleep 600"), None).await;
    let hit = world.control.until(&id, "oom", |o| o.oom_kills > 0).await;
    assert_eq!((hit.progress.phase, hit.oom_kills, hit.revision), (Phase::Running, 1, 1));
    world.kill_agent();
    world.start_agent().await;
    world.control.want_state(&id, Desired::Stopped { run: 1, signal: "SIGKILL".into(), timeout_s: 1 });
    let over = world.control.until_phase(&id, 1, Phase::Exited).await;
    assert_eq!((over.oom_kills, over.exit.map(|exit| (exit.code, exit.oom_killed))), (1, Some((137, true))));

    let first = limited("exec dd if=/dev/zero of=/dev/null bs=64M");
    let id = first.id.clone();
    world.control.want(first);
    world.control.want_state(&id, Desired::Running { run: 1 });
    let over = world.control.until_phase(&id, 1, Phase::Exited).await;
    assert_eq!(over.exit.map(|exit| (exit.code, exit.oom_killed)), Some((137, true)));
}
