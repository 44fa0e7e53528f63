//! `kill -9` of each service in turn while containers run: they keep running, logging and their
//! exit codes; everything works again, nothing is lost and nothing doubled. Runs alone, on one host.

mod absence;

use std::time::Duration;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{Docker, Inside, Suite, eventually, unique};

const SERVICES: [&str; 5] = ["api-gateway", "image-svc", "scheduler", "node-agent-1", "netd-1"];

fn kill_9(suite: &Suite, process: &str) -> i32 {
    let pid = suite.pid_of(process);
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it runs");
    pid
}

/// Kills it and waits until its successor serves.
fn kill_and_return(suite: &Suite, process: &str) {
    let before = kill_9(suite, process);
    eventually(&format!("{process} comes back"), Duration::from_secs(20), || suite.pid_of(process) != before);
    wait_until_it_works(suite);
}

fn wait_until_it_works(suite: &Suite) {
    let docker = suite.docker();
    eventually("a container runs again", Duration::from_secs(60), || {
        docker.run(&["run", "--rm", "busybox", "true"]).code == 0
    });
}

/// A container that writes a number every 20 ms.
fn counter(docker: &Docker) -> String {
    let name = unique("counter");
    let script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done";
    let _ = docker.ok(&["run", "-d", "--name", &name, "busybox", "sh", "-c", script]);
    name
}

fn assert_numbered_without_gap(docker: &Docker, name: &str) -> usize {
    let log = docker.ok(&["logs", name]);
    for (expected, line) in (1..).zip(log.lines()) {
        assert_eq!(line, expected.to_string(), "a line was lost, doubled or moved");
    }
    log.lines().count()
}

#[test]
fn every_service_can_be_killed_while_containers_run() {
    let suite = Suite::here();
    let docker = suite.docker();
    let name = counter(&docker);
    let identity =
        || docker.ok(&["inspect", "-f", "{{.Id}} {{.State.Pid}} {{.State.StartedAt}} {{.RestartCount}}", &name]);
    let before = identity();
    for service in SERVICES {
        let lines = assert_numbered_without_gap(&docker, &name);
        kill_and_return(&suite, service);
        assert_eq!(identity(), before, "after {service} was killed");
        eventually("it goes on logging", Duration::from_secs(5), || {
            assert_numbered_without_gap(&docker, &name) > lines
        });
        assert_eq!(docker.ok(&["exec", &name, "echo", "alive"]), "alive", "after {service} was killed");
    }
    docker.remove(&[&name]);
}

#[test]
fn an_exec_that_ends_while_agent_and_gateway_are_down_is_told_once_and_keeps_its_code() {
    let suite = Suite::here();
    let docker = suite.docker();
    let name = unique("exec-away");
    let _ = docker.ok(&["run", "-d", "--name", &name, "busybox", "sleep", "600"]);
    let _ = docker.ok(&["exec", "-d", &name, "sh", "-c", "sleep 1; exit 4"]);
    for process in ["node-agent-1", "api-gateway"] {
        kill_9(&suite, process);
    }
    std::thread::sleep(Duration::from_millis(1_500));
    wait_until_it_works(&suite);
    let filter = format!("container={name}");
    let told = || {
        let until = docker.ok(&["info", "-f", "{{.SystemTime}}"]);
        let format = "{{.Actor.Attributes.exitCode}}";
        let filters = ["--filter", &filter, "--filter", "event=exec_die", "--format", format];
        docker.ok(&[&["events", "--since", "1h", "--until", &until], &filters[..]].concat())
    };
    eventually("its end is told", Duration::from_secs(20), || told() == "4");
    kill_and_return(&suite, "node-agent-1");
    assert_eq!(told(), "4", "and not again by the agent's successor");
    docker.remove(&[&name]);
    assert_eq!(told(), "4", "nor with the container");
}

#[test]
fn an_exit_while_the_agent_is_down_keeps_its_code() {
    let suite = Suite::here();
    let docker = suite.docker();
    let names: Vec<String> = (0..5).map(|n| unique(&format!("code{n}"))).collect();
    for (code, name) in (40..).zip(&names) {
        let script = format!("sleep 1.5; exit {code}");
        let _ = docker.ok(&["run", "-d", "--name", name, "busybox", "sh", "-c", &script]);
    }
    // Held down over the exits: each successor is killed as it appears.
    let until = std::time::Instant::now() + Duration::from_secs(3);
    while std::time::Instant::now() < until {
        kill(Pid::from_raw(suite.pid_of("node-agent-1")), Signal::SIGKILL).ok();
        std::thread::sleep(Duration::from_millis(40));
    }
    wait_until_it_works(&suite);
    for (code, name) in (40..).zip(&names) {
        assert_eq!(docker.ok(&["wait", name]), code.to_string());
        docker.remove(&[name]);
    }
}

#[test]
fn everything_works_without_redis() {
    let suite = Suite::here();
    let docker = suite.docker();
    let redis = Pid::from_raw(suite.pid_of("redis"));
    kill(redis, Signal::SIGSTOP).expect("it runs");
    let name = unique("no-redis");
    let outcome = docker.run(&["run", "--name", &name, "busybox", "echo", "hi"]);
    let waited = docker.run(&["exec", &name, "true"]);
    kill(redis, Signal::SIGCONT).expect("it was stopped");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "hi\n"), "{outcome:?}");
    assert!(waited.stderr.contains("is not running"));
    docker.remove(&[&name]);
    kill(redis, Signal::SIGKILL).expect("it runs");
    assert_eq!(docker.ok(&["run", "--rm", "busybox", "echo", "hi"]), "hi");
}

#[test]
fn postgres_may_crash_and_come_back() {
    let suite = Suite::here();
    let docker = suite.docker();
    let name = counter(&docker);
    kill_9(&suite, "postgres");
    wait_until_it_works(&suite);
    assert_eq!(docker.ok(&["inspect", "-f", "{{.State.Running}}", &name]), "true");
    assert_numbered_without_gap(&docker, &name);
    docker.remove(&[&name]);
}

/// Directories of volumes on the first host.
fn volumes_on_disk(suite: &Suite) -> Vec<std::path::PathBuf> {
    let data = suite.root.join(".wharfage/host-1/volumes");
    let projects = std::fs::read_dir(data).into_iter().flatten().flatten();
    projects.flat_map(|p| std::fs::read_dir(p.path()).into_iter().flatten().flatten().map(|v| v.path())).collect()
}

#[test]
fn no_volume_is_lost_or_left_behind_when_the_agent_is_killed_at_any_moment() {
    let suite = Suite::here();
    let docker = suite.docker();
    let kept = unique("kept");
    let mount = format!("{kept}:/v");
    let _ = docker.ok(&["run", "--rm", "-v", &mount, "busybox", "sh", "-c", "echo data > /v/f"]);
    let before = volumes_on_disk(&suite).len();
    for round in 0..5_u64 {
        let (named, sized, name) = (unique("gone"), unique("sized"), unique("c"));
        let _ = docker.ok(&["volume", "create", "-o", "size=16m", &sized]);
        let mounts = [format!("{named}:/etc"), format!("{sized}:/usr"), mount.clone()];
        let args = [
            "run", "-d", "--name", &name, "-v", &mounts[0], "-v", &mounts[1], "-v", &mounts[2], "-v", "/anon",
            "busybox", "sleep", "600",
        ];
        let creating = docker.piped(&args);
        std::thread::sleep(Duration::from_millis(round * 40));
        kill_9(&suite, "node-agent-1");
        let created = creating.wait_with_output().expect("it was started");
        wait_until_it_works(&suite);
        if created.status.success() {
            assert_eq!(docker.ok(&["exec", &name, "cat", "/v/f"]), "data");
            assert_eq!(docker.ok(&["exec", &name, "sh", "-c", "grep -c root: /etc/passwd"]), "1", "half a copy");
        }
        let removing = docker.piped(&["rm", "-fv", &name]);
        std::thread::sleep(Duration::from_millis(round * 15));
        kill_9(&suite, "node-agent-1");
        let _ = removing.wait_with_output().expect("it was started");
        wait_until_it_works(&suite);
        let _ = docker.run(&["rm", "-fv", &name]);
        let _ = docker.ok(&["volume", "rm", "-f", &named, &sized]);
    }
    eventually("the removed ones are gone from the disk", Duration::from_secs(20), || {
        volumes_on_disk(&suite).len() == before
    });
    assert_eq!(docker.ok(&["run", "--rm", "-v", &mount, "busybox", "cat", "/v/f"]), "data");
    let _ = docker.ok(&["volume", "rm", &kept]);
}

#[test]
fn a_docker_socket_in_a_container_works_again_after_its_agent_was_killed() {
    let suite = Suite::here();
    let docker = suite.docker();
    let inside = Inside::start(&docker, &[]);
    let inode = inside.ok("stat -c %i /var/run/docker.sock");
    let pid = docker.ok(&["inspect", "-f", "{{.State.Pid}}", &inside.name]);
    // Who connects while there is no agent waits for the next one.
    let before = kill_9(&suite, "node-agent-1");
    let waited = std::process::Command::new("/usr/bin/nsenter")
        .env_clear()
        .args(["-t", &pid, "-m", "-r", "/bin/docker", "run", "--rm", "busybox", "echo", "waited"])
        .output()
        .expect("nsenter is installed");
    assert_eq!(String::from_utf8_lossy(&waited.stdout), "waited\n", "{waited:?}");
    assert_ne!(suite.pid_of("node-agent-1"), before);
    for _ in 0..3 {
        kill_and_return(&suite, "node-agent-1");
        assert_eq!(inside.ok("docker run --rm busybox echo works"), "works");
    }
    kill_and_return(&suite, "api-gateway");
    assert_eq!(inside.ok("docker run --rm busybox echo works"), "works");
    assert_eq!(inside.ok("stat -c %i /var/run/docker.sock"), inode, "it is the same socket still");
}
