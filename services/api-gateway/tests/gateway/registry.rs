//! The registry's door: challenges, tokens, and what whose credential opens. What is behind it answers
//! from a stand-in that says what it was asked: existence and rights are decided here, by Postgres.

use axum::{
    Json, Router,
    body::Body,
    extract::Request as Incoming,
    http::{Request, StatusCode},
    response::IntoResponse as _,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::world::{OpenProject, Reply, World};

/// A gateway whose image-svc answers every call with what it was asked.
async fn world(name: &str) -> World {
    let echo = |request: Incoming| async move {
        let asked = format!("{} {}", request.method(), request.uri());
        (
            StatusCode::OK,
            [("docker-content-digest", "sha256:echo"), ("x-inner", "secret")],
            Json(json!({ "asked": asked })),
        )
            .into_response()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(echo)).await });
    World::with(name, &address, "").await
}

/// A repository, as the first push makes it.
async fn repository(world: &World, project: &OpenProject, name: &str) -> String {
    let (store, scope) = world.image_service(project.id);
    let mut tx = store.project_tx(&scope).await.expect("a transaction");
    let id = model::RepositoryId(chassis::ids::uuid_v7());
    let id = tx.repository_for_push(name, id).await.expect("made");
    tx.commit().await.expect("committed");
    id.to_string()
}

async fn basic(world: &World, path: &str, password: &str) -> Reply {
    let credential = format!("Basic {}", STANDARD.encode(format!("anyone:{password}")));
    let request = Request::get(path).header("host", "registry.test:7300").header("authorization", credential);
    world.send(request.body(Body::empty()).expect("a request")).await
}

/// A registry token with these scopes.
async fn token(world: &World, password: Option<&str>, scopes: &[&str]) -> String {
    let scopes: String = scopes.iter().map(|scope| format!("&scope={scope}")).collect();
    let path = format!("/v2/token?service=wharfage{scopes}");
    let reply = match password {
        Some(password) => basic(world, &path, password).await,
        None => world.call("GET", &path, None, None).await,
    };
    assert_eq!(reply.status, 200, "{}", reply.text());
    let reply = reply.json();
    assert_eq!((&reply["token"], &reply["expires_in"]), (&reply["access_token"], &json!(300)));
    reply["token"].as_str().expect("a token").to_owned()
}

fn code(reply: &Reply) -> String {
    reply.json()["errors"][0]["code"].as_str().unwrap_or_else(|| panic!("{}", reply.text())).to_owned()
}

/// What image-svc was asked; nothing if the gateway refused.
fn asked(reply: &Reply) -> Option<String> {
    let body: Value = serde_json::from_slice(&reply.body).ok()?;
    body["asked"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn without_a_credential_the_registry_says_where_to_get_a_token_and_for_what() {
    let world = world("registry_challenge").await;
    let ask = |path: &'static str, method: &'static str| {
        let request = Request::builder().method(method).uri(path).header("host", "registry.test:7300");
        world.send(request.body(Body::empty()).expect("a request"))
    };
    let realm = "Bearer realm=\"http://registry.test:7300/v2/token\",service=\"wharfage\"";
    for (method, path, scope) in [
        ("GET", "/v2/", ""),
        ("GET", "/v2/a/b/c/manifests/v1", ",scope=\"repository:a/b/c:pull\""),
        ("PUT", "/v2/a/b/c/manifests/v1", ",scope=\"repository:a/b/c:pull,push\""),
        ("POST", "/v2/a/b/c/blobs/uploads/", ",scope=\"repository:a/b/c:pull,push\""),
        ("DELETE", "/v2/a/b/c/manifests/v1", ",scope=\"repository:a/b/c:delete\""),
        ("GET", "/v2/_catalog", ",scope=\"registry:catalog:*\""),
        ("GET", "/v2/UPPER/manifests/v1", ""),
    ] {
        let reply = ask(path, method).await;
        assert_eq!((reply.status, code(&reply).as_str()), (401, "UNAUTHORIZED"), "{method} {path}");
        assert_eq!(reply.header("www-authenticate"), Some(format!("{realm}{scope}").as_str()), "{method} {path}");
        assert_eq!(reply.header("docker-distribution-api-version"), Some("registry/2.0"));
    }
    let evil = Request::get("/v2/").header("host", "evil\",x=\"").body(Body::empty()).expect("a request");
    let reply = world.send(evil).await;
    assert!(
        reply.header("www-authenticate").is_some_and(|c| c.starts_with("Bearer realm=\"http://localhost/v2/token\""))
    );
}

#[tokio::test]
async fn a_project_reads_and_writes_its_own_repositories_by_every_kind_of_credential() {
    let world = world("registry_own").await;
    let project = world.project("acme").await;
    let id = repository(&world, &project, "app").await;
    let signed = token(&world, Some(&project.token), &["repository:acme/main/app:pull,push"]).await;
    for credential in [project.token.clone(), signed] {
        assert_eq!(world.get("/v2/", &credential).await.status, 200);
        let reply = world.get("/v2/acme/main/app/manifests/v1", &credential).await;
        let asked = asked(&reply).unwrap_or_else(|| panic!("{}", reply.text()));
        assert!(asked.starts_with("GET /internal/v1/registry/manifests/v1?"), "{asked}");
        assert!(asked.contains(&format!("project={}", project.id)) && asked.contains(&format!("repository={id}")));
        assert_eq!((reply.header("docker-content-digest"), reply.header("x-inner")), (Some("sha256:echo"), None));
        let push = world.call("POST", "/v2/acme/main/fresh/blobs/uploads/", Some(&credential), None).await;
        if credential == project.token {
            let asked = asked_of(&push);
            assert!(
                asked.contains("path=fresh") && !asked.contains("repository="),
                "nothing was pushed there: {asked}"
            );
        } else {
            assert_eq!(
                (push.status, code(&push).as_str()),
                (401, "UNAUTHORIZED"),
                "the token is for another repository"
            );
            assert!(push.header("www-authenticate").is_some_and(|c| c.ends_with("error=\"insufficient_scope\"")));
        }
    }
    assert!(asked(&basic(&world, "/v2/acme/main/app/tags/list?n=2&last=x", &project.token).await).is_some_and(
        |asked| {
            asked.starts_with("GET /internal/v1/registry/tags?") && asked.contains("n=2") && asked.contains("last=x")
        }
    ));
    let catalog = asked_of(&world.get("/v2/_catalog?n=5", &project.token).await);
    assert!(catalog.contains("name=acme%2Fmain") && catalog.contains("n=5"), "{catalog}");
}

fn asked_of(reply: &Reply) -> String {
    asked(reply).unwrap_or_else(|| panic!("{} {}", reply.status, reply.text()))
}

#[tokio::test]
async fn another_projects_repository_is_unknown_exactly_as_one_that_never_was() {
    let world = world("registry_foreign").await;
    let (owner, stranger) = (world.project("owner").await, world.project("stranger").await);
    repository(&world, &owner, "app").await;
    let scopes = ["repository:owner/main/app:pull,push,delete", "repository:owner/main/never:pull,push,delete"];
    let signed = token(&world, Some(&stranger.token), &scopes).await;
    let digest = format!("sha256:{}", "a".repeat(64));
    for credential in [&stranger.token, &signed] {
        for (method, suffix) in [
            ("GET", "manifests/v1".to_owned()),
            ("HEAD", "manifests/v1".to_owned()),
            ("PUT", "manifests/v1".to_owned()),
            ("DELETE", "manifests/v1".to_owned()),
            ("GET", format!("blobs/{digest}")),
            ("DELETE", format!("blobs/{digest}")),
            ("POST", "blobs/uploads/".to_owned()),
            ("POST", format!("blobs/uploads/?mount={digest}&from=stranger/main/x")),
            ("GET", "blobs/uploads/00000000-0000-0000-0000-000000000000".to_owned()),
            ("GET", "tags/list".to_owned()),
            ("GET", format!("referrers/{digest}")),
        ] {
            let mut replies = Vec::new();
            for name in ["owner/main/app", "owner/main/never", "nobody/main/app", "owner/nothing/app"] {
                let path = format!("/v2/{name}/{suffix}");
                let reply = world.call(method, &path, Some(credential), None).await;
                let mut headers: Vec<String> = reply.headers.keys().map(ToString::to_string).collect();
                headers.sort();
                replies.push((reply.status, headers, reply.body));
            }
            assert_eq!(replies[0].0, 404, "{method} {suffix}");
            assert!(
                method == "HEAD" || String::from_utf8_lossy(&replies[0].2).contains("NAME_UNKNOWN"),
                "{method} {suffix}"
            );
            assert!(replies.iter().all(|reply| *reply == replies[0]), "{method} {suffix}: {replies:?}");
        }
    }
}

#[tokio::test]
async fn anybody_pulls_from_a_public_repository_and_nobody_else_writes_to_it() {
    let world = world("registry_public").await;
    let (owner, stranger) = (world.project("owner").await, world.project("stranger").await);
    let id = repository(&world, &owner, "app").await;
    let scopes = ["repository:owner/main/app:pull,push,delete"];
    let before = token(&world, None, &scopes).await;
    assert_eq!(world.get("/v2/owner/main/app/manifests/v1", &before).await.status, 401, "not public yet");
    let path = format!("/api/v1/project/repositories/{id}");
    let foreign = world.call("PATCH", &path, Some(&stranger.token), Some(json!({ "public": true }))).await;
    assert_eq!(foreign.status, 404, "{}", foreign.text());
    let opened = world.call("PATCH", &path, Some(&owner.token), Some(json!({ "public": true }))).await;
    assert_eq!((opened.status, &opened.json()["public"]), (200, &json!(true)));
    let anonymous = token(&world, None, &scopes).await;
    for credential in [&anonymous, &stranger.token, &token(&world, Some(&stranger.token), &scopes).await] {
        let pull = world.get("/v2/owner/main/app/manifests/v1", credential).await;
        assert!(asked_of(&pull).contains(&format!("project={}", owner.id)));
        for (method, suffix) in [("PUT", "manifests/v1"), ("POST", "blobs/uploads/"), ("DELETE", "manifests/v1")] {
            let reply = world.call(method, &format!("/v2/owner/main/app/{suffix}"), Some(credential), None).await;
            let expected = if *credential == anonymous { (401, "UNAUTHORIZED") } else { (403, "DENIED") };
            assert_eq!((reply.status, code(&reply).as_str()), expected, "{method}");
        }
    }
    assert_eq!(world.get("/v2/_catalog", &anonymous).await.status, 401);
    let closed = world.call("PATCH", &path, Some(&owner.token), Some(json!({ "public": false }))).await;
    assert_eq!(closed.status, 200);
    assert_eq!(world.get("/v2/owner/main/app/manifests/v1", &anonymous).await.status, 401, "closed means now");
    assert_eq!(world.get("/v2/owner/main/app/manifests/v1", &stranger.token).await.status, 404);
}

#[tokio::test]
async fn a_blob_is_mounted_only_from_what_the_caller_may_read() {
    let world = world("registry_mount").await;
    let (mine, theirs) = (world.project("mine").await, world.project("theirs").await);
    for (project, name) in [(&mine, "source"), (&theirs, "secret")] {
        repository(&world, project, name).await;
    }
    let post = |from: &str, credential: String| {
        let path = format!("/v2/mine/main/target/blobs/uploads/?mount=sha256:x{from}");
        let world = &world;
        async move { asked_of(&world.call("POST", &path, Some(&credential), None).await) }
    };
    let own = post("&from=mine/main/source", mine.token.clone()).await;
    assert!(own.contains(&format!("from_project={}", mine.id)) && own.contains("from_repository="), "{own}");
    for from in ["&from=theirs/main/secret", "&from=theirs/main/never", "&from=UPPER"] {
        let asked = post(from, mine.token.clone()).await;
        assert!(!asked.contains("from_project") && !asked.contains("from_anywhere"), "{asked}");
    }
    assert!(post("", mine.token.clone()).await.contains("from_anywhere=true"));
    // A token for the target alone does not read the source.
    let narrow = token(&world, Some(&mine.token), &["repository:mine/main/target:pull,push"]).await;
    assert!(!post("&from=mine/main/source", narrow.clone()).await.contains("from_project"));
    assert!(!post("", narrow).await.contains("from_anywhere"));
    let scopes = ["repository:mine/main/target:pull,push", "repository:mine/main/source:pull"];
    let wide = token(&world, Some(&mine.token), &scopes).await;
    assert!(post("&from=mine/main/source", wide).await.contains("from_project"));
}

#[tokio::test]
async fn a_registry_token_dies_with_the_credential_it_was_made_from_and_cannot_be_made_up() {
    let world = world("registry_tokens").await;
    let project = world.project("acme").await;
    repository(&world, &project, "app").await;
    let signed = token(&world, Some(&project.token), &["repository:acme/main/app:pull"]).await;
    let get = |credential: String| {
        let world = &world;
        async move { world.get("/v2/acme/main/app/manifests/v1", &credential).await.status }
    };
    assert_eq!(get(signed.clone()).await, 200);
    let push = world.call("PUT", "/v2/acme/main/app/manifests/v1", Some(&signed), None).await;
    assert_eq!((push.status, code(&push).as_str()), (401, "UNAUTHORIZED"), "a pull token does not push");
    let parts: Vec<&str> = signed.split('.').collect();
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let none = engine.encode(r#"{"typ":"JWT","alg":"none"}"#);
    let claims = String::from_utf8(engine.decode(parts[1]).expect("base64")).expect("text");
    let more = engine.encode(claims.replace("\"pull\"", "\"push\""));
    for forged in [
        format!("{none}.{}.", parts[1]),
        format!("{}.{more}.{}", parts[0], parts[2]),
        format!("{}.{}.{}", parts[0], parts[1], engine.encode([0; 32])),
        "a.b.c".to_owned(),
    ] {
        assert_eq!(get(forged.clone()).await, 401, "{forged}");
    }
    // It opens the registry and nothing else.
    assert_eq!(world.get("/containers/json", &signed).await.status, 401);
    let revoke = format!("/api/v1/projects/{}/tokens/{}", project.id, project.token_id);
    assert_eq!(world.operate("DELETE", &revoke, Value::Null).await.status, 204);
    assert_eq!(get(signed).await, 401, "revoked means now");
}

#[tokio::test]
async fn tokens_are_had_by_form_too_and_a_bad_credential_gets_none() {
    let world = world("registry_forms").await;
    let project = world.project("acme").await;
    let post = |form: String| {
        let request = Request::post("/v2/token").header("content-type", "application/x-www-form-urlencoded");
        world.send(request.body(Body::from(form)).expect("a request"))
    };
    let scope = "scope=repository:acme/main/app:pull,push&service=wharfage&client_id=docker";
    let password =
        post(format!("grant_type=password&username=x&password={}&access_type=offline&{scope}", project.token)).await;
    assert_eq!((password.status, password.header("cache-control")), (200, Some("no-store")), "{}", password.text());
    let refresh = password.json()["refresh_token"].as_str().expect("a refresh token").to_owned();
    let again = post(format!("grant_type=refresh_token&refresh_token={refresh}&{scope}")).await;
    assert_eq!(again.status, 200, "{}", again.text());
    let signed = again.json()["access_token"].as_str().expect("a token").to_owned();
    assert_eq!(world.call("POST", "/v2/acme/main/app/blobs/uploads/", Some(&signed), None).await.status, 200);
    for (form, status) in [
        (format!("grant_type=password&username=x&password=whf_wrong&{scope}"), 401),
        (format!("grant_type=refresh_token&refresh_token=&{scope}"), 401),
        (format!("grant_type=magic&{scope}"), 400),
        (format!("grant_type=password&password={}&service=another", project.token), 400),
        (format!("grant_type=password&password={}{}", project.token, "&scope=a:b:c".repeat(17)), 400),
        ("x".repeat(20 * 1024), 413),
        (format!("grant_type=password&password={}", world.operator), 403),
    ] {
        assert_eq!(post(form.clone()).await.status, status, "{}", &form[..form.len().min(60)]);
    }
    assert_eq!(basic(&world, "/v2/token?service=wharfage", "whf_wrong").await.status, 401);
    assert_eq!(basic(&world, "/v2/token", &world.operator).await.status, 403);
}

#[tokio::test]
async fn names_and_paths_that_cannot_be_are_refused_in_the_specs_words() {
    let world = world("registry_names").await;
    let project = world.project("acme").await;
    for (path, status, expected) in [
        ("/v2/acme/main/UPPER/manifests/v1", 400, "NAME_INVALID"),
        ("/v2/acme/main/a..b/manifests/v1", 400, "NAME_INVALID"),
        ("/v2/acme/main/manifests/v1", 404, "NAME_UNKNOWN"),
        ("/v2/app/manifests/v1", 404, "NAME_UNKNOWN"),
        ("/v2/acme/main/app/things/v1", 405, "UNSUPPORTED"),
        ("/v2/acme//main/app/manifests/v1", 400, "NAME_INVALID"),
        ("/v2/acme/main/%2e%2e/manifests/v1", 400, "NAME_INVALID"),
    ] {
        let reply = world.get(path, &project.token).await;
        assert_eq!((reply.status, code(&reply).as_str()), (status, expected), "{path}");
    }
    let wrong = world.call("POST", "/v2/acme/main/app/manifests/v1", Some(&project.token), None).await;
    assert_eq!((wrong.status, code(&wrong).as_str()), (405, "UNSUPPORTED"));
    let operator = world.get("/v2/acme/main/app/tags/list", &world.operator).await;
    assert_eq!((operator.status, code(&operator).as_str()), (403, "DENIED"));
}

#[tokio::test]
async fn a_projects_repositories_are_listed_and_removed_by_itself_alone() {
    let world = world("registry_platform").await;
    let (owner, stranger) = (world.project("owner").await, world.project("stranger").await);
    let id = repository(&world, &owner, "team/app").await;
    let listed = world.get("/api/v1/project/repositories", &owner.token).await.json();
    assert_eq!(listed["items"][0]["full_name"], "owner/main/team/app");
    assert_eq!((&listed["items"][0]["id"], &listed["items"][0]["public"]), (&json!(id), &json!(false)));
    assert_eq!(world.get("/api/v1/project/repositories", &stranger.token).await.json()["items"], json!([]));
    let path = format!("/api/v1/project/repositories/{id}");
    assert_eq!(world.call("DELETE", &path, Some(&stranger.token), None).await.status, 404);
    assert_eq!(world.call("DELETE", &path, Some(&owner.token), None).await.status, 204);
    assert_eq!(world.call("DELETE", &path, Some(&owner.token), None).await.status, 404);
}
