//! Restart policies, `--init`, stop signals, the OOM killer, and `--rm` whatever happens.

use std::time::{Duration, Instant};

use tests::{Suite, eventually, unique};

#[test]
fn on_failure_is_tried_as_often_as_asked_and_then_left_alone() {
    let docker = Suite::here().docker();
    let name = unique("on-failure");
    let _ = docker.ok(&[
        "run",
        "-d",
        "--name",
        &name,
        "--restart",
        "on-failure:2",
        "busybox",
        "sh",
        "-c",
        "echo x; exit 3",
    ]);
    let shown = || docker.ok(&["inspect", "-f", "{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}", &name]);
    eventually("two restarts", Duration::from_secs(15), || shown() == "exited 2 3");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(docker.ok(&["logs", &name]), "x\nx\nx");
    assert_eq!(shown(), "exited 2 3");
    let ok = unique("well");
    let _ = docker.ok(&["run", "-d", "--name", &ok, "--restart", "on-failure", "busybox", "true"]);
    eventually("ended", Duration::from_secs(10), || {
        docker.ok(&["inspect", "-f", "{{.State.Status}} {{.RestartCount}}", &ok]) == "exited 0"
    });
    docker.remove(&[&name, &ok]);
}

#[test]
fn one_that_waits_for_its_next_attempt_can_be_stopped_and_removed_at_once() {
    let docker = Suite::here().docker();
    let names = [unique("stopped"), unique("removed"), unique("killed")];
    for name in &names {
        let _ = docker.ok(&["run", "-d", "--name", name, "--restart", "always", "busybox", "false"]);
    }
    for name in &names {
        eventually("it waits", Duration::from_secs(20), || {
            docker.ok(&["inspect", "-f", "{{.State.Status}} {{ge .RestartCount 4}}", name]) == "restarting true"
        });
    }
    assert!(docker.ok(&["ps", "--format", "{{.Names}} {{.Status}}"]).contains(&format!("{} Restarting (1)", names[1])));
    let begun = Instant::now();
    assert_eq!(docker.ok(&["stop", &names[0]]), names[0]);
    assert_eq!(docker.ok(&["rm", "-f", &names[1]]), names[1]);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let shown =
        || docker.ok(&["inspect", "-f", "{{.State.Status}} {{.State.Restarting}} {{.RestartCount}}", &names[0]]);
    let stopped = shown();
    assert!(stopped.starts_with("exited false"), "{stopped}");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(shown(), stopped, "it stays stopped");
    docker.remove(&[&names[0], &names[2]]);
}

#[test]
fn a_process_killed_from_outside_is_restarted_and_one_killed_by_docker_is_not() {
    let docker = Suite::here().docker();
    let name = unique("always");
    let _ = docker.ok(&["run", "-d", "--name", &name, "--restart", "always", "busybox", "sleep", "600"]);
    let pid: i32 = docker.ok(&["inspect", "-f", "{{.State.Pid}}", &name]).parse().expect("a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("it runs");
    let shown = || docker.ok(&["inspect", "-f", "{{.State.Status}} {{.RestartCount}}", &name]);
    eventually("it runs again", Duration::from_secs(10), || shown() == "running 1");
    let _ = docker.ok(&["kill", &name]);
    eventually("it is over", Duration::from_secs(10), || shown() == "exited 1");
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(shown(), "exited 1");
    docker.remove(&[&name]);
}

#[test]
fn a_policy_that_is_changed_counts_from_the_next_end_on() {
    let docker = Suite::here().docker();
    let name = unique("changed");
    let _ = docker.ok(&["run", "-d", "--name", &name, "--restart", "always", "busybox", "sh", "-c", "sleep 1; exit 4"]);
    let _ = docker.ok(&["update", "--restart", "no", &name]);
    let shown = || docker.ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", &name]);
    eventually("it ended for good", Duration::from_secs(15), || shown() == "exited 4");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(shown(), "exited 4");
    docker.remove(&[&name]);
}

#[test]
fn init_reaps_what_is_orphaned_and_hands_signals_on() {
    let docker = Suite::here().docker();
    let (with, without) = (unique("init"), unique("no-init"));
    // Grandchildren whose parent goes before them.
    let script = "for i in 1 2 3; do (sh -c 'sleep 0.3 & exit' &) ; done; trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    let _ = docker.ok(&["run", "-d", "--init", "--name", &with, "busybox", "sh", "-c", script]);
    let direct = "exec sh -c 'for i in 1 2 3; do (sleep 0.3 &) ; done; exec sleep 600'";
    let _ = docker.ok(&["run", "-d", "--name", &without, "busybox", "sh", "-c", direct]);
    let zombies = |name: &str| docker.ok(&["exec", name, "ps", "-o", "stat,args"]).matches("Z ").count();
    eventually("PID 1 that does not reap has zombies", Duration::from_secs(10), || zombies(&without) == 3);
    docker.until_written(&with, "ready");
    eventually("PID 1 that reaps has none", Duration::from_secs(10), || zombies(&with) == 0);
    let first = docker.ok(&["exec", &with, "cat", "/proc/1/cmdline"]).replace('\0', " ");
    assert!(first.contains("/sh") || first.contains("init"), "{first}");
    let begun = Instant::now();
    let _ = docker.ok(&["stop", "-t", "20", &with]);
    assert!(begun.elapsed() < Duration::from_secs(10), "SIGTERM reached the program");
    assert_eq!(docker.ok(&["inspect", "-f", "{{.State.ExitCode}}", &with]), "9");
    docker.remove(&[&with, &without]);
}

#[test]
fn the_stop_signal_and_the_time_to_stop_are_the_containers_own() {
    let docker = Suite::here().docker();
    let (polite, deaf) = (unique("polite"), unique("deaf"));
    let script = "trap '' TERM; trap 'exit 5' USR1; echo ready; while :; do sleep 0.1; done";
    let _ = docker.ok(&["run", "-d", "--stop-signal", "USR1", "--name", &polite, "busybox", "sh", "-c", script]);
    let _ = docker.ok(&["run", "-d", "--stop-timeout", "1", "--name", &deaf, "busybox", "sh", "-c", script]);
    docker.until_written(&polite, "ready");
    docker.until_written(&deaf, "ready");
    let _ = docker.ok(&["stop", &polite]);
    let begun = Instant::now();
    let _ = docker.ok(&["stop", &deaf]);
    assert!((1..6).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    let code = |name: &str| docker.ok(&["inspect", "-f", "{{.State.ExitCode}}", name]);
    assert_eq!((code(&polite).as_str(), code(&deaf).as_str()), ("5", "137"));
    // The image's own, where nobody asked for another.
    let site = unique("site");
    let _ = docker.ok(&["run", "-d", "--name", &site, "httpd"]);
    assert_eq!(docker.ok(&["inspect", "-f", "{{.Config.StopSignal}}", &site]), "SIGKILL");
    let begun = Instant::now();
    let _ = docker.ok(&["stop", &site]);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    docker.remove(&[&polite, &deaf, &site]);
}

#[test]
fn a_child_that_is_killed_for_its_memory_is_an_event_of_a_container_that_runs_on() {
    let docker = Suite::here().docker();
    let name = unique("oom-child");
    let script = "tail /dev/zero; echo survived; sleep 600";
    let _ = docker.ok(&["run", "-d", "-m", "32m", "--name", &name, "busybox", "sh", "-c", script]);
    let shown = || docker.ok(&["inspect", "-f", "{{.State.Status}} {{.State.OOMKilled}}", &name]);
    eventually("it is told", Duration::from_secs(15), || shown() == "running true");
    let filter = format!("container={name}");
    let later = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs() + 1;
    let (until, form) = (later.to_string(), "{{.Action}}");
    let picked = ["--filter", &filter, "--filter", "event=oom", "--format", form];
    let args = [&["events", "--since", "10m", "--until", &until], &picked[..]].concat();
    assert_eq!(docker.ok(&args), "oom");
    assert_eq!(docker.ok(&["logs", &name]).lines().last(), Some("survived"));
    docker.remove(&[&name]);
}

#[test]
fn whatever_ends_it_a_container_with_rm_is_removed() {
    let docker = Suite::here().docker();
    let names = [unique("never"), unique("killed"), unique("stopped"), unique("oom")];
    assert_eq!(docker.run(&["run", "-d", "--rm", "--name", &names[0], "busybox", "no-such-program"]).code, 127);
    for name in &names[1..3] {
        let _ = docker.ok(&["run", "-d", "--rm", "--name", name, "busybox", "sleep", "600"]);
    }
    let _ = docker.ok(&["run", "-d", "--rm", "-m", "16m", "--name", &names[3], "busybox", "tail", "/dev/zero"]);
    let _ = docker.ok(&["kill", &names[1]]);
    let _ = docker.ok(&["stop", "-t", "0", &names[2]]);
    for name in &names {
        eventually("it is gone", Duration::from_secs(10), || docker.run(&["inspect", name]).code != 0);
    }
}

#[test]
fn a_wait_ends_with_an_exit_although_the_policy_starts_it_again() {
    let docker = Suite::here().docker();
    let name = unique("waited-for");
    let _ = docker.ok(&["run", "-d", "--name", &name, "--restart", "always", "busybox", "sh", "-c", "sleep 1; exit 5"]);
    let began = Instant::now();
    assert_eq!(docker.ok(&["wait", &name]), "5");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    docker.remove(&[&name]);
}

#[test]
fn f28_an_exec_that_is_killed_for_its_memory_is_told_and_the_container_lives() {
    let docker = Suite::here().docker();
    let name = unique("oom-exec");
    let _ = docker.ok(&["run", "-d", "-m", "32m", "--name", &name, "busybox", "sleep", "600"]);
    assert_eq!(docker.run(&["exec", &name, "true"]).code, 0, "the control: a modest one ends well");
    assert_eq!(docker.run(&["exec", &name, "tail", "/dev/zero"]).code, 137);
    let shown = || docker.ok(&["inspect", "-f", "{{.State.Status}} {{.State.OOMKilled}}", &name]);
    eventually("it is told", Duration::from_secs(15), || shown() == "running true");
    assert_eq!(docker.ok(&["exec", &name, "echo", "lives"]), "lives");
    docker.remove(&[&name]);
}

/// Processes that have ended and that their parent does not wait for.
fn zombies_of(parent: u32) -> usize {
    let of = |status: &str, field: &str| {
        status.lines().find_map(|line| Some(line.strip_prefix(field)?.trim().to_owned())).unwrap_or_default()
    };
    let all = std::fs::read_dir("/proc").expect("procfs").flatten();
    let statuses = all.filter_map(|entry| std::fs::read_to_string(entry.path().join("status")).ok());
    statuses.filter(|s| of(s, "State:").starts_with('Z') && of(s, "PPid:") == parent.to_string()).count()
}

#[test]
fn f44_crowds_orphans_and_daemons_end_with_their_container_and_leave_no_zombie() {
    let suite = Suite::here();
    let docker = suite.docker();
    let name = unique("crowd");
    let script = "for i in $(seq 300); do sleep 600 & done; for i in $(seq 20); do (setsid sleep 600 &); done; \
        for i in $(seq 1000); do true & done; touch /ready; exec sleep 600";
    let id = docker.ok(&["run", "-d", "--name", &name, "--pids-limit", "2000", "busybox", "sh", "-c", script]);
    let _ = docker.ok(&["exec", "-d", &name, "sh", "-c", "(setsid sleep 600 &) ; sleep 600 & exit"]);
    eventually("the crowd is there", Duration::from_secs(60), || {
        docker.run(&["exec", &name, "test", "-e", "/ready"]).code == 0
    });
    let with_id = |what: &str| -> Vec<u32> {
        let all = std::fs::read_dir("/proc").expect("procfs").flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let reads = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/{what}")).is_ok_and(|t| t.contains(&id));
        pids.filter(reads).collect()
    };
    assert!(with_id("cgroup").len() > 300, "they are seen from here: {}", with_id("cgroup").len());
    let shim = with_id("cmdline").into_iter().find(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("wharfage-shim"))
    });
    let shim = shim.expect("it has a shim");
    let agent = u32::try_from(suite.pid_of("node-agent-1")).expect("a pid");
    eventually("nobody waits to be reaped", Duration::from_secs(5), || zombies_of(shim) + zombies_of(agent) == 0);
    let begun = Instant::now();
    docker.remove(&[&name]);
    eventually("all of them are gone", Duration::from_secs(3), || with_id("cgroup").is_empty());
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    eventually("nobody waits to be reaped", Duration::from_secs(5), || zombies_of(agent) == 0);
    // The control: one of ours that nobody has waited for is counted.
    let mut child = std::process::Command::new("true").spawn().expect("runs");
    eventually("it is seen", Duration::from_secs(5), || zombies_of(std::process::id()) > 0);
    let _ = child.wait();
}

#[test]
fn f46_a_crowd_that_crashes_again_and_again_is_slowed_down_and_starves_nobody() {
    let suite = Suite::here();
    let docker = suite.docker();
    let names: Vec<String> = (0..16).map(|_| unique("crash-loop")).collect();
    for name in &names {
        let _ = docker.ok(&["run", "-d", "--name", name, "--restart", "always", "busybox", "false"]);
    }
    let restarts = || -> Vec<u32> {
        let args = ["inspect", "-f", "{{.RestartCount}}"];
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        docker.ok(&[&args[..], &names].concat()).lines().map(|n| n.parse().expect("a number")).collect()
    };
    eventually("all of them are well into it", Duration::from_secs(60), || restarts().iter().all(|n| *n >= 4));
    let ticks = || -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", suite.pid_of("node-agent-1"))).expect("it runs");
        let after_name = stat.rsplit(") ").next().expect("a line");
        after_name.split(' ').skip(11).take(2).map(|n| n.parse::<u64>().expect("a number")).sum()
    };
    let (before, busy, begun) = (restarts(), ticks(), Instant::now());
    // From the fifth on at least 1.6 s lie between two attempts.
    while begun.elapsed() < Duration::from_secs(4) {
        assert_eq!(docker.ok(&["run", "--rm", "busybox", "echo", "served"]), "served");
    }
    let took = begun.elapsed().as_secs_f64();
    let most = 1 + (took / 1.6).ceil() as u32;
    for (before, after) in before.iter().zip(restarts()) {
        assert!(after - before <= most, "{} attempts in {took} s", after - before);
    }
    let share = (ticks() - busy) as f64 / 100.0 / took;
    assert!(share < 1.0, "the agent takes {share} of a processor");
    docker.remove(&names.iter().map(String::as_str).collect::<Vec<_>>());
}
