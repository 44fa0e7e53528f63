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
