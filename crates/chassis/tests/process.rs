//! A whole process by `chassis::main`: configuration from file and environment, logs, ops endpoints,
//! drain on a signal, exit codes. This binary is its own test driver: started again with a variable
//! set it is the service.

use std::{
    io::{BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use chassis::{
    App, Common, Ctx, Endless, Server,
    axum::{Extension, Router, body::Body, routing::get},
};
use futures::StreamExt as _;
use serde::Deserialize;

const CHILD: &str = "CHASSIS_TEST_CHILD";

#[derive(Deserialize)]
struct Config {
    #[expect(dead_code, reason = "read by the chassis")]
    common: Common,
    listen: SocketAddr,
    greeting: String,
}

async fn build(config: Config, ctx: Ctx) -> anyhow::Result<App> {
    let cancel = ctx.cancel();
    ctx.spawn("background", async move { cancel.cancelled().await });
    let greeting: &'static str = config.greeting.leak();
    let died = ctx.clone();
    let router = Router::new()
        .route("/", get(async move || greeting))
        .route(
            "/slow",
            get(async || {
                tokio::time::sleep(Duration::from_millis(400)).await;
                "slow but done"
            }),
        )
        .route(
            "/endless",
            get(async || {
                let ticks = futures::stream::repeat_with(|| Ok::<_, std::io::Error>("tick\n")).then(async |tick| {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    tick
                });
                (Extension(Endless), Body::from_stream(ticks))
            }),
        )
        .route("/die", get(async move || died.spawn("doomed", async { panic!("doomed") })));
    Ok(App { servers: vec![Server::tcp(config.listen, router)] })
}

struct Process {
    child: Child,
    address: SocketAddr,
    ops: SocketAddr,
    logs: BufReader<std::process::ChildStderr>,
}

fn command(text: &str, dir: &std::path::Path) -> Command {
    let config = dir.join("service.toml");
    std::fs::write(&config, text).expect("write");
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.env(CHILD, "1").env("WHARFAGE_CONFIG_FILE", config).stderr(Stdio::piped());
    command
}

const CONFIG: &str = "listen = \"127.0.0.1:0\"\ngreeting = \"from the file\"\n[common]\nops_listen = \"127.0.0.1:0\"\n";

fn start(dir: &std::path::Path) -> Process {
    let mut command = command(CONFIG, dir);
    let mut child = command.env("WHARFAGE__GREETING", "from the environment").spawn().expect("spawn");
    let mut logs = BufReader::new(child.stderr.take().expect("stderr"));
    let mut listening = Vec::new();
    loop {
        let line = next_line(&mut logs).expect("a line before the end");
        match line["message"].as_str() {
            Some("listening") => listening.push(line["address"].as_str().expect("text").parse().expect("address")),
            Some("ready") => break,
            _ => {}
        }
    }
    Process { child, address: listening[0], ops: listening[1], logs }
}

fn next_line(logs: &mut impl std::io::BufRead) -> Option<serde_json::Value> {
    let mut line = String::new();
    logs.read_line(&mut line).expect("read");
    (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: not JSON: {line}")))
}

fn request(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connect");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\nConnection: close\r\n\r\n").expect("write");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("read");
    text
}

fn terminate(child: &Child) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
}

fn it_serves_logs_and_drains() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut process = start(dir.path());
    let answer = request(process.address, "/");
    assert!(answer.ends_with("from the environment"), "{answer}");
    assert!(
        answer.contains("\r\nx-request-id: ") && !answer.contains("x-request-id: mine"),
        "an id of a stranger is not taken"
    );
    let line = next_line(&mut process.logs).expect("access log");
    assert_eq!((&line["route"], &line["status"], &line["service"]), (&"/".into(), &200.into(), &"sample".into()));
    assert!(line["duration_ms"].is_number() && line["request_id"].is_string());
    assert!(request(process.ops, "/readyz").starts_with("HTTP/1.1 200"));

    let slow = std::thread::spawn({
        let address = process.address;
        move || request(address, "/slow")
    });
    std::thread::sleep(Duration::from_millis(100));
    terminate(&process.child);
    assert!(slow.join().expect("join").ends_with("slow but done"), "a request in progress is finished");
    assert_eq!(process.child.wait().expect("wait").code(), Some(0));
    assert!(TcpStream::connect(process.address).is_err());
    while next_line(&mut process.logs).is_some() {}
}

fn an_endless_answer_does_not_keep_a_process_that_stops() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut process = start(dir.path());
    let mut stream = TcpStream::connect(process.address).expect("connect");
    write!(stream, "GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").expect("write");
    let mut first = [0; 17];
    stream.read_exact(&mut first).expect("a head");
    assert_eq!(&first, b"HTTP/1.1 200 OK\r\n");
    terminate(&process.child);
    let began = Instant::now();
    assert_eq!(process.child.wait().expect("wait").code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(2), "it took {:?} to stop", began.elapsed());
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a cut answer must not look complete");
}

fn a_dead_background_task_ends_the_process() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut process = start(dir.path());
    request(process.address, "/die");
    assert_eq!(process.child.wait().expect("wait").code(), Some(1));
}

fn bad_configuration_is_refused_with_the_key() {
    let dir = tempfile::tempdir().expect("tempdir");
    let text = format!("greting = \"oops\"\n{CONFIG}");
    let output = command(&text, dir.path()).output().expect("run");
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("greting"), "{told}");
}

fn main() -> ExitCode {
    if std::env::var_os(CHILD).is_some() {
        return chassis::main("sample", build);
    }
    // `cargo test <filter>` and `--list` come as arguments.
    if std::env::args().any(|a| a == "--list") {
        return ExitCode::SUCCESS;
    }
    it_serves_logs_and_drains();
    an_endless_answer_does_not_keep_a_process_that_stops();
    a_dead_background_task_ends_the_process();
    bad_configuration_is_refused_with_the_key();
    println!("process: 4 passed");
    ExitCode::SUCCESS
}
