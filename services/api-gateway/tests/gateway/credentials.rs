//! Who gets in: the whole document is walked, so that a route without protection fails here.

use axum::{body::Body, http::Request};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    document::{is_open, operations},
    world::{World, with_certificate},
};

/// A path of the document with something in every placeholder.
fn filled(path: &str) -> String {
    path.split('/').map(|segment| if segment.starts_with('{') { "x1" } else { segment }).collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn every_operation_but_ping_and_the_token_service_needs_a_credential() {
    let world = World::new("every_operation").await;
    let gone = world.project("gone").await;
    let revoke = format!("/api/v1/projects/{}/tokens/{}", gone.id, gone.token_id);
    assert_eq!(world.operate("DELETE", &revoke, Value::Null).await.status, 204);
    let (mut open, mut closed) = (Vec::new(), 0);
    let mut bodies = std::collections::BTreeSet::new();
    for (method, path, operation) in operations() {
        if is_open(&operation) {
            open.push(format!("{method} {path}"));
            continue;
        }
        closed += 1;
        for token in [None, Some("whf_wrong"), Some(gone.token.as_str())] {
            for prefix in ["", "/v1.43"] {
                if (path.starts_with("/api/") || path.starts_with("/v2/")) && !prefix.is_empty() {
                    continue;
                }
                let reply = world.call(&method, &format!("{prefix}{}", filled(&path)), token, None).await;
                assert_eq!(reply.status, 401, "{method} {prefix}{path}: {}", reply.text());
                let scheme = if path.starts_with("/v2/") { "Bearer realm=" } else { "Basic" };
                assert!(reply.header("www-authenticate").is_some_and(|c| c.starts_with(scheme)), "{method} {path}");
                if !path.starts_with("/api/") && !path.starts_with("/v2/") && method != "HEAD" {
                    bodies.insert(reply.body);
                }
            }
        }
    }
    // The token service gives strangers a token for what is public.
    assert_eq!(open, ["GET /_ping", "HEAD /_ping", "GET /v2/token", "POST /v2/token"]);
    assert!(closed > 100, "only {closed} operations");
    assert_eq!(bodies.len(), 1, "a refusal varies");
}

#[tokio::test]
async fn pages_need_a_credential_too() {
    let world = World::new("pages").await;
    let project = world.project("reader").await;
    for path in ["/openapi.json", "/docs", "/docs/", "/docs/index.html", "/docs/swagger-ui-bundle.js"] {
        assert_eq!(world.call("GET", path, None, None).await.status, 401, "{path}");
        assert!(world.get(path, &project.token).await.status < 400, "{path}");
    }
    let document = world.get("/openapi.json", &world.operator).await.json();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(
        !world.get("/docs/index.html", &project.token).await.text().contains("https://"),
        "an asset from elsewhere"
    );
}

#[tokio::test]
async fn an_operator_opens_no_project_and_a_project_no_platform() {
    let world = World::new("faces").await;
    let project = world.project("somebody").await;
    for (method, path, operation) in operations() {
        if is_open(&operation) || path == "/api/v1/project" || path.starts_with("/api/v1/project/") {
            continue;
        }
        let token = if path.starts_with("/api/") { &project.token } else { &world.operator };
        let body = (method != "GET").then(|| json!({}));
        let reply = world.call(&method, &filled(&path), Some(token), body).await;
        assert_eq!(reply.status, 403, "{method} {path}: {}", reply.text());
    }
    for path in ["/api/v1/project", "/api/v1/project/repositories"] {
        assert_eq!(world.get(path, &world.operator).await.status, 403, "{path}");
    }
    assert_eq!(world.get("/api/v1/project", &project.token).await.json()["id"], project.id.to_string());
}

#[tokio::test]
async fn a_token_works_as_basic_password_and_not_in_two_headers() {
    let world = World::new("basic").await;
    let project = world.project("basic").await;
    let with = |headers: Vec<String>| {
        let request = headers.into_iter().fold(Request::get("/version"), |r, value| r.header("authorization", value));
        world.send(request.body(Body::empty()).expect("a request"))
    };
    let basic = format!("Basic {}", STANDARD.encode(format!("anyone:{}", project.token)));
    let bearer = format!("Bearer {}", project.token);
    assert_eq!(with(vec![basic.clone()]).await.status, 200);
    assert_eq!(with(vec![bearer.clone()]).await.status, 200);
    assert_eq!(with(vec![bearer.clone(), bearer]).await.status, 401);
    assert_eq!(with(vec![format!("Bearer {}", "a".repeat(2000))]).await.status, 401);
    assert_eq!(with(vec!["Bearer \u{e9}".to_owned()]).await.status, 401);
}

#[tokio::test]
async fn a_client_certificate_is_known_by_its_fingerprint_not_by_its_name() {
    let world = World::new("certificates").await;
    let project = world.project("mtls").await;
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate =
        rcgen::CertificateParams::new(vec![]).expect("parameters").self_signed(&key).expect("a certificate");
    assert_eq!(world.send(with_certificate("/version", certificate.der())).await.status, 401);
    let path = format!("/api/v1/projects/{}/tokens", project.id);
    let wanted = json!({ "kind": "certificate", "certificate_pem": certificate.pem() });
    let made = world.operate("POST", &path, wanted.clone()).await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert!(made.json().get("secret").is_none());
    assert_eq!(world.send(with_certificate("/version", certificate.der())).await.status, 200);
    assert_eq!(world.operate("POST", &path, wanted).await.status, 409);
    let other = rcgen::CertificateParams::new(vec![]).expect("parameters").self_signed(&key).expect("a certificate");
    assert_eq!(world.send(with_certificate("/version", other.der())).await.status, 401);
}

#[tokio::test]
async fn an_expired_or_revoked_token_opens_nothing_from_the_next_request_on() {
    let world = World::new("expiry").await;
    let project = world.project("short").await;
    let path = format!("/api/v1/projects/{}/tokens", project.id);
    let soon = (time::OffsetDateTime::now_utc() + time::Duration::milliseconds(700))
        .format(&time::format_description::well_known::Rfc3339)
        .expect("a time");
    let short = world.operate("POST", &path, json!({ "expires_at": soon })).await.json();
    let secret = short["secret"].as_str().expect("a secret");
    assert_eq!(world.get("/version", secret).await.status, 200);
    tokio::time::sleep(std::time::Duration::from_millis(800)).await;
    assert_eq!(world.get("/version", secret).await.status, 401);
    assert_eq!(world.get("/version", &project.token).await.status, 200);
    let revoked = world.operate("DELETE", &format!("{path}/{}", project.token_id), Value::Null).await;
    assert_eq!(revoked.status, 204);
    assert_eq!(world.get("/version", &project.token).await.status, 401);
    let again = world.operate("DELETE", &format!("{path}/{}", project.token_id), Value::Null).await;
    assert_eq!(again.status, 204, "revoking twice is the same as once");
    let past = world.operate("POST", &path, json!({ "expires_at": "2001-01-01T00:00:00Z" })).await;
    assert_eq!(past.status, 400);
}

#[tokio::test]
async fn postgres_away_is_503_and_never_401_or_200() {
    let world = World::with("away", "http://127.0.0.1:1", "").await;
    let text = "listen = \"127.0.0.1:0\"\nscheduler = \"http://127.0.0.1:1\"\nimage = \"http://127.0.0.1:1\"\n\
                [database]\nurl = \"postgres://wharfage_gateway@127.0.0.1:1/none\"\n";
    let (config, _) = chassis::config::parse::<api_gateway::Config>(text, []).expect("a configuration");
    let ctx = chassis::Ctx::new("api-gateway", &chassis::Common::default());
    let gateway = api_gateway::Gateway::new(&ctx, config).expect("starts without its neighbours");
    let lonely = World { router: api_gateway::router(&gateway), ..world };
    assert_eq!(lonely.get("/version", "whf_x").await.status, 503);
    assert_eq!(lonely.call("GET", "/_ping", None, None).await.status, 200);
    assert!(!ctx.health().readiness().await.ready);
}
