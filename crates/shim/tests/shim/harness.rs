//! A container of busybox in a temporary directory, and a client of its shim.

use std::{
    cell::Cell,
    fs,
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use runtime::{
    ExecProcess, RunDir, SandboxSpec, Sealed, cgroup, exec_process,
    protocol::{
        self, Event, ExecBy, ExecRecord, ExecRequest, ExitRecord, LogTarget, Reply, Request, RuntimeConfig, ShimConfig,
    },
    write_bundle,
};

pub(crate) use runtime::protocol::StartBy;

use crate::users::Users;

/// The shim as built for the tests, or the one of the environment, to measure a release build.
pub(crate) fn shim_program() -> PathBuf {
    std::env::var_os("WHARFAGE_SHIM").unwrap_or_else(|| env!("CARGO_BIN_EXE_wharfage-shim").into()).into()
}

/// Each test twice: with containers that the OCI runtime starts, and with those the shim starts itself.
macro_rules! started_by_both {
    ($($name:ident,)*) => {
        mod started_by_the_runtime {
            $(#[test] fn $name() { crate::harness::started_by(runtime::protocol::StartBy::Runtime, super::$name) })*
        }
        mod started_by_the_shim {
            $(#[test] fn $name() { crate::harness::started_by(runtime::protocol::StartBy::Shim, super::$name) })*
        }
    };
}
pub(crate) use started_by_both;

thread_local! {
    static STARTED_BY: Cell<StartBy> = const { Cell::new(StartBy::Runtime) };
}

/// Runs a test with containers that are started so. Those it makes in threads of its own are not.
pub(crate) fn started_by(by: StartBy, test: impl FnOnce()) {
    STARTED_BY.set(by);
    test();
}

const PATIENCE: Duration = Duration::from_secs(20);

/// What a test may change before the container is prepared.
pub(crate) struct Recipe {
    pub(crate) sandbox: SandboxSpec,
    pub(crate) config: ShimConfig,
    pub(crate) rootfs: PathBuf,
    /// For measuring what the profile costs.
    pub(crate) without_seccomp: bool,
}

/// A prepared container with a live shim.
pub(crate) struct Container {
    pub(crate) run_dir: RunDir,
    pub(crate) bundle: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) cgroup_path: String,
    /// How long the shim took to be ready.
    pub(crate) spawned_in: Duration,
    dir: tempfile::TempDir,
    _users: Option<Users>,
}

/// A program of the shell in a container.
pub(crate) fn shell(script: &str) -> Container {
    container(&["sh", "-c", script], |_| {})
}

/// A container with everything default but what `change` changes.
pub(crate) fn container(argv: &[&str], change: impl FnOnce(&mut Recipe)) -> Container {
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    let rootfs = dir.path().join("rootfs");
    busybox_root(&rootfs);
    let id = unique_id();
    let cgroup_path = cgroup::path_for(&id);
    let log = dir.path().join("c-json.log");
    let bundle = dir.path().join("bundle");
    let sandbox = SandboxSpec {
        id: id.clone(),
        argv: argv.iter().map(|a| (*a).to_owned()).collect(),
        hostname: "box".into(),
        rootfs: rootfs.clone(),
        cgroup_path: cgroup_path.clone(),
        ..SandboxSpec::default()
    };
    let config = ShimConfig {
        id,
        run: 7,
        restart: 1,
        bundle: bundle.to_string_lossy().into_owned(),
        runtime: RuntimeConfig {
            name: "runc".into(),
            path: "/usr/sbin/runc".into(),
            root: dir.path().join("runc").to_string_lossy().into_owned(),
            exec: ExecBy::Runtime,
            start: StartBy::Runtime,
        },
        log: Some(LogTarget { path: log.to_string_lossy().into_owned(), max_size_bytes: 0, max_files: 1 }),
        tty: false,
        open_stdin: false,
        stdin_once: false,
        cgroup_path: cgroup_path.clone(),
        console_size: None,
        root_id: None,
        docker_socket: false,
    };
    let mut recipe = Recipe { sandbox, config, rootfs, without_seccomp: false };
    change(&mut recipe);
    let by_shim = STARTED_BY.get() == StartBy::Shim;
    let users = (by_shim && recipe.sandbox.userns.is_none()).then(|| {
        // What the shim starts is in a user namespace.
        recipe.config.runtime.exec = ExecBy::Shim;
        recipe.config.runtime.start = StartBy::Shim;
        let users = Users::new();
        users.own(&mut recipe);
        users
    });
    recipe.sandbox.tty = recipe.config.tty;
    recipe.sandbox.console_size = recipe.config.console_size;
    write_bundle(&bundle, &recipe.sandbox).expect("bundle");
    if recipe.without_seccomp {
        let path = bundle.join("config.json");
        let bytes = fs::read(&path).expect("readable");
        let mut config: serde_json::Value = serde_json::from_slice(&bytes).expect("is JSON");
        config["linux"]["seccomp"] = serde_json::Value::Null;
        fs::write(&path, config.to_string()).expect("writable");
    }
    // As deep as a real one: longer than a socket address.
    let run_dir = RunDir::new(dir.path().join("run".repeat(20)).join("c".repeat(64)));
    fs::create_dir_all(run_dir.path()).expect("run directory");
    run_dir.write_config(&recipe.config).expect("configuration");
    let mut container = Container { run_dir, bundle, log, cgroup_path, spawned_in: Duration::ZERO, dir, _users: users };
    let begun = Instant::now();
    container.spawn_shim();
    container.spawned_in = begun.elapsed();
    container
}

fn unique_id() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("wt{}n{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn busybox_root(root: &Path) {
    for dir in ["bin", "etc", "tmp", "dev", "proc", "sys", "root"] {
        fs::create_dir_all(root.join(dir)).expect("directory");
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("permissions");
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("static busybox is installed");
    let list = Command::new("/bin/busybox").arg("--list").output().expect("busybox lists its applets");
    for applet in String::from_utf8_lossy(&list.stdout).lines().filter(|a| *a != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).expect("link");
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:100::/tmp:/bin/sh\n")
        .expect("passwd");
    fs::write(root.join("etc/group"), "root:x:0:\nusers:x:100:\nstaff:x:50:web\n").expect("group");
}

impl Container {
    pub(crate) fn spawn_shim(&self) {
        let program = Sealed::of(&shim_program()).expect("the kernel has open_tree");
        let out = self.run_dir.shim_command(&program.path()).output().expect("the shim is built");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }

    pub(crate) fn connect(&self) -> Connection {
        let stream = self.run_dir.connect().expect("the shim answers");
        stream.set_read_timeout(Some(PATIENCE)).expect("time-out");
        Connection { stream, buffer: Vec::new() }
    }

    pub(crate) fn ask(&self, request: &Request) -> Reply {
        self.connect().try_ask(request).unwrap_or_else(|| {
            let told = fs::read_to_string(self.run_dir.shim_log()).unwrap_or_default();
            panic!("the shim did not answer {request:?}; its log: {told:?}")
        })
    }

    pub(crate) fn start(&self) -> Reply {
        let reply = self.ask(&Request::Start { console_size: None });
        if STARTED_BY.get() == StartBy::Shim {
            assert!(self.run_dir.is_started_by_shim(), "it was left to the runtime");
        }
        reply
    }

    pub(crate) fn attach(&self, stdin: bool) -> Connection {
        let mut connection = self.connect();
        let reply = connection.ask(&Request::Attach { stdin, stdout: true, stderr: true });
        assert_eq!(reply, Reply::Done);
        connection
    }

    pub(crate) fn subscribe(&self) -> Connection {
        let mut connection = self.connect();
        assert_eq!(connection.ask(&Request::Subscribe), Reply::Done);
        connection
    }

    /// Starts and waits for the end.
    pub(crate) fn run(&self) -> ExitRecord {
        let mut events = self.subscribe();
        self.start();
        events.wait_exit()
    }

    /// Runs to the end; stdout and stderr as an attached client sees them.
    pub(crate) fn run_attached(&self) -> (String, String, ExitRecord) {
        let attached = self.attach(false);
        let record = self.run();
        let (out, err) = attached.read_frames();
        (out, err, record)
    }

    pub(crate) fn exec(&self, exec: &ExecProcess, streams: [bool; 3]) -> (Connection, Reply) {
        self.exec_as(&unique_id(), exec, streams, false)
    }

    pub(crate) fn exec_as(
        &self,
        id: &str,
        exec: &ExecProcess,
        streams: [bool; 3],
        detach: bool,
    ) -> (Connection, Reply) {
        self.exec_request(ExecRequest { detach, ..self.exec_document(id, exec, streams) })
    }

    pub(crate) fn exec_document(&self, id: &str, exec: &ExecProcess, streams: [bool; 3]) -> ExecRequest {
        let process = exec_process(&self.bundle, exec).expect("process document");
        let [stdin, stdout, stderr] = streams;
        ExecRequest {
            id: id.into(),
            process,
            stdin,
            stdout,
            stderr,
            detach: false,
            tty: exec.tty,
            console_size: exec.console_size,
            lifeline: false,
        }
    }

    pub(crate) fn exec_request(&self, request: ExecRequest) -> (Connection, Reply) {
        let mut connection = self.connect();
        let reply = connection.ask(&Request::Exec(request));
        (connection, reply)
    }

    pub(crate) fn shim_pid(&self) -> i32 {
        let stream = self.run_dir.connect().expect("the shim answers");
        nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials).expect("credentials").pid()
    }

    pub(crate) fn wait_record(&self) -> ExitRecord {
        until(|| self.run_dir.read_exit().expect("readable"))
    }

    pub(crate) fn wait_exec_end(&self, id: &str) -> ExecRecord {
        until(|| self.run_dir.read_exec(id).expect("readable").filter(|r| !r.running))
    }

    /// What the container is called.
    pub(crate) fn id(&self) -> &str {
        self.cgroup_path.rsplit('/').next().expect("has an id")
    }

    pub(crate) fn tty(&self) -> bool {
        self.run_dir.read_config().ok().flatten().is_some_and(|config| config.tty)
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn logged(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().map(|l| serde_json::from_str(l).expect("a log line is a document")).collect()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let Ok(stream) = self.run_dir.connect() else {
            let _ = cgroup::remove(&self.cgroup_path, Duration::from_secs(2));
            return;
        };
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let mut connection = Connection { stream, buffer: Vec::new() };
        let deadline = Instant::now() + Duration::from_secs(5);
        while connection.try_ask(&Request::Bye) != Some(Reply::Done) && Instant::now() < deadline {
            connection.try_ask(&Request::KillAll);
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = cgroup::remove(&self.cgroup_path, Duration::from_secs(2));
    }
}

/// One connection to a shim.
pub(crate) struct Connection {
    pub(crate) stream: UnixStream,
    pub(crate) buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn ask(&mut self, request: &Request) -> Reply {
        self.try_ask(request).expect("the shim answers in time")
    }

    fn try_ask(&mut self, request: &Request) -> Option<Reply> {
        self.stream.write_all(&protocol::encode_line(request).ok()?).ok()?;
        self.line()
    }

    fn line<T: serde::de::DeserializeOwned>(&mut self) -> Option<T> {
        loop {
            if let Some(document) = protocol::take_line(&mut self.buffer).expect("a document of ours") {
                return Some(document);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                // Linux interrupts reads that have a time-out, whatever SA_RESTART says.
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => {
                    eprintln!("read from the shim: {e}");
                    return None;
                }
                Ok(n) => self.buffer.extend_from_slice(&bytes[..n]),
            }
        }
    }

    fn read_some(&mut self, bytes: &mut [u8]) -> usize {
        loop {
            match self.stream.read(bytes) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                read => return read.expect("output in time"),
            }
        }
    }

    pub(crate) fn event(&mut self) -> Event {
        self.line().expect("an event in time")
    }

    pub(crate) fn wait_exit(&mut self) -> ExitRecord {
        loop {
            if let Event::Exited(record) = self.event() {
                return record;
            }
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the shim reads");
    }

    pub(crate) fn end_input(&self) {
        self.stream.shutdown(Shutdown::Write).expect("half-close");
    }

    /// Everything to the end, as it is.
    pub(crate) fn read_raw(mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.buffer);
        self.stream.read_to_end(&mut bytes).expect("the stream ends in time");
        bytes
    }

    /// Everything to the end, unframed: stdout and stderr.
    pub(crate) fn read_frames(self) -> (String, String) {
        let bytes = self.read_raw();
        let mut texts = [Vec::new(), Vec::new()];
        let mut rest = bytes.as_slice();
        while let Some((header, after)) = rest.split_first_chunk::<8>() {
            let (stream, len) = protocol::parse_frame_header(*header).expect("a frame");
            let (payload, after) = after.split_at(len as usize);
            texts[usize::from(stream) - 1].extend_from_slice(payload);
            rest = after;
        }
        assert!(rest.is_empty(), "a torn frame");
        let [out, err] = texts.map(|t| String::from_utf8_lossy(&t).into_owned());
        (out, err)
    }

    /// The payload of the next frame.
    pub(crate) fn read_frame(&mut self) -> String {
        loop {
            if let Some((header, after)) = self.buffer.split_first_chunk::<8>() {
                let (_, len) = protocol::parse_frame_header(*header).expect("a frame");
                if let Some(payload) = after.get(..len as usize) {
                    let text = String::from_utf8_lossy(payload).into_owned();
                    self.buffer.drain(..8 + len as usize);
                    return text;
                }
            }
            let mut bytes = [0; 4096];
            let n = self.read_some(&mut bytes);
            assert!(n > 0, "the stream ended within a frame");
            self.buffer.extend_from_slice(&bytes[..n]);
        }
    }

    /// Reads a raw stream until `text` has come by.
    pub(crate) fn read_until(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        while !String::from_utf8_lossy(&self.buffer).contains(text) {
            assert!(Instant::now() < deadline, "{text:?} never came: {:?}", String::from_utf8_lossy(&self.buffer));
            let mut bytes = [0; 4096];
            let n = self.read_some(&mut bytes);
            assert!(n > 0, "the stream ended before {text:?}: {:?}", String::from_utf8_lossy(&self.buffer));
            self.buffer.extend_from_slice(&bytes[..n]);
        }
        String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned()
    }
}

/// Asks until there is an answer.
pub(crate) fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "nothing in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}
