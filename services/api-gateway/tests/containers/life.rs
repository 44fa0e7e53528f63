//! A container's life as a client drives it, with dockerd's statuses and texts.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fleet::{Fleet, project};

async fn actions(fleet: &Fleet) -> Vec<String> {
    let reply = fleet.call("GET", "/events?since=0&until=0s", None).await;
    assert_eq!((reply.status, reply.kind.as_str()), (200, "application/jsonl"));
    let action = |line: &str| {
        let event: Value = serde_json::from_str(line).expect("an event");
        event["Action"].as_str().expect("an action").to_owned()
    };
    reply.body.lines().map(action).collect()
}

#[tokio::test]
async fn a_container_is_created_started_stopped_and_removed() {
    let fleet = Fleet::new("life").await;
    let id = fleet.create("web", &["sleep", "600"], json!({"Labels": {"a": "b"}})).await;
    assert_eq!(fleet.start("web").await.status, 204);
    assert_eq!(fleet.start(&id[..12]).await.status, 304, "it runs already");
    let shown = fleet.call("GET", "/v1.51/containers/web/json", None).await.json();
    assert_eq!((&shown["State"]["Status"], &shown["State"]["Pid"]), (&json!("running"), &json!(42)));
    assert_eq!((&shown["Name"], &shown["Path"], &shown["Args"]), (&json!("/web"), &json!("sleep"), &json!(["600"])));
    assert!(shown["NetworkSettings"]["IPAddress"].as_str().is_some_and(|ip| ip.starts_with("10.")));
    let list = fleet.call("GET", "/containers/json", None).await.json();
    assert_eq!((&list[0]["Names"], &list[0]["State"]), (&json!(["/web"]), &json!("running")));
    let refused = fleet.call("DELETE", "/containers/web", None).await;
    assert_eq!(refused.status, 409);
    assert_eq!(
        refused.message(),
        "cannot remove container \"/web\": container is running: stop the container before removing or force remove"
    );
    let top = fleet.call("GET", "/containers/web/top", None).await.json();
    assert_eq!(top, json!({"Titles": ["PID", "CMD"], "Processes": [["42", "sleep"]]}));
    assert_eq!(fleet.call("POST", "/containers/web/stop?t=1", None).await.status, 204);
    assert_eq!(fleet.call("POST", "/containers/web/stop", None).await.status, 304);
    assert_eq!(fleet.call("GET", "/containers/json", None).await.json(), json!([]));
    let killed = fleet.call("POST", "/containers/web/kill", None).await;
    assert_eq!(
        (killed.status, killed.message()),
        (409, format!("cannot kill container: web: container {id} is not running"))
    );
    assert_eq!(fleet.call("POST", "/containers/web/rename?name=db", None).await.status, 204);
    assert_eq!(fleet.call("POST", "/containers/db/restart", None).await.status, 204);
    assert_eq!(fleet.call("POST", "/containers/db/kill?signal=9", None).await.status, 204);
    assert_eq!(fleet.call("DELETE", "/containers/db", None).await.status, 204);
    let gone = fleet.call("GET", "/containers/db/json", None).await;
    assert_eq!((gone.status, gone.message()), (404, "No such container: db".into()));
    assert_eq!(actions(&fleet).await, ["create", "top", "kill", "stop", "rename", "restart", "kill"]);
}

#[tokio::test]
async fn create_refuses_in_dockerds_words() {
    let fleet = Fleet::new("refusals").await;
    let id = fleet.create("web", &["sh"], json!({})).await;
    let create = async |path: &str, body: Value| fleet.call("POST", path, Some(body)).await;
    let image = create("/containers/create", json!({"Image": "nope:1"})).await;
    assert_eq!((image.status, image.message()), (404, "No such image: nope:1".into()));
    let taken = create("/containers/create?name=web", json!({"Image": "busybox"})).await;
    assert_eq!(
        (taken.status, taken.message()),
        (
            409,
            format!(
                "Conflict. The container name \"/web\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
            )
        )
    );
    let name = create("/containers/create?name=-x", json!({"Image": "busybox"})).await;
    assert_eq!((name.status, name.message().starts_with("Invalid container name (-x)")), (400, true));
    let field = create("/containers/create", json!({"Image": "busybox", "HostConfig": {"Memory": "x"}})).await;
    assert!(field.status == 400 && field.message().contains("HostConfig.Memory"), "{}", field.body);
    let privileged =
        create("/containers/create", json!({"Image": "busybox", "HostConfig": {"Privileged": true}})).await;
    assert_eq!(privileged.status, 403);
    let nul = create("/containers/create", json!({"Image": "busybox", "Labels": {"a": "\0"}})).await;
    assert_eq!(nul.status, 400, "{}", nul.body);
    let too_large = json!({"Image": "busybox", "HostConfig": {"Memory": 512_i64 << 30}});
    let unplaced = create("/containers/create?name=big", too_large).await;
    assert_eq!((unplaced.status, unplaced.message()), (503, "no host has 512 GiB of memory free".into()));
    let left: i64 = sqlx::query_scalar("SELECT (SELECT count(*) FROM containers) + (SELECT count(*) FROM endpoints)")
        .fetch_one(fleet.seed.pool())
        .await
        .expect("counted");
    assert_eq!(left, 2, "the one container and its address");
    let unnamed = create("/containers/create", json!({"Image": "busybox"})).await;
    assert_eq!((unnamed.status, &unnamed.json()["Warnings"]), (201, &json!([])));
}

#[tokio::test]
async fn a_command_that_is_missing_fails_the_start_with_400() {
    let fleet = Fleet::new("missing").await;
    fleet.create("bad", &["missing"], json!({})).await;
    let start = fleet.start("bad").await;
    assert_eq!(start.status, 400);
    assert_eq!(
        start.message(),
        "failed to create task for container: exec: \"missing\": executable file not found in $PATH: unknown"
    );
    let shown = fleet.call("GET", "/containers/bad/json", None).await.json();
    assert_eq!((&shown["State"]["Status"], &shown["State"]["ExitCode"]), (&json!("created"), &json!(127)));
}

#[tokio::test]
async fn a_published_port_is_taken_once() {
    let fleet = Fleet::new("published").await;
    let publish = json!({"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}});
    fleet.create("one", &["sleep"], publish.clone()).await;
    let two = fleet.create("two", &["sleep"], publish).await;
    fleet
        .create("any", &["sleep"], json!({"ExposedPorts": {"80/tcp": {}}, "HostConfig": {"PublishAllPorts": true}}))
        .await;
    assert_eq!(fleet.start("one").await.status, 204);
    let refused = fleet.start("two").await;
    assert_eq!(refused.status, 500);
    assert_eq!(
        refused.message(),
        format!(
            "driver failed programming external connectivity on endpoint two ({two}): Bind for 0.0.0.0:8080 failed: port is already allocated"
        )
    );
    let shown = fleet.call("GET", "/containers/two/json", None).await.json();
    assert_eq!(shown["State"]["Status"], "created", "the refused start left nothing behind");
    assert_eq!(fleet.start("any").await.status, 204);
    let shown = fleet.call("GET", "/containers/any/json", None).await.json();
    let port: u16 =
        shown["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"].as_str().expect("a port").parse().expect("a number");
    assert!((32_768..61_000).contains(&port));
    let list = fleet.call("GET", "/containers/json?filters=%7B%22publish%22%3A%5B%228080%22%5D%7D", None).await.json();
    assert_eq!((list.as_array().map(Vec::len), &list[0]["Ports"][0]["PublicPort"]), (Some(1), &json!(8080)));
}

#[tokio::test]
async fn a_wait_begins_to_answer_before_the_start_and_tells_the_code_after_the_removal() {
    let fleet = Fleet::new("waiting").await;
    let id = fleet.create("job", &["short"], json!({"HostConfig": {"AutoRemove": true}})).await;
    let begun = Instant::now();
    let (head, mut stream) = fleet.hijack(&format!("/containers/{id}/wait?condition=removed"), "", false).await;
    assert!(head.starts_with("HTTP/1.1 200 OK") && begun.elapsed() < Duration::from_secs(2), "{head}");
    assert!(head.to_ascii_lowercase().contains("content-type: application/json"), "{head}");
    assert_eq!(fleet.start("job").await.status, 204);
    let mut body = vec![0; 512];
    let mut read = 0;
    while !String::from_utf8_lossy(&body[..read]).contains('}') {
        read += tokio::io::AsyncReadExt::read(&mut stream, &mut body[read..]).await.expect("the answer");
    }
    assert!(String::from_utf8_lossy(&body[..read]).contains("{\"StatusCode\":3}\n"));
    assert_eq!(fleet.call("GET", &format!("/containers/{id}/json"), None).await.status, 404);
    let unknown = fleet.call("POST", "/containers/nope/wait", None).await;
    assert_eq!(unknown.status, 404);
    fleet.create("idle", &["sleep"], json!({})).await;
    let bad = fleet.call("POST", "/containers/idle/wait?condition=bogus", None).await;
    assert_eq!((bad.status, bad.message()), (400, "invalid condition: \"bogus\"".into()));
    assert_eq!(fleet.call("POST", "/containers/idle/wait", None).await.body, "{\"StatusCode\":0}\n");
}

#[tokio::test]
async fn another_projects_containers_do_not_exist() {
    let fleet = Fleet::new("tenancy").await;
    let id = fleet.create("web", &["sleep"], json!({})).await;
    let (_, other) = project(&fleet.seed).await;
    for (method, path) in [
        ("GET", "json"),
        ("GET", "top"),
        ("GET", "logs?stdout=1"),
        ("POST", "start"),
        ("POST", "stop"),
        ("POST", "kill"),
        ("POST", "restart"),
        ("POST", "rename?name=xx"),
        ("POST", "wait"),
        ("POST", "exec"),
        ("POST", "resize?h=1&w=1"),
        ("DELETE", ""),
    ] {
        for reference in ["web", id.as_str(), &id[..6]] {
            let path = format!("/containers/{reference}/{path}");
            let body = path.ends_with("exec").then(|| json!({"Cmd": ["sh"]}));
            let reply = fleet.call_as(&other, method, path.trim_end_matches('/'), body).await;
            assert_eq!(
                (reply.status, reply.message()),
                (404, format!("No such container: {reference}")),
                "{method} {path}"
            );
        }
    }
    assert_eq!(fleet.call_as(&other, "GET", "/containers/json?all=1", None).await.json(), json!([]));
    assert_eq!(
        fleet.call_as(&other, "POST", "/containers/prune", None).await.body,
        "{\"ContainersDeleted\":null,\"SpaceReclaimed\":0}\n"
    );
    assert_eq!(fleet.call("GET", &format!("/containers/{id}/json"), None).await.status, 200);
}

#[tokio::test]
async fn prune_takes_what_does_not_run() {
    let fleet = Fleet::new("prune").await;
    let idle = fleet.create("idle", &["sleep"], json!({"Labels": {"x": "1"}})).await;
    fleet.create("kept", &["sleep"], json!({})).await;
    fleet.create("busy", &["sleep"], json!({"Labels": {"x": "1"}})).await;
    assert_eq!(fleet.start("busy").await.status, 204);
    let path = "/containers/prune?filters=%7B%22label%22%3A%5B%22x%22%5D%7D";
    assert_eq!(fleet.call("POST", path, None).await.json()["ContainersDeleted"], json!([idle]));
    assert_eq!(fleet.call("GET", "/containers/json?all=1", None).await.json().as_array().map(Vec::len), Some(2));
}
