//! `--pid container:` and `--ipc container:`: processes and shared memory of two containers, on one host.

use std::time::Duration;

use tests::{Docker, Suite, eventually, unique};

/// Containers that go with the test.
struct Scene {
    docker: Docker,
    names: Vec<String>,
}

const WAIT: [&str; 4] = ["busybox", "sh", "-c", "while :; do sleep 1; done"];

impl Scene {
    fn new() -> Self {
        Self { docker: Suite::here().docker(), names: Vec::new() }
    }

    fn run(&mut self, more: &[&str]) -> String {
        let name = unique("shared");
        let mut args = vec!["run", "-d", "--name", &name];
        args.extend(more);
        args.extend(WAIT);
        let _ = self.docker.ok(&args);
        self.names.push(name.clone());
        name
    }

    fn namespace(&self, name: &str, which: &str) -> String {
        self.docker.ok(&["exec", name, "readlink", &format!("/proc/self/ns/{which}")])
    }

    fn field(&self, name: &str, field: &str) -> String {
        self.docker.ok(&["inspect", "-f", &format!("{{{{{field}}}}}"), name])
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        self.docker.remove(&names);
    }
}

#[test]
fn a_container_sees_and_signals_the_processes_of_another_and_ends_with_it() {
    let mut scene = Scene::new();
    let app = scene.run(&[]);
    let side = scene.run(&["--pid", &format!("container:{app}"), "--init"]);
    let id = scene.field(&app, ".Id");
    assert_eq!(scene.field(&side, ".HostConfig.PidMode"), format!("container:{id}"));
    assert_eq!(scene.namespace(&side, "pid"), scene.namespace(&app, "pid"));
    assert_ne!(scene.namespace(&side, "net"), scene.namespace(&app, "net"));
    let _ = scene.docker.ok(&["exec", &app, "sh", "-c", "sleep 4321 & echo $! > /pid"]);
    let pid = scene.docker.ok(&["exec", &app, "cat", "/pid"]);
    let line = scene.docker.ok(&["exec", &side, "sh", "-c", &format!("tr '\\0' ' ' < /proc/{pid}/cmdline")]);
    assert_eq!(line.trim(), "sleep 4321");
    let _ = scene.docker.ok(&["exec", &side, "kill", "-9", &pid]);
    eventually("the signal has ended it", Duration::from_secs(5), || {
        scene.docker.run(&["exec", &app, "test", "-d", &format!("/proc/{pid}")]).code != 0
    });
    // What is listed of each is its own all the same.
    assert!(!scene.docker.ok(&["top", &side]).contains("4321"));
    let _ = scene.docker.ok(&["kill", &app]);
    assert_eq!(scene.docker.ok(&["wait", &side]), "137", "its first process was the first of both");
    let stopped = scene.docker.run(&["start", &side]);
    let why = format!("failed to join PID namespace: container {id} is not running");
    assert!(stopped.stderr.contains(&why), "{stopped:?}");
    let _ = scene.docker.ok(&["start", &app, &side]);
    assert_eq!(scene.namespace(&side, "pid"), scene.namespace(&app, "pid"), "its next run is joined");
    scene.docker.remove(&[&app]);
    let removed = scene.docker.run(&["start", &side]);
    let why = format!("failed to join PID namespace: No such container: {id}");
    assert!(removed.stderr.contains(&why), "{removed:?}");
}

#[test]
fn memory_is_shared_with_whom_the_donor_lets_and_nobody_else() {
    let mut scene = Scene::new();
    let donor = scene.run(&["--ipc", "shareable", "--shm-size", "8m"]);
    let side = scene.run(&["--ipc", &format!("container:{donor}")]);
    assert_eq!(scene.namespace(&side, "ipc"), scene.namespace(&donor, "ipc"));
    let _ = scene.docker.ok(&["exec", &donor, "sh", "-c", "echo ours > /dev/shm/word; chmod 666 /dev/shm/word"]);
    assert_eq!(scene.docker.ok(&["exec", &side, "cat", "/dev/shm/word"]), "ours");
    let _ = scene.docker.ok(&["exec", "-u", "1000", &side, "sh", "-c", "echo theirs > /dev/shm/word"]);
    assert_eq!(scene.docker.ok(&["exec", &donor, "cat", "/dev/shm/word"]), "theirs");
    let mounts = scene.docker.ok(&["exec", &side, "grep", " /dev/shm ", "/proc/mounts"]);
    assert!(["nosuid", "nodev", "noexec", "size=8192k"].iter().all(|word| mounts.contains(word)), "{mounts}");
    let full = scene.docker.run(&["exec", &side, "dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=9"]);
    assert!(full.code != 0 && full.stderr.contains("No space left"), "{full:?}");
    // A new run of the donor begins with nothing; who stayed keeps what it joined.
    let _ = scene.docker.ok(&["restart", "-t", "0", &donor]);
    assert_eq!(scene.docker.ok(&["exec", &donor, "ls", "/dev/shm"]), "");
    assert_eq!(scene.docker.ok(&["exec", &side, "cat", "/dev/shm/word"]), "theirs");
    let _ = scene.docker.ok(&["restart", "-t", "0", &side]);
    assert_eq!(scene.namespace(&side, "ipc"), scene.namespace(&donor, "ipc"));

    let private = scene.run(&[]);
    let refused = scene.docker.run(&["run", "--rm", "--ipc", &format!("container:{private}"), "busybox", "true"]);
    let id = scene.field(&private, ".Id");
    let why = format!(
        "failed to join IPC namespace: container {id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
    );
    assert!(refused.code == 125 && refused.stderr.contains(&why), "{refused:?}");
}

#[test]
fn another_projects_processes_and_memory_cannot_be_joined() {
    let suite = Suite::here();
    let mut scene = Scene::new();
    let app = scene.run(&["--ipc", "shareable"]);
    let id = scene.field(&app, ".Id");
    let other = suite.docker_as(suite.var("WHARFAGE_TOKEN_2"));
    for (option, kind) in [("--pid", "PID"), ("--ipc", "IPC")] {
        for reference in [app.as_str(), &id, &id[..12]] {
            let refused = other.run(&["run", "--rm", option, &format!("container:{reference}"), "busybox", "true"]);
            let why = format!("failed to join {kind} namespace: No such container: {reference}");
            assert!(refused.code == 125 && refused.stderr.contains(&why), "{refused:?}");
            assert!(!refused.stderr.contains("Unable to find image"), "{refused:?}");
        }
    }
}
