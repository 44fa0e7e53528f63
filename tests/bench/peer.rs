//! One Docker endpoint under measurement: the same CLI and the same REST calls for everybody.

use std::{
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use serde_json::{Value, json};
use tests::{Rest, Suite, unique};

/// An endpoint.
pub(crate) struct Peer {
    /// Column title.
    pub name: &'static str,
    host: String,
    config: Option<String>,
    rest: Rest,
}

impl Peer {
    pub(crate) fn wharfage(suite: &Suite) -> Self {
        Self {
            name: "Wharfage",
            host: suite.var("DOCKER_HOST").to_owned(),
            config: Some(suite.var("DOCKER_CONFIG").to_owned()),
            rest: suite.rest(),
        }
    }

    pub(crate) fn plain(name: &'static str, port: u16) -> Self {
        Self {
            name,
            host: format!("tcp://127.0.0.1:{port}"),
            config: None,
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

    pub(crate) fn exec_true(&self, container: &str) {
        assert!(self.docker(&["exec", container, "true"]), "{}: docker exec failed", self.name);
    }

    fn create(&self, name: &str, command: &[&str]) -> String {
        let body = json!({"Image": "busybox", "Cmd": command});
        let reply = self.rest.post(&format!("/v1.41/containers/create?name={name}"), &body);
        assert_eq!(reply.status, 201, "{}: {reply:?}", self.name);
        reply.json()["Id"].as_str().expect("an id").to_owned()
    }

    fn call(&self, method: &str, path: &str) -> Value {
        let reply = self.rest.send(method, &format!("/v1.41{path}"), None);
        assert!(reply.status < 300, "{}: {method} {path}: {reply:?}", self.name);
        serde_json::from_str(&reply.body).unwrap_or(Value::Null)
    }

    fn start(&self, id: &str) {
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

    pub(crate) fn create_many(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.create(&unique("bench-list"), &["true"])).collect()
    }

    pub(crate) fn list_all(&self, at_least: usize) {
        let list = self.call("GET", "/containers/json?all=1");
        assert!(list.as_array().is_some_and(|list| list.len() >= at_least), "{}: a short list", self.name);
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
