//! An agent whose own files are damaged or gone (F50): what runs is taken over from the shims, and what
//! was wanted comes again from the control plane.

mod support;

use std::{fs, time::Duration};

use contract::agent::LogsQuery;
use model::{ContainerId, Desired, Phase};
use support::{World, busybox, shell, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f50_an_agent_without_its_files_adopts_what_runs_and_what_ended() {
    let mut world = World::begin("ledger").await;
    let image = busybox(&world.control);
    let counting = "n=0; echo begun >>/count; while true; do echo line $n; n=$((n+1)); sleep 0.05; done";
    let containers =
        [shell(&image, counting), shell(&image, counting), shell(&image, counting), shell(&image, "sleep 1; exit 9")];
    let ids: Vec<ContainerId> = containers.iter().map(|c| c.id.clone()).collect();
    let mut pids = Vec::new();
    for (id, container) in ids.iter().zip(containers) {
        world.control.want(container);
        world.control.want_state(id, Desired::Running { run: 1 });
        pids.push(world.control.until_phase(id, 1, Phase::Running).await.pid.expect("has one"));
    }
    world.kill_agent();
    let file = |id: &ContainerId, name: &str| world.path("data/containers").join(id.as_str()).join(name);
    for (damage, id) in ids.iter().enumerate() {
        let state = file(id, "state.json");
        assert!(state.exists(), "the test knows where it is");
        match damage {
            0 => fs::write(&state, "").expect("truncates"),
            1 => fs::write(&state, "{\"observed\": 7}").expect("garbles"),
            _ => fs::remove_file(&state).expect("removes"),
        }
    }
    fs::write(file(&ids[2], "plan.json"), "{").expect("garbles");
    for name in ["generation.json", "networks.json"] {
        let _ = fs::remove_file(world.path("data").join(name));
    }
    // One of them ends while there is nobody to hear it.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    world.start_agent().await;
    let ended = world.control.until_phase(&ids[3], 1, Phase::Exited).await;
    assert_eq!(ended.exit.expect("told").code, 9);
    assert_eq!(ended.progress.restart, 0);
    for (id, pid) in ids.iter().zip(&pids).take(3) {
        let now = world.control.until(id, "adopted", |o| o.progress.phase == Phase::Running && o.pid.is_some()).await;
        assert_eq!((now.pid, now.progress.run, now.progress.restart), (Some(*pid), 1, 0), "{id}");
        assert!(fs::read_to_string(format!("/proc/{pid}/root/count")).is_ok_and(|text| text == "begun\n"));
        let all = LogsQuery { stdout: true, stderr: true, ..LogsQuery::default() };
        let lines = text(&world.logs(id, &all).await, 1);
        assert!(lines.lines().enumerate().all(|(n, line)| line == format!("line {n}")), "{lines}");
    }
    // They are looked after like others: a stop reaches them.
    for id in &ids[..3] {
        world.control.want_state(id, Desired::Stopped { run: 1, signal: "SIGKILL".into(), timeout_s: 5 });
        assert_eq!(world.control.until_phase(id, 1, Phase::Exited).await.exit.expect("told").code, 137);
    }
}
