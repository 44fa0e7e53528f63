//! The docker CLI itself, nothing of ours in it, against the gateway.

use std::process::Output;

use serde_json::json;

use crate::fleet::Fleet;

async fn docker(fleet: &Fleet, arguments: &[&str]) -> Output {
    tokio::process::Command::new("docker")
        .args(arguments)
        .env("DOCKER_HOST", format!("tcp://{}", fleet.address))
        .env("DOCKER_CUSTOM_HEADERS", format!("Authorization=Bearer {}", fleet.token))
        .env("DOCKER_CONFIG", "/nonexistent/wt-docker-config")
        .output()
        .await
        .expect("the docker CLI is installed")
}

fn text(output: &Output) -> (Option<i32>, String, String) {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), lossy(&output.stdout), lossy(&output.stderr))
}

#[tokio::test]
async fn a_foreground_run_shows_the_output_and_exits_with_the_code() {
    let fleet = Fleet::new("cli_run").await;
    let run = text(&docker(&fleet, &["run", "--rm", "--name", "job", "busybox", "short"]).await);
    assert_eq!((run.0, run.1.as_str()), (Some(3), "hellobye"), "{run:?}");
    let list = text(&docker(&fleet, &["ps", "-a", "-q"]).await);
    assert_eq!((list.0, list.1.as_str()), (Some(0), ""), "{list:?}");
    let missing = text(&docker(&fleet, &["run", "busybox", "missing"]).await);
    assert_eq!(missing.0, Some(127), "{missing:?}");
}

#[tokio::test]
async fn the_everyday_commands_work() {
    let fleet = Fleet::new("cli_everyday").await;
    let run =
        text(&docker(&fleet, &["run", "-d", "--name", "web", "-p", "8080:80", "-m", "64m", "busybox", "sleep"]).await);
    assert_eq!(run.0, Some(0), "{run:?}");
    let id = run.1.trim().to_owned();
    for (arguments, wanted) in [
        (vec!["ps", "--format", "{{.Names}} {{.Ports}} {{.State}}"], "web 0.0.0.0:8080->80/tcp running\n".to_owned()),
        (
            vec!["inspect", "-f", "{{.Id}} {{.HostConfig.Memory}} {{.State.Running}}", "web"],
            format!("{id} 67108864 true\n"),
        ),
        (vec!["port", "web"], "80/tcp -> 0.0.0.0:8080\n".to_owned()),
        (vec!["exec", "web", "true"], "hellobye".to_owned()),
        (vec!["rename", "web", "db"], String::new()),
        (vec!["restart", "db"], "db\n".to_owned()),
        (vec!["stop", "-t", "1", "db"], "db\n".to_owned()),
        (vec!["wait", "db"], "143\n".to_owned()),
        (vec!["start", "db"], "db\n".to_owned()),
        (vec!["kill", "db"], "db\n".to_owned()),
        (vec!["rm", "-f", "db"], "db\n".to_owned()),
    ] {
        let (code, out, err) = text(&docker(&fleet, &arguments).await);
        let code_wanted = if arguments[0] == "exec" { 7 } else { 0 };
        assert_eq!((code, out), (Some(code_wanted), wanted), "{arguments:?}: {err}");
    }
    // The CLI cuts `until` to whole seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let events = text(&docker(&fleet, &["events", "--since", "1h", "--until", "0s", "--format", "{{.Action}}"]).await);
    assert!(events.1.starts_with("create\n") && events.1.contains("rename\n"), "{events:?}");
    fleet.create("gone", &["sleep"], json!({})).await;
    let prune = text(&docker(&fleet, &["container", "prune", "-f"]).await);
    assert!(prune.1.contains("Deleted Containers:"), "{prune:?}");
}
