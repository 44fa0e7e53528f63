//! What dockerd's wire samples show (`docker-samples/wire-1.txt`), header by header.

use axum::{body::Body, http::Request};

use crate::world::World;

#[tokio::test]
async fn ping_is_open_and_tells_what_clients_negotiate_by() {
    let world = World::new("ping").await;
    for (method, body) in [("GET", "OK"), ("HEAD", "")] {
        for path in ["/_ping", "/v1.24/_ping", "/v1.53/_ping"] {
            let reply = world.call(method, path, None, None).await;
            assert_eq!((reply.status, reply.text().as_str()), (200, body), "{method} {path}");
            assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
            assert_eq!(reply.header("api-version"), Some("1.53"));
            assert_eq!(reply.header("ostype"), Some("linux"));
            assert_eq!(reply.header("docker-experimental"), Some("false"));
            assert_eq!(reply.header("swarm"), Some("inactive"));
            assert_eq!(reply.header("pragma"), Some("no-cache"));
            assert!(reply.header("server").is_some_and(|s| s.starts_with("Docker/") && s.ends_with(" (linux)")));
        }
    }
}

#[tokio::test]
async fn a_version_outside_the_range_is_refused_in_dockerds_words() {
    let world = World::new("versions").await;
    let new = world.call("GET", "/v1.99/info", None, None).await;
    assert_eq!(new.status, 400);
    assert_eq!(new.text(), "{\"message\":\"client version 1.99 is too new. Maximum supported API version is 1.53\"}\n");
    assert_eq!((new.header("content-type"), new.header("api-version")), (Some("application/json"), Some("1.53")));
    assert_eq!(new.header("docker-experimental"), None);
    let old = world.call("GET", "/v1.10/info", None, None).await;
    assert_eq!(old.status, 400);
    assert_eq!(
        old.text(),
        "client version 1.10 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version\n"
    );
    assert_eq!(old.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(old.header("x-content-type-options"), Some("nosniff"));
}

#[tokio::test]
async fn an_unknown_page_or_method_is_404_without_the_apis_headers() {
    let world = World::new("unknown_page").await;
    let project = world.project("lost").await;
    for (method, path) in
        [("GET", "/nope"), ("PUT", "/info"), ("GET", "/v1.43/nope"), ("HEAD", "/version"), ("GET", "/v1..3/info")]
    {
        let reply = world.call(method, path, Some(&project.token), None).await;
        assert_eq!(reply.status, 404, "{method} {path}");
        if method != "HEAD" {
            assert_eq!(reply.text(), "{\"message\":\"page not found\"}\n");
        }
        assert_eq!(reply.header("content-type"), Some("application/json"));
        for absent in ["api-version", "server", "ostype", "allow"] {
            assert_eq!(reply.header(absent), None, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn one_spelling_per_path_before_anything_is_authorized() {
    let world = World::new("spelling").await;
    let project = world.project("spelling").await;
    for path in [
        "//info",
        "/./info",
        "/x/../info",
        "/%2e%2e/info",
        "/images/a%2Fb/json",
        "/containers/%00/json",
        "/v1.43//info",
    ] {
        let reply = world.get(path, &project.token).await;
        assert!(matches!(reply.status, 400 | 404), "{path}: {}", reply.status);
    }
}

#[tokio::test]
async fn options_answers_with_nothing_but_headers() {
    let world = World::new("options").await;
    let project = world.project("options").await;
    let reply = world.call("OPTIONS", "/v1.43/any/where", Some(&project.token), None).await;
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    assert_eq!(reply.header("api-version"), Some("1.53"));
    assert_eq!(world.call("OPTIONS", "/info", None, None).await.status, 401);
}

#[tokio::test]
async fn swarm_is_off_and_what_is_not_built_says_so() {
    let world = World::new("unbuilt").await;
    let project = world.project("unbuilt").await;
    for path in ["/services", "/nodes", "/tasks", "/secrets", "/configs", "/swarm"] {
        let reply = world.get(path, &project.token).await;
        assert_eq!(reply.status, 503, "{path}");
        assert!(
            reply.json()["message"]
                .as_str()
                .is_some_and(|m| m.starts_with("This node is not a swarm manager. Use \"docker swarm init\""))
        );
    }
    let reply = world.get("/v1.43/plugins", &project.token).await;
    assert_eq!(reply.status, 501);
    assert!(reply.json()["message"].as_str().is_some_and(|m| m.contains("not built yet in Wharfage")));
    assert_eq!(reply.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn version_and_info_tell_of_the_project_and_of_no_host() {
    let world = World::new("info").await;
    let project = world.project("info").await;
    world.seed.host("secret-host-name", testkit::room_for(4)).await.expect("a host");
    let version = world.get("/version", &project.token).await.json();
    assert_eq!((&version["ApiVersion"], &version["MinAPIVersion"]), (&"1.53".into(), &"1.24".into()));
    assert_eq!(version["Components"][0]["Name"], "Engine");
    let reply = world.get("/v1.43/info", &project.token).await;
    let info = reply.json();
    assert_eq!((&info["NCPU"], &info["MemTotal"]), (&4.into(), &(4_u64 << 30).into()));
    assert_eq!((&info["Containers"], &info["Images"]), (&0.into(), &0.into()));
    for canary in ["secret-host-name", "192.0.2."] {
        assert!(!reply.text().contains(canary), "{canary} shows in info");
    }
}

#[tokio::test]
async fn networks_are_the_projects_own() {
    let world = World::new("networks").await;
    let (one, two) = (world.project("one").await, world.project("two").await);
    let list = world.get("/networks/", &one.token).await.json();
    let names: Vec<_> = list.as_array().expect("a list").iter().map(|n| n["Name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["bridge", "host", "none"]);
    let bridge = world.get("/networks/bridge", &one.token).await.json();
    let other = world.get("/networks/bridge", &two.token).await.json();
    assert_ne!(bridge["IPAM"]["Config"][0]["Subnet"], other["IPAM"]["Config"][0]["Subnet"]);
    let id = other["Id"].as_str().expect("an id");
    let foreign = world.get(&format!("/networks/{id}"), &one.token).await;
    assert_eq!(
        (foreign.status, foreign.json()["message"].as_str()),
        (404, Some(format!("network {id} not found").as_str()))
    );
    let bad = world.get("/networks?filters=%7B%22foo%22%3A%5B%22x%22%5D%7D", &one.token).await;
    assert_eq!((bad.status, bad.text().as_str()), (400, "{\"message\":\"invalid filter 'foo'\"}\n"));
}

#[tokio::test]
async fn an_error_keeps_the_content_type_clients_compare() {
    let world = World::new("errors").await;
    let project = world.project("errors").await;
    let request = Request::get("/v1.43/images/nope:1/json")
        .header("authorization", format!("Bearer {}", project.token))
        .body(Body::empty())
        .expect("a request");
    let reply = world.send(request).await;
    assert_eq!(reply.status, 404);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.text(), "{\"message\":\"No such image: nope:1\"}\n");
}
