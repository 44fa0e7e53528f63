//! Two projects, two tokens: neither sees, guesses, stops or enters the other's.

use serde_json::json;
use tests::{Suite, unique};

#[test]
fn the_same_name_lives_in_both_projects() {
    let suite = Suite::here();
    let (one, two) = (suite.docker(), suite.docker_as(suite.var("WHARFAGE_TOKEN_2")));
    let name = unique("same");
    let id_1 = one.ok(&["run", "-d", "--name", &name, "busybox", "sleep", "600"]);
    let id_2 = two.ok(&["run", "-d", "--name", &name, "busybox", "sleep", "600"]);
    assert_ne!(id_1, id_2);
    assert_eq!(one.ok(&["inspect", "-f", "{{.Id}}", &name]), id_1);
    assert_eq!(two.ok(&["inspect", "-f", "{{.Id}}", &name]), id_2);
    one.remove(&[&name]);
    assert_eq!(two.ok(&["inspect", "-f", "{{.State.Running}}", &name]), "true");
    two.remove(&[&name]);
}

#[test]
fn another_projects_container_does_not_exist_for_any_verb() {
    let suite = Suite::here();
    let one = suite.docker();
    let name = unique("hidden");
    let id = one.ok(&["run", "-d", "--name", &name, "busybox", "sleep", "600"]);
    let exec = suite.rest().post(&format!("/containers/{id}/exec"), &json!({"Cmd": ["true"]})).json();
    let exec = exec["Id"].as_str().expect("an exec id").to_owned();
    let other = suite.rest_2();
    let absent = "0".repeat(64);
    let verbs = [
        ("GET", "/containers/{}/json"),
        ("GET", "/containers/{}/top"),
        ("GET", "/containers/{}/logs?stdout=1"),
        ("POST", "/containers/{}/start"),
        ("POST", "/containers/{}/stop"),
        ("POST", "/containers/{}/restart"),
        ("POST", "/containers/{}/kill"),
        ("POST", "/containers/{}/rename?name=mine"),
        ("POST", "/containers/{}/wait"),
        ("POST", "/containers/{}/resize?h=1&w=1"),
        ("DELETE", "/containers/{}?force=1"),
    ];
    for (method, path) in verbs {
        for key in [id.as_str(), &id[..12], name.as_str()] {
            let reply = other.send(method, &path.replace("{}", key), None);
            assert_eq!(reply.status, 404, "{method} {path} on {key}: {reply:?}");
            let control = other.send(method, &path.replace("{}", &absent), None);
            assert_eq!(
                reply.body.replace(key, ""),
                control.body.replace(&absent, ""),
                "{method} {path} tells them apart"
            );
        }
    }
    for (method, path) in [("GET", format!("/exec/{exec}/json")), ("POST", format!("/exec/{exec}/start"))] {
        assert_eq!(other.send(method, &path, Some(&json!({}))).status, 404, "{method} {path}");
    }
    assert!(!other.get("/containers/json?all=1").body.contains(&id[..12]));
    assert!(!other.get("/events?since=0&until=1").body.contains(&name));
    one.remove(&[&name]);
}

#[test]
fn every_route_but_two_needs_a_credential() {
    let suite = Suite::here();
    let document = suite.rest().get("/openapi.json").json();
    let (nobody, wrong) = (suite.rest_as(None), suite.rest_as(Some("whf_wrong")));
    let mut tried = 0;
    for (path, operations) in document["paths"].as_object().expect("paths") {
        // The token service gives strangers a token for what is public, and nothing else.
        if path == "/v2/token" || path.ends_with("/_ping") {
            continue;
        }
        let concrete =
            path.split('/').map(|part| if part.starts_with('{') { "x" } else { part }).collect::<Vec<_>>().join("/");
        for method in operations
            .as_object()
            .expect("operations")
            .keys()
            .filter(|m| ["get", "post", "put", "patch", "delete", "head"].contains(&m.as_str()))
        {
            let method = method.to_uppercase();
            for client in [&nobody, &wrong] {
                assert_eq!(client.send(&method, &concrete, None).status, 401, "{method} {concrete}");
            }
            tried += 1;
        }
    }
    assert!(tried > 100, "only {tried} operations in the document");
    assert_eq!(nobody.get("/_ping").status, 200);
}

#[test]
fn a_revoked_token_opens_nothing() {
    let suite = Suite::here();
    let admin = suite.rest_admin();
    let project = suite.rest().get("/api/v1/project").json();
    let project = project["id"].as_str().expect("the project's id").to_owned();
    let made = admin.post(&format!("/api/v1/projects/{project}/tokens"), &json!({"label": "short-lived"})).json();
    let (id, secret) = (made["id"].as_str().expect("id"), made["secret"].as_str().expect("secret"));
    let holder = suite.rest_as(Some(secret));
    assert_eq!(holder.get("/version").status, 200);
    let revoked = admin.send("DELETE", &format!("/api/v1/projects/{project}/tokens/{id}"), None);
    assert!(revoked.status < 300, "{revoked:?}");
    assert_eq!(holder.get("/version").status, 401);
}

#[test]
fn an_operator_sees_hosts_but_no_projects_containers() {
    let suite = Suite::here();
    let hosts = suite.rest_admin().get("/api/v1/hosts").json();
    let hosts = hosts.as_array().or(hosts["items"].as_array()).expect("a list").clone();
    assert_eq!(hosts.len(), suite.hosts().len());
    assert!(hosts[0]["name"].is_string() && hosts[0]["containers"].is_number(), "{hosts:?}");
    assert!(matches!(suite.rest().get("/api/v1/hosts").status, 403 | 404));
    assert!(matches!(suite.rest_admin().get("/containers/json").status, 401 | 403));
}
