//! Calls between services: errors keep their kind, streams flow, upgrades close one side at a time.

mod support;

use std::time::Duration;

use chassis::{
    Answer, Failure,
    axum::{
        Json, Router,
        body::{Body, Bytes},
        extract::{Request, State},
        http::{StatusCode, header},
        response::{IntoResponse, Response},
        routing::{get, post},
    },
    client::{Internal, stream_lines},
    request,
};
use futures::{StreamExt as _, stream};
use hyper_util::rt::TokioIo;
use model::Error;
use support::{Pki, Running, start};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn plain(server: &Running) -> Internal {
    Internal::plain(&format!("http://{}", server.address)).expect("client")
}

fn every_error() -> Vec<Error> {
    let text = || "why".to_owned();
    vec![
        Error::NotFound(text()),
        Error::InvalidArgument(text()),
        Error::Conflict(text()),
        Error::NotModified,
        Error::Unauthenticated(text()),
        Error::Forbidden(text()),
        Error::LimitExceeded(text()),
        Error::NoCapacity(text()),
        Error::Unavailable(text()),
        Error::NotImplemented(text()),
        Error::Failed(text()),
    ]
}

#[tokio::test]
async fn an_error_keeps_its_kind_and_text_across_services() {
    async fn fail(Json(error): Json<Error>) -> Answer<()> {
        Err(Failure(error))
    }
    let server = start("scheduler", Router::new().route("/fail", post(fail)), None).await;
    let client = plain(&server);
    for error in every_error() {
        assert_eq!(client.post::<_, ()>("/fail", &error).await, Err(error));
    }
    let internal = client.post::<_, ()>("/fail", &Error::Internal("secret".into())).await;
    assert!(matches!(&internal, Err(Error::Internal(text)) if !text.contains("secret")), "{internal:?}");
}

#[tokio::test]
async fn an_answer_that_no_handler_made_has_a_kind_too() {
    async fn take(Json(_): Json<u32>) {}
    let server = start("scheduler", Router::new().route("/take", post(take)), None).await;
    let client = plain(&server);
    assert!(matches!(client.get::<()>("/nowhere").await, Err(Error::NotFound(_))));
    assert!(matches!(client.post::<_, ()>("/take", &"text").await, Err(Error::InvalidArgument(_))));
    assert_eq!(client.post::<_, ()>("/take", &7).await, Ok(()));
}

#[tokio::test]
async fn a_peer_that_is_gone_or_silent_is_unavailable() {
    let server = start("scheduler", Router::new().route("/silent", get(std::future::pending::<()>)), None).await;
    let client = plain(&server).with_timeout(Duration::from_millis(100));
    assert!(matches!(client.get::<()>("/silent").await, Err(Error::Unavailable(_))));
    let gone = Internal::plain("http://127.0.0.1:1").expect("client");
    assert!(matches!(gone.get::<()>("/").await, Err(Error::Unavailable(_))));
}

#[tokio::test]
async fn a_panic_is_an_answer_and_the_request_id_is_told() {
    async fn fall() {
        panic!("on purpose");
    }
    let server = start("scheduler", Router::new().route("/fall", get(fall)), None).await;
    let url = format!("http://{}/fall", server.address);
    let response = chassis::reqwest::Client::builder().no_proxy().build().expect("client").get(url).send().await;
    let response = response.expect("an answer");
    assert_eq!(response.status(), 500);
    assert!(response.headers().contains_key("x-request-id"));
    let metrics = server.ctx.metrics().render();
    let expected =
        "wharfage_http_requests_total{method=\"GET\",route=\"/fall\",service=\"scheduler\",status=\"500\"} 1";
    assert!(metrics.contains(expected), "{metrics}");
}

#[tokio::test]
async fn a_request_id_follows_the_request_into_the_next_service() {
    async fn id() -> Json<Option<String>> {
        Json(request::current_id().map(|id| id.to_string()))
    }
    async fn forward(State(next): State<Internal>) -> Answer<Json<(Option<String>, Option<String>)>> {
        let own = request::current_id().map(|id| id.to_string());
        Ok(Json((own, next.get("/id").await?)))
    }
    let pki = Pki::new();
    let second = start("agent", Router::new().route("/id", get(id)), Some(pki.mutual("host:1"))).await;
    let next = pki.dial(second.address, "service:gateway", "host:1");
    let first = start("gateway", Router::new().route("/", get(forward)).with_state(next), None).await;
    let (own, seen): (Option<String>, Option<String>) = plain(&first).get("/").await.expect("answer");
    assert!(own.is_some());
    assert_eq!(own, seen);
}

#[tokio::test]
async fn lines_stream_as_they_come_and_a_broken_stream_says_so() {
    async fn lines() -> Response {
        let chunks =
            ["1\n2", "\n\n", "3\nx\n"].map(|text| Ok::<_, std::io::Error>(Bytes::from_static(text.as_bytes())));
        Body::from_stream(stream::iter(chunks)).into_response()
    }
    async fn broken() -> Response {
        let whole = stream::iter([Ok(Bytes::from_static(b"1\n"))]);
        let cut = stream::once(async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Err::<Bytes, _>(std::io::Error::other("cut"))
        });
        Body::from_stream(whole.chain(cut)).into_response()
    }
    async fn endless() -> Response {
        let chunk = Bytes::from(vec![b'1'; 1024 * 1024]);
        Body::from_stream(stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()))).into_response()
    }
    let router =
        Router::new().route("/lines", get(lines)).route("/broken", get(broken)).route("/endless", get(endless));
    let server = start("image", router, None).await;
    let read = async |path: &str| {
        let response = plain(&server).stream(reqwest_method(), path, None::<&()>, None::<&()>).await.expect("head");
        stream_lines::<u32>(response).collect::<Vec<_>>().await
    };
    let lines = read("/lines").await;
    assert_eq!(lines[..3], [Ok(1), Ok(2), Ok(3)]);
    assert!(matches!(lines[3], Err(Error::Internal(_))));
    let broken = read("/broken").await;
    assert_eq!(broken[0], Ok(1));
    assert!(matches!(broken[1], Err(Error::Unavailable(_))));
    let response = plain(&server).stream(reqwest_method(), "/endless", None::<&()>, None::<&()>).await.expect("head");
    let first = stream_lines::<u32>(response).next().await.expect("an item");
    assert!(matches!(first, Err(Error::Internal(_))), "a line has a limit");
}

fn reqwest_method() -> chassis::reqwest::Method {
    chassis::reqwest::Method::GET
}

/// Sends on what it got, but only once the other side has said that it is done.
async fn echo_after_end(request: Request) -> Answer<Response> {
    if request.headers().get(header::UPGRADE).is_none_or(|value| value != "test-stream") {
        return Err(Error::InvalidArgument("wants an upgrade".into()).into());
    }
    if request.uri().query() == Some("refuse=true") {
        return Err(Error::Conflict("container is not running".into()).into());
    }
    request::spawn(async move {
        let upgraded = hyper::upgrade::on(request).await.expect("upgrade");
        let mut stream = TokioIo::new(upgraded);
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.expect("read to the half-close");
        stream.write_all(&heard).await.expect("write after it");
        stream.write_all(b" and out").await.expect("write after it");
        stream.shutdown().await.expect("shutdown");
    });
    let upgrade = [(header::CONNECTION, "Upgrade"), (header::UPGRADE, "test-stream")];
    Ok((StatusCode::SWITCHING_PROTOCOLS, upgrade).into_response())
}

async fn half_close_round_trip(client: &Internal) {
    let mut stream = client.upgrade("/stream", "test-stream", None::<&()>, None::<&()>).await.expect("upgrade");
    let said = vec![b'x'; 300_000];
    stream.write_all(&said).await.expect("write");
    stream.shutdown().await.expect("half-close");
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer))
        .await
        .expect("in time")
        .expect("read");
    assert_eq!(answer.len(), said.len() + 8);
    assert!(answer.ends_with(b"x and out"));
    let refused = client.upgrade("/stream", "test-stream", Some(&[("refuse", true)]), None::<&()>).await;
    assert_eq!(refused.map(|_| ()), Err(Error::Conflict("container is not running".into())));
}

#[tokio::test]
async fn an_upgraded_stream_closes_one_side_at_a_time_over_tls() {
    let pki = Pki::new();
    let router = Router::new().route("/stream", post(echo_after_end));
    let server = start("agent", router, Some(pki.mutual("host:1"))).await;
    half_close_round_trip(&pki.dial(server.address, "service:gateway", "host:1")).await;
}

#[tokio::test]
async fn an_upgraded_stream_closes_one_side_at_a_time_over_tcp_and_unix() {
    let router = Router::new().route("/stream", post(echo_after_end));
    let server = start("agent", router.clone(), None).await;
    half_close_round_trip(&plain(&server)).await;

    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("netd.sock");
    let bound = chassis::Server::unix(&path, router).bind(&server.ctx).await.expect("bind");
    let serving = tokio::spawn(bound.serve(server.stop.clone()));
    half_close_round_trip(&Internal::unix(&path).expect("client")).await;
    serving.abort();
}

#[tokio::test]
async fn a_peer_on_a_unix_socket_is_known_by_its_user() {
    async fn uid(caller: chassis::Caller) -> Json<Option<u32>> {
        Json(caller.unix_uid)
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("netd.sock");
    let ctx = chassis::Ctx::new("netd", &chassis::Common::default());
    let serve = async || {
        let router = Router::new().route("/uid", get(uid));
        chassis::Server::unix(&path, router).bind(&ctx).await.expect("bind over a leftover socket")
    };
    drop(serve().await);
    let serving = tokio::spawn(serve().await.serve(ctx.cancel()));
    let seen: Option<u32> = Internal::unix(&path).expect("client").get("/uid").await.expect("answer");
    assert!(seen.is_some());
    serving.abort();
}

#[tokio::test]
async fn stopping_finishes_what_was_begun_and_takes_nothing_new() {
    async fn slow() -> Json<&'static str> {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Json("done")
    }
    let mut server = start("scheduler", Router::new().route("/slow", get(slow)), None).await;
    let client = plain(&server);
    let begun = tokio::spawn({
        let client = client.clone();
        async move { client.get::<String>("/slow").await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop.cancel();
    tokio::time::timeout(Duration::from_secs(3), &mut server.ended).await.expect("drained in time").expect("no panic");
    assert_eq!(begun.await.expect("join"), Ok("done".to_owned()));
    assert!(matches!(client.get::<String>("/slow").await, Err(Error::Unavailable(_))));
}

#[tokio::test]
async fn ready_says_which_check_fails() {
    let server = start("scheduler", Router::new(), None).await;
    let flag = server.ctx.health().flag("postgres");
    server.ctx.health().fact("redis", || "away".to_owned());
    let get = async |path: &str| {
        let response = chassis::reqwest::get(format!("http://{}{path}", server.address)).await.expect("answer");
        (response.status().as_u16(), response.text().await.expect("text"))
    };
    assert_eq!(get("/healthz").await.0, 200);
    let (status, body) = get("/readyz").await;
    assert_eq!(status, 503);
    assert!(body.contains("\"postgres\":\"not yet\""), "{body}");
    flag.set(true);
    let (status, body) = get("/readyz").await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("\"redis\":\"away\""), "{body}");
    assert!(get("/metrics").await.1.contains("wharfage_http_requests_total"));
}
