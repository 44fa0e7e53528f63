//! Health checks, as a user of `docker run --health-…` sees them.

use std::time::Duration;

use serde_json::json;
use tests::{Suite, eventually, unique};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_container_becomes_healthy_and_unhealthy_and_says_so_everywhere() {
    let suite = Suite::here();
    let docker = suite.docker();
    let name = unique("health");
    let check = ["--health-cmd", "test -e /tmp/ok", "--health-interval", "600ms", "--health-retries", "2"];
    let mut run = vec!["run", "-d", "--name", &name];
    run.extend(check);
    run.extend(["busybox", "sh", "-c", "touch /tmp/ok; exec sleep 600"]);
    let _ = docker.ok(&run);
    let shown = |format: &str| docker.ok(&["inspect", "--format", format, &name]).trim().to_owned();
    eventually("healthy", SOON, || shown("{{.State.Health.Status}}") == "healthy");
    assert!(docker.ok(&["ps", "--filter", &format!("name={name}")]).contains("(healthy)"));
    assert_eq!(
        docker.ok(&["ps", "-q", "--filter", "health=healthy", "--filter", &format!("name={name}")]).lines().count(),
        1
    );
    assert_eq!(shown("{{json .Config.Healthcheck.Test}}"), r#"["CMD-SHELL","test -e /tmp/ok"]"#);

    let _ = docker.ok(&["exec", &name, "rm", "/tmp/ok"]);
    eventually("unhealthy", SOON, || shown("{{.State.Health.Status}}") == "unhealthy");
    assert!(shown("{{.State.Health.FailingStreak}}").parse::<u32>().expect("a number") >= 2);
    assert_eq!(shown("{{(index .State.Health.Log 0).ExitCode}}").len(), 1);
    let _ = docker.ok(&["exec", &name, "touch", "/tmp/ok"]);
    eventually("healthy again", SOON, || shown("{{.State.Health.Status}}") == "healthy");

    // `--until 0s` is the beginning of this second.
    std::thread::sleep(Duration::from_millis(1_100));
    let events = docker.ok(&[
        "events",
        "--since",
        "5m",
        "--until",
        "0s",
        "--filter",
        &format!("container={name}"),
        "--filter",
        "event=health_status",
        "--format",
        "{{.Action}}",
    ]);
    let told: Vec<&str> = events.lines().collect();
    assert_eq!(told, ["health_status: healthy", "health_status: unhealthy", "health_status: healthy"]);
    let _ = docker.ok(&["rm", "-f", &name]);
}

#[test]
fn a_probe_that_hangs_is_killed_and_its_output_is_kept() {
    let suite = Suite::here();
    let docker = suite.docker();
    let name = unique("health-slow");
    let _ = docker.ok(&[
        "run",
        "-d",
        "--name",
        &name,
        "--health-cmd",
        "echo stuck; exec sleep 77",
        "--health-interval",
        "500ms",
        "--health-timeout",
        "600ms",
        "--health-retries",
        "1",
        "busybox",
        "sleep",
        "600",
    ]);
    let shown = |format: &str| docker.ok(&["inspect", "--format", format, &name]).trim().to_owned();
    eventually("unhealthy", SOON, || shown("{{.State.Health.Status}}") == "unhealthy");
    assert_eq!(
        shown("{{with index .State.Health.Log 0}}{{.ExitCode}} {{.Output}}{{end}}"),
        "-1 Health check exceeded timeout (600ms): stuck"
    );
    // A new probe may have begun since; those that were killed are gone.
    let processes = docker.ok(&["top", &name]);
    assert!(processes.matches("sleep 77").count() <= 1, "{processes}");
    let _ = docker.ok(&["rm", "-f", &name]);
}

#[test]
fn settings_that_make_no_sense_are_refused_and_none_is_no_check() {
    let suite = Suite::here();
    let rest = suite.rest();
    let create = |check: serde_json::Value| {
        let body = json!({"Image": "busybox", "Cmd": ["true"], "Healthcheck": check});
        rest.post(&format!("/containers/create?name={}", unique("health-bad")), &body)
    };
    let refused = create(json!({"Test": ["CMD", "true"], "Interval": 1}));
    assert_eq!((refused.status, refused.body.contains("Interval in Healthcheck cannot be less than 1ms")), (400, true));
    let none = create(json!({"Test": ["NONE"]}));
    assert_eq!(none.status, 201, "{none:?}");
    let id = none.json()["Id"].as_str().expect("an id").to_owned();
    assert!(rest.get(&format!("/containers/{id}/json")).json()["State"]["Health"].is_null());
    assert_eq!(rest.send("DELETE", &format!("/containers/{id}"), None).status, 204);
}
