//! Rounds: the agent killed again and again under containers that write numbered lines, and cycles of
//! create, start, exec, stop and remove. Short by themselves; `ROUNDS`, `CONTAINERS` and `CYCLES` make
//! them long. Runs alone, on one host, with a suite that is up.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    process::Child,
    sync::atomic::{AtomicUsize, Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use tests::{Docker, Residue, Suite, eventually, unique};

fn number(name: &str, by_itself: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(by_itself)
}

/// Writes numbered lines in bursts until SIGTERM, and then ends with its own code.
fn writer(docker: &Docker, name: &str, code: usize) {
    let script = format!(
        "trap 'exit {code}' TERM; i=0; while :; do \
         for _ in 1 2 3 4 5 6 7 8 9 10; do i=$((i+1)); echo $i; done; sleep 0.3; done"
    );
    let _ = docker.ok(&["run", "-d", "--restart", "on-failure", "--name", name, "busybox", "sh", "-c", &script]);
}

/// `docker logs -f`, read as it comes.
fn follow(docker: &Docker, name: &str) -> (Child, JoinHandle<String>) {
    let mut child = docker.piped(&["logs", "-f", name]);
    let mut out = child.stdout.take().expect("piped");
    let reader = thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).expect("text");
        text
    });
    (child, reader)
}

fn assert_numbered(what: &str, text: &str) -> usize {
    for (expected, line) in (1..).zip(text.lines()) {
        assert_eq!(line, expected.to_string(), "{what}: a line was lost, doubled or moved");
    }
    text.lines().count()
}

fn kill_agent(suite: &Suite) {
    let before = suite.pid_of("node-agent-1");
    kill(Pid::from_raw(before), Signal::SIGKILL).expect("it runs");
    eventually("the agent comes back", Duration::from_secs(20), || suite.pid_of("node-agent-1") != before);
}

#[test]
fn an_agent_killed_again_and_again_loses_no_line_no_code_and_no_container() {
    let suite = Suite::here();
    let docker = suite.docker();
    let (rounds, count) = (number("ROUNDS", 4), number("CONTAINERS", 10));
    let names: Vec<String> = (0..count).map(|n| unique(&format!("writer{n}"))).collect();
    for (n, name) in names.iter().enumerate() {
        writer(&docker, name, 10 + n % 100);
    }
    let identity = |name: &str| {
        docker.ok(&["inspect", "-f", "{{.State.Pid}} {{.State.StartedAt}} {{.RestartCount}} {{.State.Running}}", name])
    };
    let before: BTreeMap<&String, String> = names.iter().map(|name| (name, identity(name))).collect();
    let followers: Vec<_> = names.iter().take(5).map(|name| (name, follow(&docker, name))).collect();
    let begun = Instant::now();
    for round in 0..rounds {
        let short = unique("short");
        let code = 100 + round % 100;
        let script = format!("echo begun; sleep 0.4; exit {code}");
        let _ = docker.ok(&["run", "-d", "--name", &short, "busybox", "sh", "-c", &script]);
        kill_agent(&suite);
        assert_eq!(docker.ok(&["wait", &short]), code.to_string(), "round {round}");
        eventually("its log can be read", Duration::from_secs(20), || {
            let logged = docker.run(&["logs", &short]);
            logged.code == 0 && logged.stdout == "begun\n"
        });
        docker.remove(&[&short]);
        let reached = &names[round % count];
        eventually("the agent serves again", Duration::from_secs(30), || {
            docker.run(&["exec", reached, "true"]).code == 0
        });
    }
    println!("{rounds} rounds with {count} containers: {:?}", begun.elapsed());
    for (name, was) in &before {
        assert_eq!(&identity(name), was, "{name}");
    }
    thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| docker.ok(&["stop", "-t", "30", name]));
        }
    });
    let mut lines = 0;
    for (n, name) in names.iter().enumerate() {
        let shown = docker.ok(&["inspect", "-f", "{{.State.ExitCode}} {{.RestartCount}}", name]);
        assert_eq!(shown, format!("{} 0", 10 + n % 100), "{name}");
        lines += assert_numbered(name, &docker.ok(&["logs", name]));
    }
    for (name, (mut child, reader)) in followers {
        let followed = reader.join().expect("reads");
        assert!(child.wait().expect("ends").success(), "{name}");
        let heard = assert_numbered(&format!("a follower of {name}"), &followed);
        assert_eq!(heard, docker.ok(&["logs", name]).lines().count(), "a follower of {name} heard all of it");
    }
    println!("{lines} lines, none lost or doubled");
    docker.remove(&names.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Open descriptors of the services of a host and of the control plane.
fn descriptors(suite: &Suite) -> BTreeMap<&'static str, usize> {
    let services = ["api-gateway", "scheduler", "image-svc", "node-agent-1", "netd-1"];
    let open = |name| fs::read_dir(format!("/proc/{}/fd", suite.pid_of(name))).map_or(0, Iterator::count);
    services.into_iter().map(|name| (name, open(name))).collect()
}

fn cycle(client: &tests::Rest) {
    let call = |method: &str, path: &str, body: Option<&serde_json::Value>, accepted: &[u16]| {
        let reply = client.send(method, path, body);
        assert!(accepted.contains(&reply.status), "{method} {path}: {reply:?}");
        reply
    };
    let name = unique("cycle");
    let wanted = json!({"Image": "busybox", "Cmd": ["sleep", "600"], "HostConfig": {"Memory": 64 << 20}});
    let created = call("POST", &format!("/containers/create?name={name}"), Some(&wanted), &[201]).json();
    let id = created["Id"].as_str().expect("an id").to_owned();
    call("POST", &format!("/containers/{id}/start"), None, &[204]);
    let exec = json!({"Cmd": ["true"], "AttachStdout": true});
    let exec = call("POST", &format!("/containers/{id}/exec"), Some(&exec), &[201]).json();
    let exec = exec["Id"].as_str().expect("an id").to_owned();
    call("POST", &format!("/exec/{exec}/start"), Some(&json!({"Detach": true})), &[200]);
    call("POST", &format!("/containers/{id}/stop?t=0"), None, &[204]);
    call("DELETE", &format!("/containers/{id}"), None, &[204]);
}

#[test]
fn cycles_leave_the_machine_as_they_found_it() {
    let suite = Suite::here();
    let client = suite.rest();
    let (cycles, at_once) = (number("CYCLES", 24), 4);
    // The first ones open connections and files that stay.
    for _ in 0..4 {
        cycle(&client);
    }
    let settled = || {
        thread::sleep(Duration::from_secs(3));
        (Residue::now(), descriptors(&suite))
    };
    let (before, open_before) = settled();
    let next = AtomicUsize::new(0);
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < cycles {
                    cycle(&client);
                }
            });
        }
    });
    let took = begun.elapsed();
    println!("{cycles} cycles in {took:?}: {:.1} a second", cycles as f64 / took.as_secs_f64());
    let (after, open_after) = settled();
    assert_eq!(after, before, "mounts, links, tables, cgroups, processes");
    for (service, open) in &open_after {
        let was = open_before[service];
        assert!(*open <= was + 16, "{service} holds {open} descriptors, {was} before");
    }
    let left = suite.docker().ok(&["ps", "-aq", "--filter", "name=cycle-"]);
    assert!(left.is_empty(), "{left}");
    println!("descriptors: {open_before:?} before, {open_after:?} after");
}
