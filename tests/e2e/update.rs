//! `docker update`: limits of a container that runs, seen from its cgroup.

use serde_json::json;
use tests::{Docker, Suite, unique};

/// What the container's cgroup says, on either hierarchy.
fn limit(docker: &Docker, name: &str, v1: &str, v2: &str) -> String {
    let pid = docker.ok(&["inspect", "-f", "{{.State.Pid}}", name]);
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs on this machine");
    let (controller, file) = v1.split_once('/').expect("controller and file");
    let legacy = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        (parts.next()?.split(',').any(|c| c == controller)).then(|| parts.next())?
    });
    let path = match legacy {
        Some(group) => format!("/sys/fs/cgroup/{controller}{group}/{file}"),
        None => {
            let group = groups.lines().find_map(|line| line.strip_prefix("0::")).expect("a cgroup");
            format!("/sys/fs/cgroup{group}/{v2}")
        }
    };
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")).trim().to_owned()
}

#[test]
fn limits_change_while_it_runs_and_hold_after_a_restart() {
    let docker = Suite::here().docker();
    let name = unique("update");
    let _ = docker.ok(&["run", "-d", "--name", &name, "-m", "64m", "busybox", "sleep", "600"]);
    let memory = || limit(&docker, &name, "memory/memory.limit_in_bytes", "memory.max");
    assert_eq!(memory(), "67108864");
    let changed = ["update", "-m", "100m", "--memory-swap", "200m", "--cpus", "0.5", "--pids-limit", "77", &name];
    assert_eq!(docker.ok(&changed), name);
    let seen = || {
        assert_eq!(memory(), "104857600");
        assert_eq!(limit(&docker, &name, "pids/pids.max", "pids.max"), "77");
        assert!(limit(&docker, &name, "cpu/cpu.cfs_quota_us", "cpu.max").starts_with("50000"));
    };
    seen();
    let shown = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}";
    assert_eq!(docker.ok(&["inspect", "-f", shown, &name]), "104857600 209715200 500000000 77");
    let _ = docker.ok(&["restart", "-t", "0", &name]);
    seen();
    docker.remove(&[&name]);
}

#[test]
fn what_cannot_be_changed_is_refused_in_dockerds_words_and_changes_nothing() {
    let suite = Suite::here();
    let (docker, rest) = (suite.docker(), suite.rest());
    let name = unique("update-refused");
    let hog = "tr '\\0' x </dev/zero | head -c 30000000 | sed 's/y//' & sleep 600";
    let _ = docker.ok(&[
        "run",
        "-d",
        "--rm",
        "--name",
        &name,
        "-m",
        "64m",
        "--memory-swap",
        "64m",
        "busybox",
        "sh",
        "-c",
        hog,
    ]);
    let id = docker.ok(&["inspect", "-f", "{{.Id}}", &name]);
    let update = |body: &serde_json::Value| {
        let reply = rest.post(&format!("/containers/{name}/update"), body);
        (reply.status, reply.json()["message"].as_str().unwrap_or_default().to_owned())
    };
    let cannot = |why: &str| format!("Cannot update container {id}: {why}");
    assert_eq!(
        update(&json!({"RestartPolicy": {"Name": "always"}})),
        (409, cannot("Restart policy cannot be updated because AutoRemove is enabled for the container"))
    );
    assert_eq!(
        update(&json!({"Memory": 128 << 20})),
        (
            409,
            cannot(
                "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
            )
        )
    );
    assert_eq!(update(&json!({"Memory": 1})), (400, "Minimum memory limit allowed is 6MB".into()));
    assert_eq!(update(&json!({"Memory": 1_i64 << 50, "MemorySwap": 1_i64 << 51})).0, 503);
    assert_eq!(update(&json!({"Devices": [{"PathOnHost": "/dev/sda"}]})).0, 403);
    assert_eq!(docker.ok(&["inspect", "-f", "{{.HostConfig.Memory}}", &name]), "67108864");
    assert_eq!(limit(&docker, &name, "memory/memory.limit_in_bytes", "memory.max"), "67108864");
    docker.remove(&[&name]);
}

#[test]
fn a_new_restart_policy_is_for_what_happens_next() {
    let docker = Suite::here().docker();
    let name = unique("update-restart");
    let _ = docker.ok(&["run", "--name", &name, "busybox", "true"]);
    let _ = docker.ok(&["update", "--restart", "always", &name]);
    std::thread::sleep(std::time::Duration::from_millis(500));
    let state = "{{.State.Status}} {{.RestartCount}} {{.HostConfig.RestartPolicy.Name}}";
    assert_eq!(docker.ok(&["inspect", "-f", state, &name]), "exited 0 always");
    docker.remove(&[&name]);
}
