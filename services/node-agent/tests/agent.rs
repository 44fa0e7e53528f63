//! The whole agent against real runc, overlay, cgroups and shims. Needs root, runc, busybox-static
//! and a built `wharfage-shim`.

mod support;

use std::time::{Duration, Instant};

use contract::agent::{
    AttachQuery, ExecStart, ExecState, FreezeRequest, KillRequest, LimitsReply, LimitsRequest, LogsQuery,
    STREAM_PROTOCOL, TopReply,
};
use model::{ContainerId, Desired, Error, ExecId, Phase, RestartPolicy};
use support::{World, all_logs, busybox, frames, netns, program, shell, text};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const BOTH: AttachQuery =
    AttachQuery { stdin: false, stdout: true, stderr: true, logs: false, stream: true, wait_ms: 0 };

fn new_exec_id() -> ExecId {
    ExecId::from_bytes(chassis::ids::random_hex_id())
}

fn exec(container: &ContainerId, command: &str) -> ExecStart {
    ExecStart {
        container: container.clone(),
        cmd: vec!["sh".into(), "-c".into(), command.into()],
        env: vec!["EXTRA=1".into()],
        working_dir: String::new(),
        user: String::new(),
        tty: false,
        attach_stdin: true,
        attach_stdout: true,
        attach_stderr: true,
        detach: false,
        console_size: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_runs_is_heard_from_its_first_byte_and_leaves_nothing() {
    let mut world = World::begin("run").await;
    let image = busybox(&world.control);
    let container = shell(&image, "echo out; echo err >&2; cat /second; exit 7");
    let id = container.id.clone();
    world.control.want(container);
    world.control.until_phase(&id, 0, Phase::Created).await;
    let mut attached = world.attach(&id, BOTH).await;
    world.control.want_state(&id, Desired::Running { run: 1 });
    let mut heard = Vec::new();
    attached.read_to_end(&mut heard).await.expect("ends");
    let heard = frames(&heard);
    assert_eq!((text(&heard, 1).as_str(), text(&heard, 2).as_str()), ("out\nlayer\n", "err\n"));
    let ended = world.control.until_phase(&id, 1, Phase::Exited).await;
    let exit = ended.exit.expect("told");
    assert_eq!((exit.code, exit.error.as_str(), exit.oom_killed), (7, "", false));
    assert!(ended.started_at.expect("started") <= exit.finished_at);

    let logged = world.logs(&id, &all_logs()).await;
    assert_eq!((text(&logged, 1).as_str(), text(&logged, 2).as_str()), ("out\nlayer\n", "err\n"));
    let stamped = world.logs(&id, &LogsQuery { timestamps: true, tail: Some(1), ..all_logs() }).await;
    assert_eq!(stamped.len(), 1);
    assert_eq!(stamped[0].1.find(' '), Some(30), "{stamped:?}");

    // The same container again: a new run, the same writable layer, the old log kept.
    world.control.want_state(&id, Desired::Running { run: 2 });
    world.control.until_phase(&id, 2, Phase::Exited).await;
    assert_eq!(text(&world.logs(&id, &all_logs()).await, 1), "out\nlayer\nout\nlayer\n");

    world.control.want_state(&id, Desired::Removed);
    world.control.until_phase(&id, 2, Phase::Removed).await;
    assert!(world.mounts().is_empty(), "{:?}", world.mounts());
    assert!(world.cgroup_of(&id).is_empty());
    assert!(!world.path("run/containers").join(id.as_str()).exists());
    let dir = world.path("data/containers").join(id.as_str());
    assert!(!dir.join("upper").exists() && !dir.join("log").exists());
    assert_eq!(world.control.fetches(), 2, "each layer was fetched once");
    assert!(matches!(
        world.gateway().post::<_, ()>(&format!("/containers/v1/{id}/kill"), &KillRequest { signal: 9 }).await,
        Err(Error::Conflict(_) | Error::NotFound(_))
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attach_that_is_faster_than_the_plan_waits_for_it_and_not_for_ever() {
    let mut world = World::begin("early").await;
    let image = busybox(&world.control);
    let container = shell(&image, "echo first");
    let id = container.id.clone();
    let gateway = world.gateway();
    let path = format!("/containers/v1/{id}/attach");
    let attach = async |wait_ms| {
        let query = AttachQuery { wait_ms, ..BOTH };
        gateway.upgrade(&path, STREAM_PROTOCOL, Some(&query), None::<&()>).await
    };
    for wait_ms in [0, 300] {
        let began = Instant::now();
        let refused = attach(wait_ms).await.map(drop);
        assert!(matches!(refused, Err(Error::NotFound(_))), "{refused:?}");
        assert!(began.elapsed() >= Duration::from_millis(wait_ms) && began.elapsed() < Duration::from_secs(5));
    }
    let early = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        world.control.want(container.clone());
    };
    let (attached, ()) = tokio::join!(attach(10_000), early);
    let mut attached = attached.expect("accepted once the plan has come");
    world.control.until_phase(&id, 0, Phase::Created).await;
    world.control.want_state(&id, Desired::Running { run: 1 });
    let mut heard = Vec::new();
    attached.read_to_end(&mut heard).await.expect("ends");
    assert_eq!(text(&frames(&heard), 1), "first\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stdin_reaches_the_process_and_its_end_does_not_end_the_output() {
    let mut world = World::begin("stdin").await;
    let image = busybox(&world.control);
    let mut container = shell(&image, "cat; echo after");
    container.spec.open_stdin = true;
    container.spec.stdin_once = true;
    container.spec.auto_remove = true;
    let id = container.id.clone();
    world.control.want(container);
    world.control.until_phase(&id, 0, Phase::Created).await;
    let mut attached = world.attach(&id, AttachQuery { stdin: true, ..BOTH }).await;
    // Even what was sent before there was a process.
    attached.write_all(b"early\n").await.expect("writes");
    world.control.want_state(&id, Desired::Running { run: 1 });
    world.control.until_phase(&id, 1, Phase::Running).await;
    attached.write_all(b"late\n").await.expect("writes");
    attached.shutdown().await.expect("half-closes");
    let mut heard = Vec::new();
    attached.read_to_end(&mut heard).await.expect("ends");
    assert_eq!(text(&frames(&heard), 1), "early\nlate\nafter\n");
    // `--rm`: gone by itself, and the exit code was told on the way or with it.
    let gone = world.control.until_phase(&id, 1, Phase::Removed).await;
    assert_eq!(gone.exit.expect("told").code, 0);
    assert!(world.mounts().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn execs_signals_top_and_stats_reach_a_running_container() {
    let mut world = World::begin("exec").await;
    let image = busybox(&world.control);
    let container = shell(&image, "trap 'exit 3' TERM; while true; do sleep 0.1; done");
    let id = container.id.clone();
    world.control.want(container);
    world.control.want_state(&id, Desired::Running { run: 1 });
    world.control.until_phase(&id, 1, Phase::Running).await;
    let gateway = world.gateway();

    let exec_id = new_exec_id();
    let path = format!("/execs/v1/{exec_id}/start");
    let mut stream = gateway
        .upgrade(&path, STREAM_PROTOCOL, None::<&()>, Some(&exec(&id, "cat; echo $EXTRA >&2; exit 5")))
        .await
        .expect("upgrades");
    stream.write_all(b"hello\n").await.expect("writes");
    stream.shutdown().await.expect("half-closes");
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.expect("ends");
    let heard = frames(&heard);
    assert_eq!((text(&heard, 1).as_str(), text(&heard, 2).as_str()), ("hello\n", "1\n"));
    let ended = world.control.exec_end(&exec_id).await;
    assert_eq!((ended.container, ended.exit_code, ended.ran), (id.clone(), 5, true));
    let (path, of) = (format!("/execs/v1/{exec_id}"), [("container", id.as_str())]);
    let forgotten = async || matches!(gateway.get_with::<_, ExecState>(&path, &of).await, Err(Error::NotFound(_)));
    while !forgotten().await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let missing = ExecStart { cmd: vec!["nope".into()], ..exec(&id, "") };
    let missing_id = new_exec_id();
    let path = format!("/execs/v1/{missing_id}/start");
    let refused =
        gateway.upgrade(&path, STREAM_PROTOCOL, None::<&()>, Some(&missing)).await.expect_err("no such program");
    assert!(refused.to_string().contains("executable file not found"), "{refused}");
    let ended = world.control.exec_end(&missing_id).await;
    assert_eq!((ended.exit_code, ended.ran), (127, false), "it never ran");
    let unknown = gateway.get::<ExecState>(&format!("/execs/v1/{}", new_exec_id())).await;
    assert!(matches!(unknown, Err(Error::NotFound(_))));

    let top: TopReply = gateway.get(&format!("/containers/v1/{id}/top")).await.expect("answers");
    assert_eq!(top.titles.first().map(String::as_str), Some("UID"));
    assert!(top.processes.iter().any(|p| p[0] == "root" && p[7].starts_with("sh -c trap")), "{top:?}");
    let stats: serde_json::Value =
        gateway.get_with(&format!("/containers/v1/{id}/stats"), &[("one-shot", "true")]).await.expect("answers");
    assert!(stats["memory_stats"]["usage"].as_u64().expect("a number") > 0, "{stats}");

    // The gateway's certificate opens this, and no other.
    let stranger = world.someone_else("service:scheduler");
    assert!(matches!(
        stranger.get::<TopReply>(&format!("/containers/v1/{id}/top")).await,
        Err(Error::Unauthenticated(_))
    ));

    let followed = tokio::spawn({
        let gateway = gateway.clone();
        let (path, query) = (format!("/containers/v1/{id}/logs"), LogsQuery { follow: true, ..all_logs() });
        async move {
            let response = gateway.stream(chassis::axum::http::Method::GET, &path, Some(&query), None::<&()>).await;
            response.expect("answers").bytes().await.expect("ends")
        }
    });
    world.control.want_state(&id, Desired::Stopped { run: 1, signal: "SIGTERM".into(), timeout_s: 20 });
    let ended = world.control.until_phase(&id, 1, Phase::Exited).await;
    assert_eq!(ended.exit.expect("told").code, 3);
    tokio::time::timeout(Duration::from_secs(5), followed).await.expect("following ends with the run").expect("joins");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_is_not_heard_ends_in_a_kill_and_a_removal_kills_at_once() {
    let world = World::begin("stop").await;
    let image = busybox(&world.control);
    let deaf = shell(&image, "trap '' TERM; while true; do sleep 1; done");
    let (deaf_id, other) = (deaf.id.clone(), shell(&image, "sleep 1000 & sleep 1000"));
    let other_id = other.id.clone();
    for container in [deaf, other] {
        let id = container.id.clone();
        world.control.want(container);
        world.control.want_state(&id, Desired::Running { run: 1 });
        world.control.until_phase(&id, 1, Phase::Running).await;
    }
    world.control.want_state(&deaf_id, Desired::Stopped { run: 1, signal: "15".into(), timeout_s: 1 });
    let ended = world.control.until_phase(&deaf_id, 1, Phase::Exited).await;
    assert_eq!(ended.exit.expect("told").code, 137);
    world.control.want_state(&other_id, Desired::Removed);
    let gone = world.control.until_phase(&other_id, 1, Phase::Removed).await;
    assert_eq!(gone.exit.expect("told").code, 137);
    assert!(world.cgroup_of(&other_id).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_killed_comes_back_and_nothing_was_lost_or_done_twice() {
    let mut world = World::begin("crash").await;
    let image = busybox(&world.control);
    let long = shell(&image, "n=0; while true; do echo line $n; n=$((n+1)); sleep 0.05; done");
    let short = shell(&image, "sleep 1.5; echo bye; exit 9");
    let starts = shell(&image, "echo begun >> /count; wc -l < /count; sleep 1000");
    let orphan = shell(&image, "sleep 1000");
    let ids: Vec<_> = [&long, &short, &starts, &orphan].iter().map(|c| c.id.clone()).collect();
    let mut pids = Vec::new();
    for container in [long, short, starts, orphan] {
        let id = container.id.clone();
        world.control.want(container);
        world.control.want_state(&id, Desired::Running { run: 1 });
        pids.push(world.control.until_phase(&id, 1, Phase::Running).await.pid);
    }
    let exec_id = new_exec_id();
    let detached = ExecStart { detach: true, ..exec(&ids[0], "sleep 1; exit 8") };
    world.gateway().post::<_, ()>(&format!("/execs/v1/{exec_id}/start"), &detached).await.expect("starts");
    world.kill_agent();
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.control.orphan(&ids[3]);
    world.start_agent().await;
    assert_eq!(world.control.exec_end(&exec_id).await.exit_code, 8);
    assert_eq!(world.control.tellings(&exec_id), 1);
    let ended = world.control.until_phase(&ids[1], 1, Phase::Exited).await;
    let exit = ended.exit.expect("told");
    assert_eq!(exit.code, 9);
    assert!(
        exit.finished_at < time::OffsetDateTime::now_utc() - Duration::from_millis(200),
        "the true time, not today's"
    );
    world.control.until_phase(&ids[3], 1, Phase::Removed).await;
    assert_eq!(text(&world.logs(&ids[1], &all_logs()).await, 1), "bye\n");
    assert_eq!(text(&world.logs(&ids[2], &all_logs()).await, 1), "1\n", "it was begun once");
    // The others run on under the same PID, and can be reached.
    for (at, id) in [(0, &ids[0]), (2, &ids[2])] {
        let pid = pids[at].expect("has one");
        assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "{id} still runs");
    }
    let lines = text(&world.logs(&ids[0], &all_logs()).await, 1);
    let numbers: Vec<usize> = lines.lines().map(|l| l["line ".len()..].parse().expect("a number")).collect();
    assert!(numbers.len() > 30 && numbers.iter().copied().eq(0..numbers.len()), "no line is missing: {numbers:?}");
    let exec_id = new_exec_id();
    let path = format!("/execs/v1/{exec_id}/start");
    let mut stream = world
        .gateway()
        .upgrade(&path, STREAM_PROTOCOL, None::<&()>, Some(&exec(&ids[0], "echo reached")))
        .await
        .expect("upgrades");
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.expect("ends");
    assert_eq!(text(&frames(&heard), 1), "reached\n");
    world.control.want_state(&ids[0], Desired::Stopped { run: 1, signal: "SIGKILL".into(), timeout_s: 5 });
    assert_eq!(world.control.until_phase(&ids[0], 1, Phase::Exited).await.exit.expect("told").code, 137);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shim_that_is_killed_ends_its_container_and_says_so() {
    let world = World::begin("shim").await;
    let image = busybox(&world.control);
    let container = shell(&image, "sleep 1000");
    let id = container.id.clone();
    world.control.want(container);
    world.control.want_state(&id, Desired::Running { run: 1 });
    let pid = world.control.until_phase(&id, 1, Phase::Running).await.pid.expect("has one");
    let needle = world.path("run/containers").join(id.as_str()).display().to_string();
    let shim = std::fs::read_dir("/proc")
        .expect("proc")
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
        .find(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&needle)
        })
        .expect("its shim");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL).expect("kills");
    let exit = world.control.until_phase(&id, 1, Phase::Exited).await.exit.expect("told");
    assert_eq!((exit.code, exit.error.as_str()), (137, "shim lost"));
    assert!(!std::path::Path::new(&format!("/proc/{pid}/exe")).exists(), "its process is gone");
    // And it can be started again.
    world.control.want_state(&id, Desired::Running { run: 2 });
    world.control.until_phase(&id, 2, Phase::Running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_start_says_why_in_dockerds_words() {
    let world = World::begin("refuse").await;
    let image = busybox(&world.control);
    let mut missing = shell(&image, "");
    missing.spec.cmd = vec!["nope".into()];
    let mut stranger = shell(&image, "true");
    stranger.spec.user = "nobody-here".into();
    let mut hostile = shell(&image, "true");
    let tar = {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Block);
        header.set_size(0);
        header.set_path("dev/sda").expect("a path");
        header.set_cksum();
        tar.append(&header, std::io::empty()).expect("appends");
        tar.into_inner().expect("finishes")
    };
    hostile.image.layers.push(world.control.add_layer(&tar, tar.clone(), model::LayerEncoding::Tar));
    for (container, code, told) in [
        (missing, 127, "exec: \"nope\": executable file not found in $PATH"),
        (stranger, 128, "unable to find user nobody-here: no matching entries in passwd file"),
        (hostile, 128, "contains a device node: dev/sda"),
    ] {
        let id = container.id.clone();
        world.control.want(container);
        world.control.want_state(&id, Desired::Running { run: 1 });
        let exit = world.control.until_phase(&id, 1, Phase::Exited).await.exit.expect("told");
        assert_eq!(exit.code, code, "{exit:?}");
        assert!(exit.error.contains(told), "{exit:?}");
        assert!(world.cgroup_of(&id).is_empty());
    }
    let mut stages = std::fs::read_dir(world.path("data/layers")).expect("reads").flatten();
    assert!(!stages.any(|e| e.file_name().to_string_lossy().starts_with('.')), "no stage is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_loses_its_root_or_its_cgroup_to_an_operator_is_ended_with_the_reason() {
    let world = World::begin("ground").await;
    let image = busybox(&world.control);
    let mut ids = Vec::new();
    for _ in 0..3 {
        let mut container = shell(&image, "sleep 1000");
        container.spec.restart = RestartPolicy::OnFailure { max_retries: 1 };
        ids.push(container.id.clone());
        world.control.want(container);
        world.control.want_state(ids.last().expect("one"), Desired::Running { run: 1 });
    }
    let mut pids = Vec::new();
    for id in &ids {
        pids.push(world.control.until_phase(id, 1, Phase::Running).await.pid.expect("has one"));
    }
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let begun = Instant::now();
    let rootfs = world.path("run/roots").join(ids[0].as_str()).join("fs");
    nix::mount::umount2(&rootfs, nix::mount::MntFlags::MNT_DETACH).expect("unmounts");
    for dir in world.cgroup_of(&ids[1]) {
        // What an operator does who means to: the processes first.
        let root = dir.ancestors().nth(2).expect("the hierarchy").join("cgroup.procs");
        std::fs::write(root, pids[1].to_string()).expect("moves");
        std::fs::remove_dir(&dir).expect("removes");
    }
    for (id, why) in [(&ids[0], "root file system"), (&ids[1], "cgroup")] {
        let ended = world.control.until(id, why, |o| o.exit.is_some()).await;
        let exit = ended.exit.expect("told");
        assert_eq!((exit.code, exit.error.contains(why)), (137, true), "{exit:?}");
        world.control.until(id, "again", |o| o.progress.restart == 1 && o.progress.phase == Phase::Running).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    for pid in &pids[..2] {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "nothing of it runs on");
    }
    assert_eq!(world.control.last(&ids[2]).pid, Some(pids[2]), "its neighbour did not notice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_is_raw_and_has_a_size() {
    let mut world = World::begin("tty").await;
    let image = busybox(&world.control);
    let mut container = shell(&image, "stty size; read x; stty size");
    container.spec.tty = true;
    container.spec.open_stdin = true;
    container.spec.console_size = Some((30, 100));
    let id = container.id.clone();
    world.control.want(container);
    world.control.until_phase(&id, 0, Phase::Created).await;
    let mut attached = world.attach(&id, AttachQuery { stdin: true, ..BOTH }).await;
    world.control.want_state(&id, Desired::Running { run: 1 });
    world.control.until_phase(&id, 1, Phase::Running).await;
    let size = contract::agent::ResizeRequest { height: 40, width: 120 };
    world.gateway().post::<_, ()>(&format!("/containers/v1/{id}/resize"), &size).await.expect("resizes");
    attached.write_all(b"\n").await.expect("writes");
    let mut heard = Vec::new();
    attached.read_to_end(&mut heard).await.expect("ends");
    let heard = String::from_utf8_lossy(&heard).into_owned();
    assert!(heard.contains("40 120\r\n"), "{heard:?}");
    assert_eq!(world.raw_logs(&id, &all_logs()).await, heard.into_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_on_a_network_has_its_address() {
    let Some(netd) = program("netd") else { return eprintln!("netd is not built: skipped") };
    let mut world = World::begin("net").await;
    let netns = netns::Netns::new("wt-agent-net");
    let netd = netns.run(&netd, &world);
    let image = busybox(&world.control);
    let network = netns::network(4242, "10.190.0.0/20");
    world.control.add_network(network.clone());
    let mut container = shell(&image, "ip -4 addr show eth0; cat /etc/hosts; sleep 1000");
    netns::plug(&mut container, &network, [10, 190, 0, 9]);
    let id = container.id.clone();
    world.control.want(container);
    world.control.want_state(&id, Desired::Running { run: 1 });
    world.control.until_phase(&id, 1, Phase::Running).await;
    let told = world.output_once(&id, |told| told.contains(id.short())).await;
    assert!(told.contains("inet 10.190.0.9/20"), "{told}");
    assert!(told.contains(&format!("10.190.0.9\t{}", id.short())), "{told}");
    world.control.want_state(&id, Desired::Removed);
    world.control.until_phase(&id, 1, Phase::Removed).await;
    drop(netd);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_container_is_still_paused_for_the_next_agent() {
    let mut world = World::begin("pause").await;
    let image = busybox(&world.control);
    let container = shell(&image, "while :; do sleep 0.05; done");
    let id = container.id.clone();
    world.control.want(container);
    world.control.want_state(&id, Desired::Running { run: 1 });
    world.control.until_phase(&id, 1, Phase::Running).await;
    let path = format!("/containers/v1/{id}/freeze");
    let freeze = |frozen| FreezeRequest { frozen };
    world.gateway().post::<_, ()>(&path, &freeze(true)).await.expect("freezes");
    let told = world.control.until(&id, "paused", |o| o.paused).await;
    assert_eq!(told.revision, 1);
    let twice = world.gateway().post::<_, ()>(&path, &freeze(true)).await;
    assert_eq!(twice, Err(Error::Conflict(format!("Container {id} is already paused"))));
    world.kill_agent();
    world.start_agent().await;
    let adopted = world.control.until(&id, "paused after a restart", |o| o.paused).await;
    assert_eq!((adopted.revision, adopted.progress.phase), (1, Phase::Running));
    world.gateway().post::<_, ()>(&path, &freeze(false)).await.expect("thaws");
    world.control.until(&id, "running on", |o| !o.paused && o.revision == 2).await;

    // A stop wakes up who is frozen; the grace time is not waited out in the freezer.
    world.gateway().post::<_, ()>(&path, &freeze(true)).await.expect("freezes");
    world.control.want_state(&id, Desired::Stopped { run: 1, signal: "SIGKILL".into(), timeout_s: 30 });
    let ended = world.control.until_phase(&id, 1, Phase::Exited).await;
    assert_eq!((ended.exit.map(|e| e.code), ended.paused), (Some(137), false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_runs_gets_new_limits_with_its_plan_also_from_the_next_agent() {
    let mut world = World::begin("limits").await;
    let image = busybox(&world.control);
    let mut container = shell(&image, "while :; do sleep 1; done");
    container.spec.resources.pids_limit = Some(50);
    let id = container.id.clone();
    world.control.want(container.clone());
    world.control.want_state(&id, Desired::Running { run: 1 });
    world.control.until_phase(&id, 1, Phase::Running).await;
    let pids = world.cgroup_of(&id).into_iter().map(|dir| dir.join("pids.max")).find(|file| file.exists());
    let pids = pids.expect("the host limits processes");
    let limit = || std::fs::read_to_string(&pids).expect("reads").trim().to_owned();
    assert_eq!(limit(), "50");
    let until = async |wanted: &str| {
        for _ in 0..200 {
            if limit() == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("pids.max is {} and not {wanted}", limit());
    };
    container.desired = Desired::Running { run: 1 };
    container.spec.resources.pids_limit = Some(60);
    world.control.want(container.clone());
    until("60").await;
    world.kill_agent();
    container.spec.resources.pids_limit = Some(70);
    world.control.want(container.clone());
    world.start_agent().await;
    until("70").await;

    // Asked directly, the answer is the kernel's.
    let mut wanted = container.spec.resources.clone();
    wanted.memory_bytes = Some(model::MemoryBytes(1 << 12));
    let path = format!("/containers/v1/{id}/limits");
    let refused = world.gateway().post::<_, LimitsReply>(&path, &LimitsRequest { resources: wanted }).await;
    let Err(Error::Failed(why)) = refused else { panic!("{refused:?}") };
    assert!(why.starts_with("runc did not terminate successfully: exit status 1: "), "{why}");
    world.control.want_state(&id, Desired::Removed);
    world.control.until_phase(&id, 1, Phase::Removed).await;
}
