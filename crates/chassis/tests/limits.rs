//! Clients that ask for too much, too slowly, or leave.

mod support;

use std::time::Duration;

use chassis::{
    Server,
    axum::{
        Router,
        body::Bytes,
        response::IntoResponse,
        routing::{get, post},
    },
    limits::HttpLimits,
};
use hyper::ext::ReasonPhrase;
use support::{Running, free_port, start_server};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};

const SOON: Duration = Duration::from_secs(3);

fn limited(router: Router) -> Server {
    free_port(router).with_limits(HttpLimits {
        connections: 2,
        header_read: Duration::from_millis(300),
        headers: 20,
        header_bytes: 16 * 1024,
        body_bytes: 1024,
        ..HttpLimits::default()
    })
}

async fn say(server: &Running, text: &str) -> String {
    let mut stream = TcpStream::connect(server.address).await.expect("connect");
    stream.write_all(text.as_bytes()).await.expect("write");
    let mut answer = Vec::new();
    // A server that refuses may reset the connection after its answer.
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("an end in time");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn too_much_is_refused_with_its_own_status() {
    async fn take(body: Bytes) -> String {
        body.len().to_string()
    }
    let server = start_server("gateway", limited(Router::new().route("/", post(take)))).await;
    let head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let big = format!("{head}X: {}\r\n\r\n", "x".repeat(20_000));
    assert!(say(&server, &big).await.starts_with("HTTP/1.1 431"));
    let many = format!("{head}{}\r\n", "X: 1\r\n".repeat(30));
    assert!(say(&server, &many).await.starts_with("HTTP/1.1 431"));
    let long = format!("{head}Content-Length: 2000\r\n\r\n{}", "x".repeat(2000));
    assert!(say(&server, &long).await.starts_with("HTTP/1.1 413"));
    let fits = format!("{head}Content-Length: 1000\r\n\r\n{}", "x".repeat(1000));
    assert!(say(&server, &fits).await.ends_with("1000"));
}

#[tokio::test]
async fn a_slow_or_silent_client_is_let_go_and_frees_its_place() {
    let server = start_server("gateway", limited(Router::new().route("/", get(async || "hello")))).await;
    let silent = tokio::join!(say(&server, ""), say(&server, "GET / HT"));
    assert!(!silent.0.contains("200") && !silent.1.contains("200"));
    // Both places are taken by the silent; the third waits and is served.
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(TcpStream::connect(server.address).await.expect("connect"));
    }
    let answer = say(&server, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_work_for_it() {
    struct Left(mpsc::UnboundedSender<()>);
    impl Drop for Left {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let (sender, mut left) = mpsc::unbounded_channel();
    let wait = async move || {
        let _left = Left(sender.clone());
        std::future::pending::<()>().await;
    };
    let server = start_server("gateway", free_port(Router::new().route("/wait", get(wait)))).await;
    let mut stream = TcpStream::connect(server.address).await.expect("connect");
    stream.write_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("write");
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(stream);
    timeout(SOON, left.recv()).await.expect("noticed in time").expect("dropped");
}

#[tokio::test]
async fn with_half_close_a_client_that_only_stopped_sending_is_answered() {
    let slow = async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        "here you are"
    };
    let server = start_server("gateway", free_port(Router::new().route("/", get(slow))).with_half_close()).await;
    let mut stream = TcpStream::connect(server.address).await.expect("connect");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("write");
    stream.shutdown().await.expect("half-close");
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer)).await.expect("in time").expect("read");
    assert!(answer.ends_with("here you are"), "{answer}");
}

#[tokio::test]
async fn a_handler_may_choose_the_reason_phrase() {
    let upgraded = async || {
        let mut response = "".into_response();
        response.extensions_mut().insert(ReasonPhrase::from_static(b"UPGRADED"));
        response
    };
    let server = start_server("gateway", free_port(Router::new().route("/", get(upgraded)))).await;
    let answer = say(&server, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 UPGRADED\r\n"), "{answer}");
}
