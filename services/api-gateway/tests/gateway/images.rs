//! Images over the Docker face, each project alone with its own.

use axum::{Json, Router, http::StatusCode, response::IntoResponse as _, routing::post};
use contract::image::{PULL, PullRequest};
use model::{Digest, ImageReference};
use serde_json::{Value, json};
use store::{PulledImage, StoredImage};

use crate::world::{OpenProject, World};

/// Puts an image into a project, as image-svc records it after a pull.
async fn pulled(world: &World, project: &OpenProject, reference: &str, seed: u8) -> Digest {
    let reference: ImageReference = reference.parse().expect("a reference");
    let (id, manifest) = (Digest::sha256([seed; 32]), Digest::sha256([seed + 100; 32]));
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": { "Cmd": ["sh"], "Labels": { "seed": seed.to_string() } },
        "rootfs": { "type": "layers", "diff_ids": [] }, "history": [{ "created_by": "made" , "empty_layer": true }],
    })
    .to_string();
    let (store, scope) = world.image_service(project.id);
    let mut tx = store.project_tx(&scope).await.expect("a transaction");
    let image = PulledImage {
        reference: &reference,
        image: StoredImage {
            id: &id,
            manifest_digest: &manifest,
            manifest: b"{}",
            config: config.as_bytes(),
            layers: &[],
            architecture: "amd64",
            os: "linux",
            size_bytes: 1000,
            built_at: Some(time::OffsetDateTime::UNIX_EPOCH + time::Duration::days(i64::from(seed))),
        },
        digests: std::slice::from_ref(&manifest),
    };
    tx.record_pulled_image(&image).await.expect("recorded");
    tx.commit().await.expect("committed");
    id
}

async fn names(world: &World, project: &OpenProject, filters: &Value) -> Vec<String> {
    let filters: String = form_urlencoded::byte_serialize(filters.to_string().as_bytes()).collect();
    let reply = world.get(&format!("/images/json?filters={filters}"), &project.token).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let list = reply.json();
    let tags = |image: &Value| {
        image["RepoTags"]
            .as_array()
            .expect("tags")
            .iter()
            .map(|t| t.as_str().expect("text").to_owned())
            .collect::<Vec<_>>()
    };
    list.as_array().expect("a list").iter().flat_map(tags).collect()
}

#[tokio::test]
async fn images_are_listed_youngest_first_and_filtered() {
    let world = World::new("images_list").await;
    let project = world.project("lister").await;
    pulled(&world, &project, "busybox:1.36", 1).await;
    pulled(&world, &project, "r.example:5000/team/app:2", 2).await;
    assert_eq!(names(&world, &project, &json!({})).await, ["r.example:5000/team/app:2", "busybox:1.36"]);
    assert_eq!(names(&world, &project, &json!({ "reference": ["busybox"] })).await, ["busybox:1.36"]);
    assert_eq!(names(&world, &project, &json!({ "label": { "seed=2": true } })).await, ["r.example:5000/team/app:2"]);
    assert_eq!(names(&world, &project, &json!({ "before": ["r.example:5000/team/app:2"] })).await, ["busybox:1.36"]);
    assert_eq!(names(&world, &project, &json!({ "since": ["busybox:1.36"] })).await, ["r.example:5000/team/app:2"]);
    assert!(names(&world, &project, &json!({ "dangling": ["true"] })).await.is_empty());
    let bad = world.get("/images/json?filters=%7B%22foo%22%3A%5B%22x%22%5D%7D", &project.token).await;
    assert_eq!((bad.status, bad.text().as_str()), (400, "{\"message\":\"invalid filter 'foo'\"}\n"));
}

#[tokio::test]
async fn another_projects_image_is_unknown_exactly_as_one_that_never_was() {
    let world = World::new("images_alone").await;
    let (owner, stranger) = (world.project("owner").await, world.project("stranger").await);
    let id = pulled(&world, &owner, "private/app:1", 7).await;
    let never = Digest::sha256([77; 32]);
    for (method, suffix) in [("GET", "/json"), ("GET", "/history"), ("POST", "/tag?repo=x&tag=1"), ("DELETE", "")] {
        let foreign = world.call(method, &format!("/images/{id}{suffix}"), Some(&stranger.token), None).await;
        let absent = world.call(method, &format!("/images/{never}{suffix}"), Some(&stranger.token), None).await;
        assert_eq!((foreign.status, absent.status), (404, 404), "{method} {suffix}");
        assert_eq!(foreign.text().replace(id.as_str(), "ID"), absent.text().replace(never.as_str(), "ID"));
        let names = |reply: &crate::world::Reply| reply.headers.keys().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(&foreign), names(&absent));
    }
    assert_eq!(world.get("/images/private/app:1/json", &stranger.token).await.status, 404);
    assert_eq!(world.get("/images/json", &stranger.token).await.json(), json!([]));
    assert_eq!(world.get("/images/private/app:1/json", &owner.token).await.json()["Id"], id.to_string());
}

#[tokio::test]
async fn a_name_with_slashes_is_found_at_every_version() {
    let world = World::new("images_names").await;
    let project = world.project("names").await;
    let id = pulled(&world, &project, "r.example:5000/a/b:1", 3).await;
    for version in ["", "/v1.24", "/v1.43", "/v1.53"] {
        for name in ["r.example:5000/a/b:1", id.as_str(), id.hex(), &id.hex()[..12]] {
            let reply = world.get(&format!("{version}/images/{name}/json"), &project.token).await;
            assert_eq!((reply.status, &reply.json()["Id"]), (200, &id.to_string().into()), "{version} {name}");
        }
    }
    let old = world.get("/v1.43/images/r.example:5000/a/b:1/json", &project.token).await.json();
    assert_eq!((&old["VirtualSize"], &old["Parent"]), (&1000.into(), &"".into()));
    let history = world.get("/images/r.example:5000/a/b:1/history", &project.token).await.json();
    assert_eq!((&history[0]["CreatedBy"], &history[0]["Id"]), (&"made".into(), &id.to_string().into()));
}

#[tokio::test]
async fn a_tag_is_a_further_name_and_goes_by_itself() {
    let world = World::new("images_tags").await;
    let project = world.project("tags").await;
    let id = pulled(&world, &project, "busybox:1", 4).await;
    let tagged = world.call("POST", "/images/busybox:1/tag?repo=mine/box&tag=x", Some(&project.token), None).await;
    assert_eq!((tagged.status, tagged.body.len()), (201, 0));
    assert_eq!(names(&world, &project, &json!({})).await, ["busybox:1", "mine/box:x"]);
    for bad in ["repo=", "repo=UPPER", "repo=a&tag=-x", "repo=a%00b"] {
        let reply = world.call("POST", &format!("/images/busybox:1/tag?{bad}"), Some(&project.token), None).await;
        assert_eq!(reply.status, 400, "{bad}: {}", reply.text());
    }
    let both = world.call("DELETE", &format!("/images/{id}"), Some(&project.token), None).await;
    assert_eq!(both.status, 409, "{}", both.text());
    let one = world.call("DELETE", "/images/mine/box:x", Some(&project.token), None).await.json();
    assert_eq!(one, json!([{ "Untagged": "mine/box:x" }]));
    let last = world.call("DELETE", "/images/busybox:1", Some(&project.token), None).await.json();
    assert_eq!(last[0], json!({ "Untagged": "busybox:1" }));
    assert_eq!(last.as_array().and_then(|l| l.last()), Some(&json!({ "Deleted": id.to_string() })));
    assert_eq!(names(&world, &project, &json!({})).await, [""; 0]);
}

#[tokio::test]
async fn an_image_is_removed_by_the_platform_it_has_and_no_other() {
    let world = World::new("images_platforms").await;
    let project = world.project("platforms").await;
    pulled(&world, &project, "hello:1", 6).await;
    let remove = async |version: &str, platforms: &str| {
        let platforms: String = form_urlencoded::byte_serialize(platforms.as_bytes()).collect();
        let path = format!("{version}/images/hello:1?platforms={platforms}");
        world.call("DELETE", &path, Some(&project.token), None).await
    };
    let other = remove("/v1.50", r#"{"os":"linux","architecture":"arm64"}"#).await;
    assert_eq!((other.status, other.text().contains("linux/arm64")), (404, true), "{}", other.text());
    let broken = remove("/v1.50", "linux/amd64").await;
    assert_eq!(broken.status, 400, "{}", broken.text());
    assert_eq!(names(&world, &project, &json!({})).await, ["hello:1"]);
    let own = remove("/v1.50", r#"{"os":"linux","architecture":"amd64"}"#).await;
    assert_eq!((own.status, &own.json()[0]), (200, &json!({ "Untagged": "hello:1" })), "{}", own.text());
    assert!(names(&world, &project, &json!({})).await.is_empty());
    pulled(&world, &project, "hello:1", 6).await;
    let older = remove("/v1.49", "linux/amd64").await;
    assert_eq!(older.status, 200, "it is not read before 1.50: {}", older.text());
}

#[tokio::test]
async fn a_container_holds_its_image() {
    let world = World::new("images_held").await;
    let project = world.project("held").await;
    let id = pulled(&world, &project, "hello:1", 5).await;
    let bridge = world.get("/networks/bridge", &project.token).await.json();
    let seeded = testkit::SeededProject {
        id: project.id,
        network: bridge["Id"].as_str().expect("an id").parse().expect("an id"),
        image: id.to_string(),
    };
    let container = world.seed.container(&seeded, &model::ContainerSpec::default()).await.expect("a container");
    let held = world.call("DELETE", "/images/hello:1", Some(&project.token), None).await;
    assert_eq!(held.status, 409);
    let text = format!(
        "conflict: unable to remove repository reference \"hello:1\" (must force) - container {} is using its referenced image {}",
        container.short(),
        &id.hex()[..12]
    );
    assert_eq!(held.json()["message"], text);
    let list = world.get("/v1.51/images/json", &project.token).await.json();
    assert_eq!(list[0]["Containers"], 1);
    let spared = world
        .call("POST", "/images/prune?filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D", Some(&project.token), None)
        .await;
    assert_eq!(spared.json(), json!({ "ImagesDeleted": null, "SpaceReclaimed": 0 }));
    let forced = world.call("DELETE", "/images/hello:1?force=1", Some(&project.token), None).await;
    assert_eq!(forced.status, 200, "{}", forced.text());
}

#[tokio::test]
async fn an_image_is_not_removed_under_a_container_that_is_just_being_created() {
    let world = World::new("images_raced").await;
    let project = world.project("raced").await;
    let id = pulled(&world, &project, "hello:1", 5).await;
    let mut creating = world.seed.pool().begin().await.expect("a transaction");
    sqlx::query("INSERT INTO containers (id, project_id, name, image_id, spec) VALUES ($1, $2, 'new', $3, '{}')")
        .bind("c".repeat(64))
        .bind(project.id.0)
        .bind(id.as_str())
        .execute(&mut *creating)
        .await
        .expect("inserted");
    let path = format!("/images/{id}?force=1");
    let removal = world.call("DELETE", &path, Some(&project.token), None);
    let commit = async {
        until_somebody_waits(&world).await;
        creating.commit().await.expect("committed");
    };
    let (refused, ()) = tokio::join!(removal, commit);
    assert_eq!(refused.status, 409, "{}", refused.text());
    let text = format!(
        "conflict: unable to delete {} (cannot be forced) - image is being fetched for container cccccccccccc",
        &id.hex()[..12]
    );
    assert_eq!(refused.json()["message"], text);
    let image = world.get(&format!("/images/{id}/json"), &project.token).await;
    assert_eq!((image.status, &image.json()["RepoTags"]), (200, &json!(["hello:1"])));
}

/// Until somebody in this database waits for a row.
async fn until_somebody_waits(world: &World) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(world.seed.pool())
        .await
        .expect("asked");
        if waiting > 0 {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "the removal does not wait for the create");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_prune_takes_what_has_no_tag_and_counts_it() {
    let world = World::new("images_prune").await;
    let project = world.project("prune").await;
    let old = pulled(&world, &project, "app:1", 10).await;
    pulled(&world, &project, "app:1", 11).await;
    let reply = world.call("POST", "/images/prune", Some(&project.token), None).await;
    let gone = reply.json();
    assert_eq!(gone["SpaceReclaimed"], 1000, "{}", reply.text());
    assert!(gone["ImagesDeleted"].as_array().is_some_and(|list| list.contains(&json!({ "Deleted": old.to_string() }))));
    assert_eq!(names(&world, &project, &json!({})).await, ["app:1"]);
}

/// Speaks image-svc's contract: refuses `missing`, breaks off `broken`, else two lines.
async fn stand_in(Json(wanted): Json<PullRequest>) -> axum::response::Response {
    let lines = match wanted.reference.as_str() {
        "missing:latest" => {
            let error = model::Error::NotFound("manifest for missing:latest not found".into());
            return (StatusCode::NOT_FOUND, Json(error)).into_response();
        }
        "broken:latest" => "{\"status\":\"Pulling from broken\"}\n{\"err".to_owned(),
        other => format!(
            "{}\n{}\n",
            json!({ "status": format!("Pulling {other}"), "id": wanted.auth.map(|a| a.username) }),
            json!({ "status": "Downloading", "id": "abc", "progressDetail": { "current": 1, "total": 2 } })
        ),
    };
    lines.into_response()
}

#[tokio::test]
async fn a_pull_is_passed_on_object_by_object_in_dockers_framing() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = tokio::spawn(async move { axum::serve(listener, Router::new().route(PULL, post(stand_in))).await });
    let world = World::with("images_pull", &format!("http://{address}"), "").await;
    let project = world.project("puller").await;
    let (world, project) = (&world, &project);
    let pull = async |query: &str| {
        let request = axum::http::Request::post(format!("/v1.43/images/create?{query}"))
            .header("authorization", format!("Bearer {}", project.token))
            .header("x-registry-auth", "eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifQ==");
        world.send(request.body(axum::body::Body::empty()).expect("a request")).await
    };
    let good = pull("fromImage=busybox&tag=1.36").await;
    assert_eq!((good.status, good.header("content-type")), (200, Some("application/json")));
    assert_eq!(
        good.text(),
        "{\"status\":\"Pulling busybox:1.36\",\"id\":\"u\"}\r\n\
         {\"status\":\"Downloading\",\"id\":\"abc\",\"progressDetail\":{\"current\":1,\"total\":2}}\r\n"
    );
    let missing = pull("fromImage=missing&tag=latest").await;
    assert_eq!((missing.status, missing.text().contains("manifest for missing:latest not found")), (404, true));
    let broken = pull("fromImage=broken&tag=latest").await.text();
    let last: Value =
        broken.trim_end().rsplit("\r\n").next().and_then(|l| serde_json::from_str(l).ok()).expect("an object");
    assert!(last["errorDetail"]["message"].is_string(), "{broken}");
    assert_eq!(pull("fromImage=Bad%20Name").await.status, 400);
    assert_eq!(pull("fromSrc=http%3A%2F%2Fexample.org%2Fa.tar").await.status, 501);
    server.abort();
}
