//! One Docker endpoint under measurement: the same CLI and the same REST calls for everybody.

use std::{
    io::Write as _,
    net::TcpStream,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use serde_json::{Value, json};
use tests::{Rest, Suite, unique};

use crate::wire::Wire;

/// A stream somebody watches until it is dropped.
pub(crate) struct Watcher(TcpStream);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.shutdown(std::net::Shutdown::Both).ok();
    }
}

/// An endpoint.
pub(crate) struct Peer {
    /// Column title.
    pub name: &'static str,
    host: String,
    config: Option<String>,
    token: Option<String>,
    rest: Rest,
}

impl Peer {
    pub(crate) fn wharfage(suite: &Suite) -> Self {
        Self {
            name: "Wharfage",
            host: suite.var("DOCKER_HOST").to_owned(),
            config: Some(suite.var("DOCKER_CONFIG").to_owned()),
            token: Some(suite.var("WHARFAGE_TOKEN").to_owned()),
            rest: suite.rest(),
        }
    }

    pub(crate) fn plain(name: &'static str, port: u16) -> Self {
        Self {
            name,
            host: format!("tcp://127.0.0.1:{port}"),
            config: None,
            token: None,
            rest: Rest::to(&format!("http://127.0.0.1:{port}"), None),
        }
    }

    /// The image is there, caches are filled.
    pub(crate) fn warm_up(&self) {
        for _ in 0..3 {
            self.run_rm();
        }
    }

    fn docker(&self, args: &[&str]) -> bool {
        let mut command = Command::new("docker");
        command.args(args).env("DOCKER_HOST", &self.host).stdin(Stdio::null()).stdout(Stdio::null());
        if let Some(config) = &self.config {
            command.env("DOCKER_CONFIG", config);
        }
        command.status().is_ok_and(|status| status.success())
    }

    pub(crate) fn run_rm(&self) -> f64 {
        timed(|| assert!(self.docker(&["run", "--rm", "busybox", "true"]), "{}: docker run failed", self.name))
    }

    /// Whether it is the suite.
    pub(crate) fn is_ours(&self) -> bool {
        self.token.is_some()
    }

    pub(crate) fn pull(&self, image: &str) -> f64 {
        timed(|| assert!(self.docker(&["pull", "--quiet", image]), "{}: docker pull failed", self.name))
    }

    /// The image's own command in a container that goes with it.
    pub(crate) fn run_from(&self, image: &str) -> f64 {
        timed(|| assert!(self.docker(&["run", "--rm", image]), "{}: docker run failed", self.name))
    }

    pub(crate) fn remove_image(&self, image: &str) {
        assert!(self.docker(&["rmi", image]), "{}: docker rmi failed", self.name);
    }

    pub(crate) fn exec_true(&self, container: &str) {
        assert!(self.docker(&["exec", container, "true"]), "{}: docker exec failed", self.name);
    }

    pub(crate) fn create(&self, name: &str, command: &[&str]) -> String {
        self.create_from(name, &json!({"Image": "busybox", "Cmd": command}))
    }

    pub(crate) fn create_from(&self, name: &str, body: &Value) -> String {
        let reply = self.rest.post(&format!("/v1.41/containers/create?name={name}"), body);
        assert_eq!(reply.status, 201, "{}: {reply:?}", self.name);
        reply.json()["Id"].as_str().expect("an id").to_owned()
    }

    fn call(&self, method: &str, path: &str) -> Value {
        let reply = self.rest.send(method, &format!("/v1.41{path}"), None);
        assert!(reply.status < 300, "{}: {method} {path}: {reply:?}", self.name);
        serde_json::from_str(&reply.body).unwrap_or(Value::Null)
    }

    pub(crate) fn start(&self, id: &str) {
        self.call("POST", &format!("/containers/{id}/start"));
    }

    pub(crate) fn remove(&self, id: &str) {
        self.call("DELETE", &format!("/containers/{id}?force=1"));
    }

    /// A running container that does nothing.
    pub(crate) fn sleeper(&self, stem: &str) -> String {
        let id = self.create(&unique(stem), &["sleep", "3600"]);
        self.start(&id);
        id
    }

    /// Warm image; the clock stops when `start` has answered.
    pub(crate) fn create_and_start(&self) -> f64 {
        let mut id = String::new();
        let ms = timed(|| {
            id = self.create(&unique("bench"), &["sleep", "60"]);
            self.start(&id);
        });
        self.remove(&id);
        ms
    }

    /// create, start, wait, rm of a container that ends at once.
    pub(crate) fn cycle(&self) -> f64 {
        timed(|| {
            let id = self.create(&unique("bench"), &["true"]);
            self.start(&id);
            self.call("POST", &format!("/containers/{id}/wait"));
            self.call("DELETE", &format!("/containers/{id}"));
        })
    }

    pub(crate) fn remove_running(&self) -> f64 {
        let id = self.sleeper("bench");
        timed(|| self.remove(&id))
    }

    /// Starts a second, `in_flight` at a time, of containers made before.
    pub(crate) fn start_rate(&self, count: usize, in_flight: usize) -> f64 {
        let ids: Vec<String> = (0..count).map(|_| self.create(&unique("bench-rate"), &["true"])).collect();
        let next = AtomicUsize::new(0);
        let began = Instant::now();
        thread::scope(|scope| {
            for _ in 0..in_flight {
                scope.spawn(|| {
                    while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
                        self.start(id);
                    }
                });
            }
        });
        let rate = count as f64 / began.elapsed().as_secs_f64();
        self.remove_many(&ids);
        rate
    }

    /// Whole lives a second, so many at a time.
    pub(crate) fn cycle_rate(&self, count: usize, in_flight: usize) -> f64 {
        let next = AtomicUsize::new(0);
        let began = Instant::now();
        thread::scope(|scope| {
            for _ in 0..in_flight {
                scope.spawn(|| {
                    while next.fetch_add(1, Ordering::Relaxed) < count {
                        self.cycle();
                    }
                });
            }
        });
        count as f64 / began.elapsed().as_secs_f64()
    }

    /// The list's bytes: what the client makes of them is not the peer's.
    pub(crate) fn list_all(&self, wire: &mut Wire) -> Vec<u8> {
        let (status, list) = wire.request("GET", "/v1.41/containers/json?all=1", "");
        assert_eq!(status, 200, "{}: list", self.name);
        list
    }

    /// A connection of its own.
    pub(crate) fn wire(&self) -> Wire {
        Wire::open(self.host.trim_start_matches("tcp://"), self.token.as_deref())
    }

    /// `true` run in a container, attached, by REST.
    pub(crate) fn exec_attached(&self, container: &str) {
        let asked = json!({"Cmd": ["true"], "AttachStdout": true, "AttachStderr": true}).to_string();
        let (status, reply) = self.wire().request("POST", &format!("/v1.41/containers/{container}/exec"), &asked);
        assert_eq!(status, 201, "{}: exec", self.name);
        let reply: Value = serde_json::from_slice(&reply).expect("JSON");
        let path = format!("/v1.41/exec/{}/start", reply["Id"].as_str().expect("an id"));
        assert_eq!(self.wire().hijack(&path, r#"{"Detach":false,"Tty":false}"#), b"", "{}: true is silent", self.name);
    }

    pub(crate) fn wait(&self, id: &str) {
        self.call("POST", &format!("/containers/{id}/wait"));
    }

    /// A `stats` stream; it ends when it is dropped.
    pub(crate) fn open_stats(&self, id: &str) -> Watcher {
        let mut stream = TcpStream::connect(self.host.trim_start_matches("tcp://")).expect("the peer listens");
        let token = self.token.as_deref().unwrap_or_default();
        let head = format!(
            "GET /v1.41/containers/{id}/stats HTTP/1.1\r\nHost: docker\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("the peer reads");
        let mut reading = stream.try_clone().expect("a file descriptor");
        // Somebody must take what comes, or the peer would be held back and seem cheap.
        thread::spawn(move || std::io::copy(&mut reading, &mut std::io::sink()));
        Watcher(stream)
    }

    /// A file into a container.
    pub(crate) fn copy_in(&self, from: &std::path::Path, to: &str) {
        assert!(self.docker(&["cp", "-q", &from.display().to_string(), to]), "{}: docker cp failed", self.name);
    }

    /// stdout in the log, without frames.
    pub(crate) fn stdout(&self, id: &str) -> Vec<u8> {
        let (status, log) = self.wire().request("GET", &format!("/v1.41/containers/{id}/logs?stdout=1"), "");
        assert_eq!(status, 200, "{}: logs", self.name);
        let (mut rest, mut payload) = (log.as_slice(), Vec::with_capacity(log.len()));
        while let Some((head, after)) = rest.split_first_chunk::<8>() {
            let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
            payload.extend_from_slice(&after[..length]);
            rest = &after[length..];
        }
        payload
    }

    pub(crate) fn remove_many(&self, ids: &[String]) {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
                        self.remove(id);
                    }
                });
            }
        });
    }
}

fn timed(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64() * 1_000.0
}
