//! Bad input: a clear 4xx in the face's own shape, and nothing half-made.

use serde_json::json;
use tests::Suite;

fn message(body: &str) -> String {
    serde_json::from_str::<serde_json::Value>(body)
        .ok()
        .and_then(|v| v["message"].as_str().map(str::to_owned))
        .unwrap_or_else(|| panic!("no message in {body:?}"))
}

#[test]
fn malformed_json_wrong_types_and_bad_names_are_400_with_a_message() {
    let rest = Suite::here().rest();
    let bad = [
        json!({"Image": 7}),
        json!({"Image": "busybox", "Env": "A=b"}),
        json!({"Image": "busybox", "HostConfig": {"Memory": -5}}),
        json!({"Image": "busybox", "HostConfig": {"Memory": 1024}}),
        json!({"Image": "busybox", "HostConfig": {"NanoCpus": -1}}),
        json!({"Image": "busybox", "StopSignal": "SIGNOPE"}),
        json!({"Image": "busybox", "ExposedPorts": {"99999/tcp": {}}}),
        json!({"Image": "UPPER/../x"}),
        json!({}),
    ];
    for body in bad {
        let reply = rest.post("/v1.50/containers/create", &body);
        assert_eq!(reply.status, 400, "{body} gave {reply:?}");
        assert!(!message(&reply.body).is_empty());
        assert_eq!(reply.headers["content-type"], "application/json");
    }
    for name in ["a/b", "-x", "%00", "x%20y", "ä", "."] {
        let reply = rest.post(&format!("/containers/create?name={name}"), &json!({"Image": "busybox"}));
        assert_eq!(reply.status, 400, "{name} gave {reply:?}");
    }
}

#[test]
fn an_oversized_body_is_refused_before_it_is_read() {
    let rest = Suite::here().rest();
    let huge = json!({"Image": "busybox", "Env": ["A=".to_owned() + &"x".repeat(16 << 20)]});
    let status = rest.try_send("POST", "/containers/create", Some(&huge)).map(|reply| reply.status);
    assert!(matches!(status, Ok(413) | Err(_)), "{status:?}");
}

#[test]
fn unknown_containers_versions_and_paths_answer_as_dockerd_does() {
    let rest = Suite::here().rest();
    let reply = rest.get("/v1.50/containers/nope/json");
    assert_eq!((reply.status, message(&reply.body).as_str()), (404, "No such container: nope"));
    let reply = rest.get("/v1.99/containers/json");
    assert_eq!(reply.status, 400);
    assert!(message(&reply.body).starts_with("client version 1.99 is too new. Maximum supported API version is 1."));
    let reply = rest.get("/v1.50/no/such/path");
    assert_eq!((reply.status, message(&reply.body).as_str()), (404, "page not found"));
    let reply = rest.get("/v1.50/containers/json?filters=%7B%22foo%22%3A%5B%22x%22%5D%7D");
    assert_eq!((reply.status, message(&reply.body).as_str()), (400, "invalid filter 'foo'"));
}

#[test]
fn what_is_not_built_says_so() {
    let rest = Suite::here().rest();
    let reply = rest.get("/v1.50/plugins");
    assert_eq!(reply.status, 501, "{reply:?}");
    assert!(message(&reply.body).contains("not built yet"));
}

#[test]
fn a_refused_create_leaves_no_container_behind() {
    let suite = Suite::here();
    let rest = suite.rest();
    let name = tests::unique("too-large");
    let body = json!({"Image": "busybox", "HostConfig": {"Memory": 1_u64 << 50}});
    let reply = rest.post(&format!("/containers/create?name={name}"), &body);
    assert!(reply.status >= 400, "{reply:?}");
    assert!(message(&reply.body).contains("memory"), "{reply:?}");
    assert!(!rest.get("/containers/json?all=1").body.contains(&name));
    assert_eq!(rest.get(&format!("/containers/{name}/json")).status, 404);
}
