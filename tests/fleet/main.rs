//! Three hosts, each a network namespace with its own data root, agent and netd: one pool for the
//! user. Needs `NODES=3 make up`.

use std::{collections::BTreeSet, sync::OnceLock, time::Duration};

use serde_json::Value;
use tests::{Docker, Suite, eventually, unique};

/// The suite, without what earlier runs left: placement counts every container, running or not.
fn suite() -> Suite {
    static CLEARED: OnceLock<()> = OnceLock::new();
    let suite = Suite::here();
    CLEARED.get_or_init(|| {
        let docker = suite.docker();
        let left = docker.ok(&["ps", "-aq"]);
        docker.remove(&left.split_whitespace().collect::<Vec<_>>());
    });
    suite
}

fn spread(docker: &Docker, count: usize) -> Vec<String> {
    (0..count)
        .map(|_| {
            let name = unique("fleet");
            let script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done";
            let _ = docker.ok(&["run", "-d", "--name", &name, "busybox", "sh", "-c", script]);
            name
        })
        .collect()
}

fn hosts(suite: &Suite) -> Vec<Value> {
    let list = suite.rest_admin().get("/api/v1/hosts").json();
    list.as_array().or(list["items"].as_array()).expect("a list").clone()
}

#[test]
fn containers_spread_over_the_hosts_and_are_one_pool() {
    let suite = suite();
    assert_eq!(suite.hosts().len(), 3, "this needs NODES=3");
    let docker = suite.docker();
    let names = spread(&docker, 6);
    let counts: Vec<u64> = hosts(&suite).iter().map(|h| h["containers"].as_u64().expect("a count")).collect();
    assert!(counts.iter().all(|n| *n >= 1), "not spread: {counts:?}");
    let listed = docker.ok(&["ps", "--format", "{{.Names}}"]);
    for name in &names {
        assert!(listed.contains(name), "{name} is missing");
        assert_eq!(docker.ok(&["exec", name, "echo", "here"]), "here");
        eventually("it has logged", Duration::from_secs(5), || docker.ok(&["logs", name]).starts_with("1\n2"));
    }
    docker.remove(&names.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn containers_on_different_hosts_reach_each_other_by_address() {
    let suite = suite();
    let docker = suite.docker();
    let names = spread(&docker, 3);
    let addresses: BTreeSet<String> = names
        .iter()
        .map(|name| docker.ok(&["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name]))
        .collect();
    assert_eq!(addresses.len(), 3);
    for name in &names {
        for address in &addresses {
            let outcome = docker.run(&["exec", name, "ping", "-c", "1", "-W", "2", address]);
            assert_eq!(outcome.code, 0, "{name} does not reach {address}: {outcome:?}");
        }
    }
    docker.remove(&names.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn foreground_runs_and_attached_input_work_wherever_they_land() {
    let docker = suite().docker();
    for n in 0..6 {
        let outcome = docker.run_with_input(&["run", "-i", "--rm", "busybox", "cat"], format!("{n}").as_bytes());
        assert_eq!((outcome.code, outcome.stdout), (0, n.to_string()));
    }
}

#[test]
fn another_project_on_another_host_is_out_of_reach() {
    let suite = suite();
    let (one, two) = (suite.docker(), suite.docker_as(suite.var("WHARFAGE_TOKEN_2")));
    let names = spread(&one, 3);
    for name in &names {
        let address = one.ok(&["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name]);
        for _ in 0..3 {
            assert_ne!(two.run(&["run", "--rm", "busybox", "ping", "-c", "1", "-W", "1", &address]).code, 0);
        }
    }
    one.remove(&names.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn a_published_port_answers_on_its_host() {
    let suite = suite();
    let docker = suite.docker();
    let name = unique("fleet-web");
    let _ = docker.ok(&["run", "-d", "--name", &name, "-p", "18081:80", "httpd"]);
    eventually("one of the hosts answers", Duration::from_secs(5), || {
        suite.hosts().iter().any(|host| std::net::TcpStream::connect(format!("{host}:18081")).is_ok())
    });
    docker.remove(&[&name]);
}

#[test]
fn a_volume_binds_its_containers_to_one_host_also_when_they_come_at_once() {
    let suite = suite();
    let docker = suite.docker();
    let volume = unique("bound");
    let mount = format!("{volume}:/v");
    let names: Vec<String> = (0..6).map(|_| unique("bound")).collect();
    let started: Vec<_> = names
        .iter()
        .map(|name| docker.piped(&["run", "-d", "--name", name, "-v", &mount, "busybox", "sleep", "600"]))
        .collect();
    for child in started {
        let output = child.wait_with_output().expect("it was started");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    for name in &names {
        let _ = docker.ok(&["exec", name, "touch", &format!("/v/{name}")]);
    }
    for name in &names {
        assert_eq!(docker.ok(&["exec", name, "sh", "-c", "ls /v | wc -l"]), "6", "{name} sees another volume");
    }
    docker.remove(&names.iter().map(String::as_str).collect::<Vec<_>>());
    // Two volumes that came to different hosts cannot be used together, and the answer says so.
    let spread: Vec<String> = (0..6).map(|_| unique("apart")).collect();
    for name in &spread {
        let _ = docker.ok(&["run", "-d", "--name", name, "-v", &format!("{name}:/v"), "busybox", "sleep", "600"]);
    }
    let mut refusals = 0;
    for other in &spread[1..] {
        let both = ["run", "--rm", "-v", &format!("{}:/a", spread[0]), "-v", &format!("{other}:/b"), "busybox", "true"];
        let outcome = docker.run(&both);
        if outcome.code != 0 {
            let names = [spread[0].as_str(), other.as_str()];
            let says =
                outcome.stderr.contains("are on different hosts") && names.iter().all(|n| outcome.stderr.contains(n));
            assert!(says, "{outcome:?}");
            refusals += 1;
        }
    }
    assert!(refusals > 0, "six containers on three hosts, and all volumes on one");
    docker.remove(&spread.iter().map(String::as_str).collect::<Vec<_>>());
    let volumes = [&[volume.as_str()][..], &spread.iter().map(String::as_str).collect::<Vec<_>>()].concat();
    let _ = docker.ok(&[&["volume", "rm"], &volumes[..]].concat());
}
