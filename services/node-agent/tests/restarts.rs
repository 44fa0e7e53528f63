//! Restarts: by a container's policy, over the agent's death, and after the host itself began anew.

mod support;

use std::time::{Duration, Instant};

use contract::agent::LogsQuery;
use model::{ContainerId, Desired, Phase, RestartPolicy};
use support::{World, all_logs, busybox, netns, program, shell, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_restart_policy_counts_within_the_run() {
    let world = World::begin("restart").await;
    let image = busybox(&world.control);
    let mut container = shell(&image, "echo x >> /count; exit $(wc -l < /count)");
    container.spec.restart = RestartPolicy::OnFailure { max_retries: 2 };
    let id = container.id.clone();
    world.control.want(container);
    world.control.want_state(&id, Desired::Running { run: 1 });
    let last = world
        .control
        .until(&id, "two restarts", |o| o.progress.restart == 2 && o.progress.phase == Phase::Exited)
        .await;
    assert_eq!((last.progress.run, last.exit.expect("told").code), (1, 3));
    let history = world.control.history(&id);
    assert!(history.windows(2).all(|w| w[0].progress <= w[1].progress));
}

/// A host that lost power and came back: no process, no mount, no cgroup, no run directory, another boot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_reboot_those_run_again_that_their_policy_says() {
    let mut world = World::begin("reboot").await;
    let image = busybox(&world.control);
    let cases = [
        ("no", RestartPolicy::No, "sleep 1000"),
        ("always", RestartPolicy::Always, "sleep 1000"),
        ("unless-stopped", RestartPolicy::UnlessStopped, "sleep 1000"),
        ("on-failure", RestartPolicy::OnFailure { max_retries: 3 }, "sleep 1000"),
        ("ended well", RestartPolicy::OnFailure { max_retries: 0 }, "exit 0"),
        ("stopped", RestartPolicy::Always, "sleep 1000"),
    ];
    let mut ids = Vec::new();
    for (_, restart, script) in cases {
        let mut container = shell(&image, &format!("echo begun >> /count; wc -l < /count; {script}"));
        container.spec.restart = restart;
        ids.push(container.id.clone());
        world.control.want(container);
        world.control.want_state(ids.last().expect("one"), Desired::Running { run: 1 });
    }
    for id in &ids[..4] {
        world.control.until_phase(id, 1, Phase::Running).await;
        assert_eq!(world.output_once(id, |told| !told.is_empty()).await, "1\n");
    }
    world.control.until_phase(&ids[4], 1, Phase::Exited).await;
    world.control.want_state(&ids[5], Desired::Stopped { run: 1, signal: "SIGKILL".into(), timeout_s: 1 });
    world.control.until_phase(&ids[5], 1, Phase::Exited).await;
    // One that goes by itself, and one that was on its way out.
    let mut transient = shell(&image, "sleep 1000");
    transient.spec.auto_remove = true;
    let transient_id = transient.id.clone();
    world.control.want(transient);
    world.control.want_state(&transient_id, Desired::Running { run: 1 });
    world.control.until_phase(&transient_id, 1, Phase::Running).await;

    world.reboot();
    world.start_agent().await;
    let ended = world.control.until_phase(&ids[0], 1, Phase::Exited).await;
    let exit = ended.exit.expect("told");
    assert_eq!((exit.code, exit.error.as_str(), exit.never_started()), (137, "host restarted", false));
    for (id, (name, ..)) in ids.iter().zip(cases).take(4).skip(1) {
        let again =
            world.control.until(id, name, |o| o.progress.restart == 1 && o.progress.phase == Phase::Running).await;
        assert_eq!(again.progress.run, 1, "{name}");
        // Its writable layer is the one it had, and nothing was begun twice.
        assert_eq!(world.output_once(id, |told| told.lines().count() >= 2).await, "1\n2\n", "{name}");
    }
    let gone = world.control.until_phase(&transient_id, 1, Phase::Removed).await;
    assert_eq!(gone.exit.map(|e| e.code), Some(137), "as it died with the host");
    for id in [&ids[0], &ids[4], &ids[5]] {
        assert_eq!(world.control.last(id).progress.restart, 0);
        assert!(world.cgroup_of(id).is_empty(), "it does not run");
    }
    assert_eq!(world.control.last(&ids[4]).exit.map(|e| e.code), Some(0), "what ended before keeps its code");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_under_way_goes_on_without_the_control_plane_and_over_the_agents_death() {
    let mut world = World::begin("backoff").await;
    let image = busybox(&world.control);
    let mut container = shell(&image, "date +%s.%N 2>/dev/null || echo x; exit 1");
    container.spec.restart = RestartPolicy::Always;
    let id = container.id.clone();
    world.control.want(container);
    world.control.want_state(&id, Desired::Running { run: 1 });
    world.control.until(&id, "three restarts", |o| o.progress.restart >= 3).await;
    world.kill_agent();
    world.start_agent().await;
    let last = world.control.until(&id, "goes on", |o| o.progress.restart >= 5).await;
    let runs = text(&world.logs(&id, &all_logs()).await, 1).lines().count();
    let told = last.progress.restart as usize;
    assert!((told..=told + 2).contains(&runs), "each attempt was made once: {runs} runs, {told} restarts");
    // 100, 200, 400, 800 and 1600 ms in between, and the starts themselves.
    let stamped = world.logs(&id, &LogsQuery { timestamps: true, ..all_logs() }).await;
    let at = |n: usize| {
        let (stamp, _) = stamped[n].1.split_once(' ').expect("stamped");
        time::OffsetDateTime::parse(stamp, &time::format_description::well_known::Rfc3339).expect("a time")
    };
    for (n, least_ms) in [(0, 100), (1, 200), (2, 400), (3, 800)] {
        let pause = at(n + 1) - at(n);
        assert!(pause >= time::Duration::milliseconds(least_ms), "{n}: {pause}");
        assert!(n == 3 || pause < time::Duration::milliseconds(least_ms + 1500), "{n}: {pause}");
    }
    // A stop in the pause between two attempts is at once.
    let begun = Instant::now();
    world.control.until(&id, "the pause", |o| o.progress.phase == Phase::Exited).await;
    world.control.want_state(&id, Desired::Stopped { run: 1, signal: "SIGTERM".into(), timeout_s: 60 });
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.control.last(&id).progress.phase, Phase::Exited);
    assert!(begun.elapsed() < Duration::from_secs(20));
    world.control.want_state(&id, Desired::Removed);
    world.control.until(&id, "gone", |o| o.progress.phase == Phase::Removed).await;
}

/// The address that a container has on its first link, seen from outside of it.
fn address(world: &World, id: &ContainerId) -> Option<String> {
    let pid = world.control.last(id).pid?;
    let told = std::process::Command::new("nsenter")
        .args(["-t", &pid.to_string(), "-n", "ip", "-4", "-o", "addr", "show", "eth0"])
        .output()
        .expect("nsenter runs");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    told.split_whitespace().find(|word| word.contains('/')).map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_whose_plan_was_lost_keeps_its_network_until_the_scheduler_has_told_everything() {
    let Some(netd) = program("netd") else { return eprintln!("netd is not built: skipped") };
    let mut world = World::begin("lost-plan").await;
    let namespace = netns::Netns::new("wt-agent-lost");
    let netd = namespace.run(&netd, &world);
    let image = busybox(&world.control);
    let network = netns::network(4243, "10.191.0.0/20");
    world.control.add_network(network.clone());
    let mut ids = Vec::new();
    for last in [9, 10] {
        let mut container = shell(&image, "sleep 1000");
        netns::plug(&mut container, &network, [10, 191, 0, last]);
        container.spec.restart = RestartPolicy::Always;
        ids.push(container.id.clone());
        world.control.want(container);
        world.control.want_state(&ids[ids.len() - 1], Desired::Running { run: 1 });
    }
    let (lost, known) = (&ids[0], &ids[1]);
    for id in &ids {
        world.control.until_phase(id, 1, Phase::Running).await;
    }
    world.kill_agent();
    std::fs::remove_file(world.path("data/containers").join(lost.as_str()).join("plan.json")).expect("was there");
    let control = world.control.clone();
    let silence = control.silence().await;
    world.start_agent().await;
    // The other one begins anew, for which netd has to have heard of this agent's plan.
    let pid = world.control.last(known).pid.expect("it runs");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGKILL)
        .expect("killed");
    world.control.until(known, "again", |o| o.progress.restart == 1 && o.progress.phase == Phase::Running).await;
    assert_eq!(address(&world, known).as_deref(), Some("10.191.0.10/20"));
    assert_eq!(address(&world, lost).as_deref(), Some("10.191.0.9/20"), "its link was taken away");

    drop(silence);
    world.control.want_state(lost, Desired::Stopped { run: 1, signal: "SIGKILL".into(), timeout_s: 1 });
    world.control.until_phase(lost, 1, Phase::Exited).await;
    world.control.want_state(lost, Desired::Running { run: 2 });
    world.control.until_phase(lost, 2, Phase::Running).await;
    assert_eq!(address(&world, lost).as_deref(), Some("10.191.0.9/20"));
    for id in &ids {
        world.control.want_state(id, Desired::Removed);
        world.control.until_phase(id, 1, Phase::Removed).await;
    }
    drop(netd);
}
