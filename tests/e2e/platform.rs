//! Health, metrics, logs and traces of every service.

use tests::Suite;

#[test]
fn ping_tells_the_version_without_a_credential() {
    let reply = Suite::here().rest_as(None).send("HEAD", "/_ping", None);
    assert_eq!(reply.status, 200);
    assert_eq!(reply.headers["ostype"], "linux");
    assert!(reply.headers["api-version"].to_str().expect("text").starts_with("1."));
}

#[test]
fn version_and_info_are_what_the_cli_expects() {
    let docker = Suite::here().docker();
    assert!(docker.ok(&["version"]).contains("Server:"));
    let info = docker.ok(&["info"]);
    assert!(info.contains("Server Version:") && info.contains("CPUs:"), "{info}");
}

#[test]
fn a_request_id_comes_back_and_is_in_the_logs() {
    let suite = Suite::here();
    let reply = suite.rest().get("/containers/json");
    let id = reply.headers["x-request-id"].to_str().expect("text").to_owned();
    let log = std::fs::read_to_string(suite.root.join(".wharfage/log/api-gateway.log")).expect("the gateway's log");
    let line = log.lines().rev().find(|line| line.contains(&id)).expect("the request is logged");
    assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "logs are JSON: {line}");
}
