//! `POST /auth`: other registries are image-svc's to ask, the one at this address takes tokens.

use axum::{Json, Router, body::Body, http::StatusCode, response::IntoResponse as _, routing::post};
use contract::image::{LOGINS, LoginReply, RegistryAuth};
use serde_json::{Value, json};

use crate::world::{Reply, World};

/// Speaks image-svc's contract: takes `good`, cannot reach `inside`.
async fn stand_in(Json(auth): Json<RegistryAuth>) -> axum::response::Response {
    if auth.server_address == "inside" {
        let error = model::Error::Forbidden("inside:443 is not a public address".into());
        return (StatusCode::FORBIDDEN, Json(error)).into_response();
    }
    let why = "Get \"https://registry.example/v2/\": unauthorized: incorrect username or password";
    Json(LoginReply { refused: (auth.password != "good").then(|| why.to_owned()) }).into_response()
}

async fn login(world: &World, token: &str, body: &Value) -> Reply {
    let request = axum::http::Request::post("/v1.53/auth")
        .header("authorization", format!("Bearer {token}"))
        .header("host", "wharfage.example:2376")
        .header("content-type", "application/json");
    world.send(request.body(Body::from(body.to_string())).expect("a request")).await
}

#[tokio::test]
async fn a_login_is_answered_as_dockerd_answers_it() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = tokio::spawn(async move { axum::serve(listener, Router::new().route(LOGINS, post(stand_in))).await });
    let world = World::with("login", &format!("http://{address}"), "").await;
    let project = world.project("login").await;
    let at = async |server: &str, password: &str| {
        let body = json!({"username": "u", "password": password, "serveraddress": server, "email": "x"});
        login(&world, &project.token, &body).await
    };
    let good = at("https://index.docker.io/v1/", "good").await;
    assert_eq!((good.status, good.json()), (200, json!({"IdentityToken": "", "Status": "Login Succeeded"})));
    let wrong = at("registry.example", "guess").await;
    assert_eq!((wrong.status, wrong.header("www-authenticate")), (401, None), "of the registry's credentials");
    assert!(wrong.text().contains("unauthorized: incorrect username or password"), "{}", wrong.text());
    assert_eq!(at("inside", "good").await.status, 403);
    assert_eq!(at("https://user:secret@registry.example", "good").await.status, 400);
    assert_eq!(at("registry.example", &"x".repeat(17 * 1024)).await.status, 400, "over the limit");

    let own = "wharfage.example:2376";
    assert_eq!(at(own, &project.token).await.status, 200);
    assert_eq!(at(&format!("https://{own}/v2/"), &project.token).await.status, 200);
    for other in ["good", "", &world.operator] {
        let refused = at(own, other).await;
        assert_eq!(refused.status, 401, "{other:?}");
        assert!(refused.text().contains("failed with status: 401 Unauthorized"), "{}", refused.text());
    }
    server.abort();
}
