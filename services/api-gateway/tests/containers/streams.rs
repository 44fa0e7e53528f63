//! Connections that are taken over: attach, exec, logs and events as they are on the wire.

use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use crate::fleet::{Fleet, frame};

#[tokio::test]
async fn an_attach_is_taken_over_before_the_start_and_closes_one_way_at_a_time() {
    let fleet = Fleet::new("attach").await;
    fleet.create("cat", &["cat"], json!({"OpenStdin": true})).await;
    let (head, mut stream) = fleet.hijack("/v1.53/containers/cat/attach?stdin=1&stdout=1&stream=1", "", true).await;
    assert!(head.starts_with("HTTP/1.1 101 UPGRADED\r\n"), "{head}");
    let lower = head.to_ascii_lowercase();
    for line in ["content-type: application/vnd.docker.multiplexed-stream", "connection: upgrade", "upgrade: tcp"] {
        assert!(lower.contains(line), "{head}");
    }
    assert!(!lower.contains("api-version"), "attach carries none of the API's headers");
    assert_eq!(fleet.start("cat").await.status, 204);
    stream.write_all(b"typed").await.expect("write");
    stream.shutdown().await.expect("half-close");
    let mut output = Vec::new();
    stream.read_to_end(&mut output).await.expect("output after the half-close");
    assert_eq!(output, [frame(b"hello"), frame(b"typed"), frame(b"bye")].concat());
}

#[tokio::test]
async fn a_stream_before_1_42_or_of_a_terminal_is_called_raw() {
    let fleet = Fleet::new("stream_types").await;
    fleet.create("plain", &["sleep"], json!({})).await;
    fleet.create("tty", &["sleep"], json!({"Tty": true, "OpenStdin": true})).await;
    for path in ["/v1.41/containers/plain/attach?stream=1&stdout=1", "/v1.53/containers/tty/attach?stream=1&stdout=1"] {
        let (head, _) = fleet.hijack(path, "", true).await;
        assert!(head.contains("application/vnd.docker.raw-stream"), "{path}: {head}");
    }
    let (head, mut stream) = fleet.hijack("/containers/tty/attach?stream=1&stdin=1&stdout=1", "", true).await;
    assert!(head.starts_with("HTTP/1.1 101"));
    stream.write_all(b"\x10\x11").await.expect("detach keys");
    let mut output = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut output)).await.expect("closed").expect("read");
}

#[tokio::test]
async fn an_attach_to_nothing_is_plain_text() {
    let fleet = Fleet::new("attach_missing").await;
    let (head, mut stream) = fleet.hijack("/containers/zzz/attach?stream=1", "", true).await;
    assert!(head.starts_with("HTTP/1.1 404 Not Found") && head.contains("application/vnd.docker.raw-stream"), "{head}");
    let mut body = String::new();
    stream.read_to_string(&mut body).await.expect("the text, then the end");
    assert_eq!(body, "No such container: zzz\r\n");
}

/// A WebSocket on the path, or the answer that is none.
async fn websocket(fleet: &Fleet, path: &str, more: &str) -> (String, tokio::net::TcpStream) {
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    fleet.request("GET", path, &format!("{upgrade}{more}"), "").await
}

async fn opened(stream: tokio::net::TcpStream) -> WebSocketStream<tokio::net::TcpStream> {
    WebSocketStream::from_raw_socket(stream, Role::Client, None).await
}

#[tokio::test]
async fn a_websocket_carries_the_bytes_of_the_streams_in_binary_messages() {
    let fleet = Fleet::new("websocket").await;
    fleet.create("cat", &["cat"], json!({"OpenStdin": true})).await;
    let path = "/v1.53/containers/cat/attach/ws?stdin=1&stdout=1&stream=1";
    let (head, stream) = websocket(&fleet, path, "Sec-WebSocket-Protocol: chat\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let lower = head.to_ascii_lowercase();
    // The example of RFC 6455.
    for line in
        ["sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=", "upgrade: websocket", "sec-websocket-protocol: chat"]
    {
        assert!(lower.contains(line), "{head}");
    }
    let mut socket = opened(stream).await;
    assert_eq!(socket.next().await.expect("a message").expect("whole"), Message::binary("hello"));
    socket.send(Message::Ping("are you there".into())).await.expect("sent");
    assert_eq!(socket.next().await.expect("a message").expect("whole"), Message::Pong("are you there".into()));
    socket.send(Message::text("typed")).await.expect("sent");
    socket.send(Message::binary("\n")).await.expect("sent");
    socket.close(None).await.expect("closed");
    while let Some(rest) = socket.next().await {
        assert!(matches!(rest, Ok(Message::Close(_))), "{rest:?}");
    }
    let (_, stream) = websocket(&fleet, "/v1.27/containers/cat/attach/ws?stream=1", "").await;
    let first = opened(stream).await.next().await.expect("a message").expect("whole");
    assert_eq!(first, Message::text("hello"), "before 1.28, and the streams are not asked for before 1.42");
}

#[tokio::test]
async fn a_websocket_that_cannot_be_is_a_bare_400_and_what_is_not_there_a_404_of_json() {
    let fleet = Fleet::new("websocket_refused").await;
    fleet.create("box", &["sleep"], json!({})).await;
    let (head, mut stream) = fleet.request("GET", "/containers/box/attach/ws?stream=1", "", "").await;
    assert!(
        head.starts_with("HTTP/1.1 400 Bad Request\r\n") && !head.to_ascii_lowercase().contains("api-version"),
        "{head}"
    );
    let mut body = String::new();
    stream.read_to_string(&mut body).await.expect("the text, then the end");
    assert_eq!(body, "not websocket protocol");
    let (head, _) = websocket(&fleet, "/containers/box/attach/ws?stream=1", "Origin: https://evil.example\r\n").await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    let (head, _) = websocket(&fleet, "/containers/zzz/attach/ws?stream=1", "").await;
    assert!(head.starts_with("HTTP/1.1 404 ") && head.contains("application/json"), "{head}");
    let (head, _) = websocket(&fleet, "/containers/box/attach/ws?detachKeys=nonsense", "").await;
    assert!(head.starts_with("HTTP/1.1 400 ") && head.contains("application/json"), "{head}");
}

#[tokio::test]
async fn a_message_over_the_limit_ends_the_websocket() {
    let fleet = Fleet::new("websocket_limit").await;
    fleet.create("cat", &["cat"], json!({"OpenStdin": true})).await;
    let path = "/containers/cat/attach/ws?stdin=1&stdout=1&stream=1";
    let mut socket = opened(websocket(&fleet, path, "").await.1).await;
    assert_eq!(socket.next().await.expect("a message").expect("whole"), Message::binary("hello"));
    // The gateway may be gone before all of it is sent.
    drop(socket.send(Message::binary(vec![b'x'; 1024 * 1024 + 1])).await);
    let ended = async {
        while let Some(Ok(message)) = socket.next().await {
            assert!(!message.is_binary())
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("the end");
}

#[tokio::test]
async fn an_exec_runs_once_and_tells_its_code() {
    let fleet = Fleet::new("exec").await;
    let container = fleet.create("box", &["sleep"], json!({})).await;
    let create = async |body| fleet.call("POST", "/containers/box/exec", Some(body)).await;
    let stopped = create(json!({"Cmd": ["true"]})).await;
    assert_eq!((stopped.status, stopped.message()), (409, format!("container {container} is not running")));
    assert_eq!(fleet.start("box").await.status, 204);
    let empty = create(json!({})).await;
    assert_eq!((empty.status, empty.message()), (400, "No exec command specified".into()));
    assert_eq!(create(json!({"Cmd": ["sh"], "Privileged": true})).await.status, 403);
    let made = create(json!({"Cmd": ["sh", "-c", "true"], "AttachStdin": true, "AttachStdout": true})).await;
    assert_eq!(made.status, 201);
    let id = made.json()["Id"].as_str().expect("an id").to_owned();
    let path = format!("/exec/{id}/start");
    let (head, mut stream) = fleet.hijack(&path, "{\"Detach\":false,\"Tty\":false}", true).await;
    assert!(
        head.starts_with("HTTP/1.1 101 UPGRADED\r\n") && head.to_ascii_lowercase().contains("api-version"),
        "{head}"
    );
    stream.write_all(b"in").await.expect("write");
    stream.shutdown().await.expect("half-close");
    let mut output = Vec::new();
    stream.read_to_end(&mut output).await.expect("output");
    assert_eq!(output, [frame(b"hello"), frame(b"in"), frame(b"bye")].concat());
    let shown = fleet.call("GET", &format!("/exec/{id}/json"), None).await.json();
    assert_eq!(
        (&shown["ExitCode"], &shown["Running"], &shown["ContainerID"]),
        (&json!(7), &json!(false), &json!(container))
    );
    assert_eq!(shown["ProcessConfig"]["arguments"], json!(["-c", "true"]));
    let (_, mut again) = fleet.hijack(&path, "{}", true).await;
    let mut told = Vec::new();
    again.read_to_end(&mut told).await.expect("told in the stream");
    assert_eq!(told, frame(format!("exec command {id} has already run\r\n").as_bytes()));
    let shown = fleet.call("GET", "/containers/box/json", None).await.json();
    assert_eq!(shown["ExecIDs"], json!([id]), "until its host has reported its end");
    // What the scheduler writes when its host has; the host has forgotten it then, and says so.
    sqlx::query("UPDATE execs SET ended_at = now(), exit_code = 9 WHERE id = $1")
        .bind(&id)
        .execute(fleet.seed.pool())
        .await
        .expect("ended");
    let shown = fleet.call("GET", &format!("/exec/{id}/json"), None).await.json();
    assert_eq!((&shown["ExitCode"], &shown["Running"]), (&json!(9), &json!(false)));
    assert_eq!(fleet.call("GET", "/containers/box/json", None).await.json()["ExecIDs"], json!(null));
    let events = fleet.call("GET", "/v1.51/events?since=0&until=0s&filters=%7B%22event%22%3A%5B%22exec_create%22%2C%22exec_start%22%2C%22exec_die%22%5D%7D", None).await;
    let lines: Vec<serde_json::Value> =
        events.body.lines().map(|l| serde_json::from_str(l).expect("an event")).collect();
    let actions: Vec<_> = lines.iter().map(|e| e["status"].as_str().expect("the old field")).collect();
    assert_eq!(actions, ["exec_create: sh -c true", "exec_start: sh -c true"], "the end is the scheduler's to tell");
}

#[tokio::test]
async fn whether_an_exec_has_frames_is_for_its_start_to_say() {
    let fleet = Fleet::new("exec_frames").await;
    fleet.create("box", &["sleep"], json!({})).await;
    assert_eq!(fleet.start("box").await.status, 204);
    let body = json!({"Cmd": ["sh"], "Tty": true, "AttachStdin": true, "AttachStdout": true});
    let made = fleet.call("POST", "/containers/box/exec", Some(body)).await;
    let id = made.json()["Id"].as_str().expect("an id").to_owned();
    let (head, mut stream) = fleet.hijack(&format!("/exec/{id}/start"), "{\"Detach\":false,\"Tty\":false}", true).await;
    assert!(head.contains("application/vnd.docker.multiplexed-stream"), "{head}");
    stream.write_all(b"in").await.expect("write");
    let said = frame(b"hello");
    let mut seen = Vec::new();
    while seen.len() < said.len() {
        let mut head = [0; 8];
        stream.read_exact(&mut head).await.expect("a frame");
        assert_eq!(head[..4], [1, 0, 0, 0]);
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let mut payload = vec![0; usize::try_from(length).expect("small")];
        stream.read_exact(&mut payload).await.expect("its payload");
        seen.extend(payload);
    }
    seen.truncate(said.len());
    assert_eq!(seen, said, "what the terminal says, in frames of stdout");
}

#[tokio::test]
async fn an_exec_that_cannot_start_is_told_in_the_stream() {
    let fleet = Fleet::new("exec_missing").await;
    fleet.create("box", &["sleep"], json!({})).await;
    assert_eq!(fleet.start("box").await.status, 204);
    let made = fleet.call("POST", "/containers/box/exec", Some(json!({"Cmd": ["nosuchbin"]}))).await.json();
    let path = format!("/exec/{}/start", made["Id"].as_str().expect("an id"));
    let (head, mut stream) = fleet.hijack(&path, "{}", true).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let mut told = Vec::new();
    stream.read_to_end(&mut told).await.expect("told");
    let text = "OCI runtime exec failed: exec: \"nosuchbin\": executable file not found in $PATH: unknown\r\n";
    assert_eq!(told, frame(text.as_bytes()));
}

#[tokio::test]
async fn logs_are_passed_on_with_the_query_in_our_own_terms() {
    let fleet = Fleet::new("logs").await;
    fleet.create("box", &["sleep"], json!({})).await;
    let none = fleet.call("GET", "/containers/box/logs", None).await;
    assert_eq!((none.status, none.message()), (400, "must specify at least one of 'stdout' or 'stderr'".into()));
    let reply = fleet.call("GET", "/containers/box/logs?stdout=1&since=1.5&tail=5&timestamps=1", None).await;
    assert_eq!((reply.status, reply.kind.as_str()), (200, "application/vnd.docker.multiplexed-stream"));
    for part in ["stdout=true", "since_ns=1500000000", "tail=5", "timestamps=true", "follow=false"] {
        assert!(reply.body.contains(part), "{part} in {}", reply.body);
    }
}

#[tokio::test]
async fn events_come_live_and_none_twice() {
    let fleet = Fleet::new("live").await;
    let (head, mut stream) = {
        let request = format!("GET /events HTTP/1.1\r\nHost: docker\r\nAuthorization: Bearer {}\r\n\r\n", fleet.token);
        let mut stream = tokio::net::TcpStream::connect(fleet.address).await.expect("connect");
        stream.write_all(request.as_bytes()).await.expect("send");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("the head at once"));
        }
        (String::from_utf8(head).expect("text"), stream)
    };
    assert!(head.contains("application/jsonl"), "{head}");
    for n in 0..20 {
        fleet.create(&format!("c{n}"), &["sleep"], json!({})).await;
    }
    let mut seen = String::new();
    let mut piece = vec![0; 4096];
    while seen.matches("\"Action\":\"create\"").count() < 20 {
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut piece)).await.expect("in time");
        seen.push_str(&String::from_utf8_lossy(&piece[..read.expect("read")]));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(seen.matches("\"Action\":\"create\"").count(), 20);
    for n in 0..20 {
        assert_eq!(seen.matches(&format!("\"name\":\"c{n}\"")).count(), 1);
    }
}
