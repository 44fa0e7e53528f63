//! Pause and unpause, and what every other verb does with a paused container.

use std::time::Duration;

use serde_json::json;
use tests::{Docker, Suite, eventually, unique};

/// Counts upwards for ever, ten a second.
const COUNTS: &str = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.1; done";

fn paused(docker: &Docker) -> String {
    let name = unique("pause");
    let id = docker.ok(&["run", "-d", "--name", &name, "busybox", "sh", "-c", COUNTS]);
    eventually("it counts", Duration::from_secs(10), || docker.ok(&["logs", &name]).contains('3'));
    assert_eq!(docker.ok(&["pause", &name]), name);
    assert_eq!(
        docker.ok(&["inspect", "-f", "{{.State.Status}} {{.State.Paused}} {{.State.Running}}", &id]),
        "paused true true"
    );
    name
}

fn lines(docker: &Docker, name: &str) -> usize {
    docker.ok(&["logs", name]).lines().count()
}

#[test]
fn a_paused_container_stands_still_and_runs_on() {
    let docker = Suite::here().docker();
    let name = paused(&docker);
    let before = lines(&docker, &name);
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(lines(&docker, &name), before, "it stands still");
    let line =
        docker.ok(&["ps", "--filter", &format!("name={name}"), "--filter", "status=paused", "--format", "{{.Status}}"]);
    assert!(line.starts_with("Up ") && line.ends_with("(Paused)"), "{line}");
    assert_ne!(docker.ok(&["info", "--format", "{{.ContainersPaused}}"]), "0");
    assert!(docker.ok(&["top", &name]).contains("sleep 0.1"));
    assert_eq!(docker.ok(&["unpause", &name]), name);
    assert_eq!(docker.ok(&["inspect", "-f", "{{.State.Status}} {{.State.Paused}}", &name]), "running false");
    eventually("it goes on", Duration::from_secs(5), || lines(&docker, &name) > before + 2);
    // The CLI cuts `0s` down to the whole second.
    eventually("both are told", Duration::from_secs(5), || {
        let filter = format!("container={name}");
        let told = ["events", "--since", "60s", "--until", "0s", "--filter", &filter, "--format", "{{.Action}}"];
        docker.ok(&told).contains("\npause\ntop\nunpause")
    });
    docker.remove(&[&name]);
}

#[test]
fn what_a_paused_container_cannot_do_is_refused_in_dockerds_words() {
    let suite = Suite::here();
    let (docker, rest) = (suite.docker(), suite.rest());
    let name = paused(&docker);
    let id = docker.ok(&["inspect", "-f", "{{.Id}}", &name]);
    let refused = |method: &str, path: &str| {
        let reply = rest.send(method, path, Some(&json!({"Cmd": ["true"]})));
        (reply.status, reply.json()["message"].as_str().unwrap_or_default().to_owned())
    };
    let containers = format!("/containers/{name}");
    assert_eq!(refused("POST", &format!("{containers}/pause")), (409, format!("Container {id} is already paused")));
    assert_eq!(
        refused("POST", &format!("{containers}/exec")),
        (409, format!("Container {id} is paused, unpause the container before exec"))
    );
    assert_eq!(
        refused("DELETE", &containers),
        (409, format!("cannot remove container \"/{name}\": container is paused and must be unpaused first"))
    );
    let attach = docker.run(&["attach", &name]);
    assert!(attach.stderr.contains("paused"), "{attach:?}");
    let _ = docker.ok(&["unpause", &name]);
    assert_eq!(refused("POST", &format!("{containers}/unpause")), (500, format!("Container {id} is not paused")));
    let _ = docker.ok(&["kill", &name]);
    assert_eq!(refused("POST", &format!("{containers}/pause")), (409, format!("container {id} is not running")));
    docker.remove(&[&name]);
}

#[test]
fn a_paused_container_can_be_killed_stopped_restarted_and_removed() {
    let docker = Suite::here().docker();
    let name = paused(&docker);
    let state = || docker.ok(&["inspect", "-f", "{{.State.Status}} {{.State.Paused}} {{.State.ExitCode}}", &name]);
    let _ = docker.ok(&["kill", &name]);
    assert_eq!(state(), "exited false 137");
    let again = || {
        let _ = docker.ok(&["start", &name]);
        let _ = docker.ok(&["pause", &name]);
    };
    again();
    // A shell that is PID 1 and has no handler does not hear SIGTERM.
    let _ = docker.ok(&["stop", "-t", "1", &name]);
    assert_eq!(state(), "exited false 137");
    again();
    let _ = docker.ok(&["restart", "-t", "0", &name]);
    assert!(state().starts_with("running false"));
    let _ = docker.ok(&["pause", &name]);
    let _ = docker.ok(&["rm", "-f", &name]);
    assert_ne!(docker.run(&["inspect", &name]).code, 0);
}
