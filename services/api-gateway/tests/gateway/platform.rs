//! The platform API: tenants, projects, credentials, hosts.

use std::collections::BTreeSet;

use axum::{body::Body, http::Request};
use serde_json::{Value, json};

use crate::world::{Reply, World, id};

#[tokio::test]
async fn a_tenant_gets_a_project_with_a_network_of_its_own() {
    let world = World::new("tenant_project").await;
    let made = world.operate("POST", "/api/v1/tenants", json!({ "name": "acme" })).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let tenant = id(&made.json()).to_owned();
    let path = format!("/api/v1/tenants/{tenant}/projects");
    let project = world.operate("POST", &path, json!({ "name": "web" })).await;
    assert_eq!(project.status, 201, "{}", project.text());
    assert_eq!(project.json()["tenant_id"], tenant);
    let shown = world.operate("GET", &format!("/api/v1/projects/{}", id(&project.json())), Value::Null).await;
    assert_eq!(shown.json(), project.json());
    let list = world.operate("GET", &path, Value::Null).await.json();
    assert_eq!(list["items"], json!([project.json()]));
    let again = world.operate("POST", &path, json!({ "name": "web" })).await;
    assert_eq!((again.status, again.header("content-type")), (409, Some("application/problem+json")));
    assert_eq!(again.json()["type"], "urn:wharfage:problem:conflict");
}

#[tokio::test]
async fn projects_made_at_once_share_no_subnet() {
    let world = World::new("at_once").await;
    let tenant = world.operate("POST", "/api/v1/tenants", json!({ "name": "busy" })).await.json();
    let path = format!("/api/v1/tenants/{}/projects", id(&tenant));
    let makes = (0..12).map(|n| world.operate("POST", &path, json!({ "name": format!("p{n}") })));
    let made = futures::future::join_all(makes).await;
    assert!(made.iter().all(|reply| reply.status == 201), "{made:?}");
    let mut subnets = BTreeSet::new();
    for reply in &made {
        let tokens = format!("/api/v1/projects/{}/tokens", id(&reply.json()));
        let token = world.operate("POST", &tokens, json!({})).await.json();
        let bridge = world.get("/networks/bridge", token["secret"].as_str().expect("a secret")).await.json();
        subnets.insert(bridge["IPAM"]["Config"][0]["Subnet"].as_str().expect("a subnet").to_owned());
    }
    assert_eq!(subnets.len(), 12);
    assert_eq!(subnets.first().map(String::as_str), Some("10.128.0.0/20"), "the lowest slots are taken first");
}

#[tokio::test]
async fn a_project_with_containers_is_not_deleted_and_an_empty_one_is_with_all_it_had() {
    let world = World::new("delete_project").await;
    let (full, empty) = (world.seed.project().await.expect("a project"), world.project("empty").await);
    world.seed.container(&full, &model::ContainerSpec::default()).await.expect("a container");
    let refused = world.operate("DELETE", &format!("/api/v1/projects/{}", full.id), Value::Null).await;
    assert_eq!(refused.status, 409, "{}", refused.text());
    let path = format!("/api/v1/projects/{}", empty.id);
    assert_eq!(world.operate("DELETE", &path, Value::Null).await.status, 204);
    assert_eq!(world.operate("GET", &path, Value::Null).await.status, 404);
    assert_eq!(world.get("/version", &empty.token).await.status, 401);
    assert_eq!(world.operate("DELETE", &path, Value::Null).await.status, 404);
}

#[tokio::test]
async fn a_secret_is_shown_once() {
    let world = World::new("secrets").await;
    let project = world.project("secret").await;
    let path = format!("/api/v1/projects/{}/tokens", project.id);
    let list = world.operate("GET", &path, Value::Null).await;
    assert_eq!(list.json()["items"][0]["label"], "test");
    assert!(!list.text().contains(&project.token) && !list.text().contains("secret"));
    assert!(project.token.starts_with("whf_"));
}

#[tokio::test]
async fn lists_go_on_where_they_ended() {
    let world = World::new("lists").await;
    for name in ["a", "b", "c"] {
        world.operate("POST", "/api/v1/tenants", json!({ "name": name })).await;
    }
    let first = world.operate("GET", "/api/v1/tenants?limit=2", Value::Null).await.json();
    assert_eq!((first["items"].as_array().map(Vec::len), &first["next"]), (Some(2), &"b".into()));
    let rest = world.operate("GET", "/api/v1/tenants?limit=2&after=b", Value::Null).await.json();
    assert_eq!((rest["items"][0]["name"].as_str(), rest.get("next")), (Some("c"), None));
    for bad in ["limit=0", "limit=1001", "limit=x", "page=2"] {
        assert_eq!(world.operate("GET", &format!("/api/v1/tenants?{bad}"), Value::Null).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn wrong_input_is_a_problem_that_names_the_field() {
    let world = World::new("wrong_input").await;
    for (body, named) in [
        (json!({}), "name"),
        (json!({ "name": "Not A Slug" }), "name"),
        (json!({ "name": "ok", "nmae": 1 }), "nmae"),
        (json!({ "name": 7 }), "string"),
    ] {
        let reply = world.operate("POST", "/api/v1/tenants", body.clone()).await;
        assert_eq!((reply.status, reply.header("content-type")), (400, Some("application/problem+json")), "{body}");
        assert!(reply.json()["detail"].as_str().is_some_and(|d| d.contains(named)), "{}", reply.text());
    }
    let raw = |content_type: &str, body: &'static str| {
        let request = Request::post("/api/v1/tenants")
            .header("authorization", format!("Bearer {}", world.operator))
            .header("content-type", content_type);
        world.send(request.body(Body::from(body)).expect("a request"))
    };
    assert_eq!(raw("text/plain", "{\"name\":\"x\"}").await.status, 400);
    assert_eq!(raw("application/json", "{\"name\":\"x\",\"name\":\"y\"}").await.status, 400);
    assert_eq!(raw("application/json", "{\"name\":\"x\"}{}").await.status, 400);
    assert_eq!(raw("application/json", "{\"name\":\"x\\u0000\"}").await.status, 400);
    assert_eq!(world.operate("GET", "/api/v1/tenants", Value::Null).await.json()["items"], json!([]));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let world = World::new("platform_unknown").await;
    for (method, path, status) in [
        ("GET", "/api/v1/nope", 404),
        ("GET", "/api", 404),
        ("PUT", "/api/v1/tenants", 405),
        ("GET", "/api/v1/projects/not-a-uuid", 404),
        ("GET", "/api/v1/projects/01900000-0000-7000-8000-000000000000", 404),
        ("GET", "/api/v1/projects/'%20OR%201=1", 404),
    ] {
        let reply = world.operate(method, path, Value::Null).await;
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (status, Some("application/problem+json")),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn an_operator_sees_hosts_and_may_pause_one() {
    let world = World::new("hosts").await;
    let host = world.seed.host("node-1", testkit::room_for(8)).await.expect("a host");
    let list = world.operate("GET", "/api/v1/hosts", Value::Null).await.json();
    let one = &list["items"][0];
    assert_eq!((&one["name"], &one["state"], &one["condition"]), (&"node-1".into(), &"active".into(), &"ready".into()));
    assert_eq!((&one["containers"], &one["capacity"]["containers"]), (&0.into(), &8.into()));
    assert!(one["address"].as_str().is_some_and(|a| a.starts_with("192.0.2.")));
    assert_eq!(one["reserved"], json!({ "nano_cpus": 0, "memory_bytes": 0, "containers": 0 }));
    let paused = world.operate("PATCH", &format!("/api/v1/hosts/{host}"), json!({ "state": "paused" })).await;
    assert_eq!((paused.status, &paused.json()["state"]), (200, &"paused".into()));
    let wrong = world.operate("PATCH", &format!("/api/v1/hosts/{host}"), json!({ "state": "gone" })).await;
    assert_eq!(wrong.status, 400);
    let unknown = "/api/v1/hosts/01900000-0000-7000-8000-00000000ffff";
    assert_eq!(world.operate("PATCH", unknown, json!({ "state": "active" })).await.status, 404);
}

#[tokio::test]
async fn a_join_token_lets_one_host_in() {
    let world = World::new("join_token").await;
    let made = world.operate("POST", "/api/v1/host-join-tokens", json!({})).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let secret = made.json()["secret"].as_str().expect("a secret").to_owned();
    let scheduler = store::Store::connect_lazy(&world.database.scheduler, 2).expect("a url");
    let host = store::JoiningHost {
        new_id: model::HostId(chassis::ids::uuid_v7()),
        name: "node-9",
        address: "192.0.2.9".parse().expect("an address"),
        agent_port: 7400,
        capacity: testkit::room_for(1),
    };
    let joined = scheduler.join_host(&chassis::ids::sha256(secret.as_bytes()), &host).await.expect("joins");
    let list = world.operate("GET", "/api/v1/hosts", Value::Null).await.json();
    assert_eq!(
        (list["items"][0]["id"].as_str(), &list["items"][0]["condition"]),
        (Some(joined.to_string().as_str()), &"down".into())
    );
    assert_eq!(world.operate("POST", "/api/v1/host-join-tokens", json!({ "valid_seconds": 0 })).await.status, 400);
}

#[tokio::test]
async fn a_policy_is_off_until_the_project_or_an_operator_switches_it_on() {
    let world = World::new("policy").await;
    let (project, other) = (world.project("one").await, world.project("two").await);
    let path = format!("/api/v1/projects/{}", project.id);
    let socket = |reply: &Reply| reply.json()["policy"]["docker_socket"].clone();
    assert_eq!(socket(&world.get("/api/v1/project", &project.token).await), json!(false));
    let on = json!({ "docker_socket": true });
    let own = world.call("PATCH", "/api/v1/project", Some(&project.token), Some(on.clone())).await;
    assert_eq!((own.status, socket(&own)), (200, json!(true)), "{}", own.text());
    assert_eq!(socket(&world.operate("GET", &path, Value::Null).await), json!(true));
    assert_eq!(socket(&world.get("/api/v1/project", &other.token).await), json!(false), "another project's");
    let off = world.operate("PATCH", &path, json!({ "docker_socket": false })).await;
    assert_eq!((off.status, socket(&off)), (200, json!(false)), "{}", off.text());
    assert_eq!(socket(&world.operate("PATCH", &path, json!({})).await), json!(false));
    assert_eq!(world.call("PATCH", &path, Some(&project.token), Some(on.clone())).await.status, 403);
    assert_eq!(world.call("PATCH", "/api/v1/project", Some(&world.operator), Some(on)).await.status, 403);
    let unknown = world.operate("PATCH", &path, json!({ "dockersocket": true })).await;
    assert_eq!(unknown.status, 400, "{}", unknown.text());
}

#[tokio::test]
async fn an_operator_says_how_much_a_project_may_keep_and_the_project_sees_it() {
    let world = World::new("registry_quota").await;
    let project = world.project("one").await;
    let path = format!("/api/v1/projects/{}", project.id);
    let unlimited = json!({ "used_bytes": 0, "reserved_bytes": 0 });
    assert_eq!(world.get("/api/v1/project", &project.token).await.json()["registry"], unlimited);
    let limited = world.operate("PATCH", &path, json!({ "registry_bytes_max": 1000 })).await;
    let expected = json!({ "bytes_max": 1000, "used_bytes": 0, "reserved_bytes": 0 });
    assert_eq!((limited.status, &limited.json()["registry"]), (200, &expected), "{}", limited.text());
    // What is not said stays.
    world.operate("PATCH", &path, json!({ "docker_socket": true })).await;
    assert_eq!(world.get("/api/v1/project", &project.token).await.json()["registry"], expected);
    let wish = json!({ "registry_bytes_max": 2000 });
    let own = world.call("PATCH", "/api/v1/project", Some(&project.token), Some(wish)).await;
    assert_eq!(own.status, 400, "a project does not say that itself: {}", own.text());
    let wrong = world.operate("PATCH", &path, json!({ "registry_bytes_max": -1 })).await;
    assert_eq!(wrong.status, 400, "{}", wrong.text());
    assert!(wrong.text().contains("registry_bytes_max"), "{}", wrong.text());
    let lifted = world.operate("PATCH", &path, json!({ "registry_bytes_max": null })).await;
    assert_eq!(lifted.json()["registry"], unlimited);
}
