//! A control plane as a test harness: the scheduler's and image-svc's documents over real mutual TLS,
//! a real agent process, real shims, runc and overlay. Layers are made here from busybox.

#![allow(dead_code, clippy::allow_attributes, reason = "every test binary uses a part of it")]

pub(crate) mod netns;

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use chassis::{
    Caller, ClientAuth, ClientTls, Common, Ctx, ExpectedPeer, Server, ServerTls,
    axum::{Json, Router, body::Body, extract::State, http::StatusCode, response::Response, routing},
    client::Internal,
    pki::{Authority, Usage},
    tls,
};
use contract::{
    agent::{AttachQuery, LogsQuery, STREAM_PROTOCOL},
    host::{ExecReport, HostDelta, HostReport, JoinReply, JoinRequest, PlannedContainer, PlannedImage},
};
use model::{
    ContainerId, ContainerSpec, Desired, Digest, ExecId, HostId, LayerDescriptor, LayerEncoding, Observed, Phase,
    ProjectId,
};
use tokio::sync::{broadcast, watch};

/// What the agent sees of the world.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) control: Control,
    pub(crate) agent_address: SocketAddr,
    agent: Option<Child>,
    gateway: Option<Internal>,
    cgroup_parent: String,
    name: String,
}

/// The fake scheduler and image-svc, shared with their handlers.
#[derive(Clone)]
pub(crate) struct Control(Arc<Inner>);

struct Inner {
    authority: Authority,
    host: HostId,
    plan: Mutex<BTreeMap<ContainerId, PlannedContainer>>,
    networks: Mutex<Vec<contract::host::PlannedNetwork>>,
    generation: Mutex<i64>,
    deltas: broadcast::Sender<HostDelta>,
    seen: watch::Sender<BTreeMap<ContainerId, Observed>>,
    history: Mutex<Vec<(ContainerId, Observed)>>,
    execs: watch::Sender<Vec<ExecReport>>,
    blobs: Mutex<BTreeMap<String, Vec<u8>>>,
    fetched: Mutex<Vec<String>>,
    /// Held while no plan is told.
    silence: tokio::sync::RwLock<()>,
}

impl Control {
    fn new(host: HostId) -> Self {
        Self(Arc::new(Inner {
            authority: Authority::create("test authority").expect("authority"),
            host,
            plan: Mutex::default(),
            networks: Mutex::default(),
            generation: Mutex::new(1),
            deltas: broadcast::channel(64).0,
            seen: watch::channel(BTreeMap::new()).0,
            history: Mutex::default(),
            execs: watch::channel(Vec::new()).0,
            blobs: Mutex::default(),
            fetched: Mutex::default(),
            silence: tokio::sync::RwLock::default(),
        }))
    }

    /// Plans a container, new or changed.
    pub(crate) fn want(&self, container: PlannedContainer) {
        self.0.plan.lock().expect("lock").insert(container.id.clone(), container.clone());
        let mut generation = self.0.generation.lock().expect("lock");
        *generation += 1;
        let networks = self.0.networks.lock().expect("lock").clone();
        let delta = HostDelta {
            generation: *generation,
            full: false,
            containers: vec![container],
            networks,
            ..HostDelta::default()
        };
        let _ = self.0.deltas.send(delta);
    }

    pub(crate) fn want_state(&self, id: &ContainerId, desired: Desired) {
        let mut container = self.0.plan.lock().expect("lock").get(id).expect("is planned").clone();
        container.desired = desired;
        self.want(container);
    }

    /// Drops a container from the plan without a word: an orphan after the next connection.
    pub(crate) fn orphan(&self, id: &ContainerId) {
        self.0.plan.lock().expect("lock").remove(id);
    }

    pub(crate) fn add_network(&self, network: contract::host::PlannedNetwork) {
        self.0.networks.lock().expect("lock").push(network);
    }

    /// Waits until the agent has reported what is asked for.
    pub(crate) async fn until(&self, id: &ContainerId, what: &str, holds: impl Fn(&Observed) -> bool) -> Observed {
        let mut seen = self.0.seen.subscribe();
        let wait = async {
            loop {
                if let Some(observed) = seen.borrow_and_update().get(id).filter(|o| holds(o)) {
                    return observed.clone();
                }
                seen.changed().await.expect("the control plane lives");
            }
        };
        match tokio::time::timeout(Duration::from_secs(30), wait).await {
            Ok(observed) => observed,
            Err(_) => panic!("never {what}; last: {:?}", self.0.seen.borrow().get(id)),
        }
    }

    pub(crate) async fn until_phase(&self, id: &ContainerId, run: u32, phase: Phase) -> Observed {
        self.until(id, &format!("{phase:?} in run {run}"), |o| {
            o.progress.phase == phase && (o.progress.run == run || phase == Phase::Removed)
        })
        .await
    }

    pub(crate) fn history(&self, id: &ContainerId) -> Vec<Observed> {
        self.0.history.lock().expect("lock").iter().filter(|(i, _)| i == id).map(|(_, o)| o.clone()).collect()
    }

    /// Waits until the end of an exec was told.
    pub(crate) async fn exec_end(&self, id: &ExecId) -> ExecReport {
        let mut execs = self.0.execs.subscribe();
        let wait = execs.wait_for(|execs| execs.iter().any(|exec| exec.id == *id));
        let told = tokio::time::timeout(Duration::from_secs(30), wait).await.expect("its end is told");
        let told = told.expect("the control plane lives");
        told.iter().find(|exec| exec.id == *id).cloned().expect("just seen")
    }

    /// How often the end of an exec was told.
    pub(crate) fn tellings(&self, id: &ExecId) -> usize {
        self.0.execs.borrow().iter().filter(|exec| exec.id == *id).count()
    }

    /// What was told of it last.
    pub(crate) fn last(&self, id: &ContainerId) -> Observed {
        self.0.seen.borrow().get(id).cloned().expect("was told of")
    }

    /// No plan is told while this is held.
    pub(crate) async fn silence(&self) -> tokio::sync::RwLockWriteGuard<'_, ()> {
        self.0.silence.write().await
    }

    pub(crate) fn fetches(&self) -> usize {
        self.0.fetched.lock().expect("lock").len()
    }

    /// Serves a blob as a layer.
    pub(crate) fn add_layer(&self, tar: &[u8], blob: Vec<u8>, encoding: LayerEncoding) -> LayerDescriptor {
        let digest = Digest::sha256(chassis::ids::sha256(&blob));
        let size_bytes = blob.len() as u64;
        self.0.blobs.lock().expect("lock").insert(digest.to_string(), blob);
        LayerDescriptor { digest, diff_id: Digest::sha256(chassis::ids::sha256(tar)), size_bytes, encoding }
    }
}

async fn join(State(control): State<Control>, Json(request): Json<JoinRequest>) -> Result<Json<JoinReply>, StatusCode> {
    if request.token != "whf_join" {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let name = format!("host:{}", control.0.host);
    let certificate_pem = control.0.authority.sign_csr(&request.csr_pem, &name, 1).expect("signs");
    let ca_pem = control.0.authority.cert_pem().to_owned();
    Ok(Json(JoinReply { host: control.0.host, certificate_pem, ca_pem }))
}

async fn plan(State(control): State<Control>, caller: Caller) -> Response {
    assert_eq!(caller.host_id(), Some(control.0.host), "the host shows its certificate");
    drop(control.0.silence.read().await);
    let deltas = control.0.deltas.subscribe();
    let first = HostDelta {
        generation: *control.0.generation.lock().expect("lock"),
        full: true,
        containers: control.0.plan.lock().expect("lock").values().cloned().collect(),
        networks: control.0.networks.lock().expect("lock").clone(),
        volumes: Vec::new(),
    };
    let line = |delta: &HostDelta| format!("{}\n", serde_json::to_string(delta).expect("is JSON"));
    let begin = (Some(line(&first)), deltas);
    let lines = futures::stream::unfold(begin, move |(first, mut deltas)| async move {
        if let Some(first) = first {
            return Some((Ok::<_, std::io::Error>(first), (None, deltas)));
        }
        let delta = deltas.recv().await.ok()?;
        Some((Ok(format!("{}\n", serde_json::to_string(&delta).expect("is JSON"))), (None, deltas)))
    });
    Response::new(Body::from_stream(lines))
}

/// The store's guard, in memory: only what is further counts.
async fn report(State(control): State<Control>, Json(report): Json<HostReport>) -> StatusCode {
    control.0.execs.send_modify(|execs| execs.extend(report.execs));
    control.0.seen.send_if_modified(|seen| {
        let mut moved = false;
        for told in report.containers {
            let further = seen.get(&told.id).is_none_or(|before| {
                before.order() < told.observed.order() || before.prepare_error != told.observed.prepare_error
            });
            if further {
                control.0.history.lock().expect("lock").push((told.id.clone(), told.observed.clone()));
                if told.observed.progress.phase == Phase::Removed {
                    control.0.plan.lock().expect("lock").remove(&told.id);
                }
                seen.insert(told.id, told.observed);
                moved = true;
            }
        }
        moved
    });
    StatusCode::NO_CONTENT
}

async fn layer(
    State(control): State<Control>,
    caller: Caller,
    chassis::axum::extract::Path(digest): chassis::axum::extract::Path<String>,
) -> Result<Vec<u8>, StatusCode> {
    assert_eq!(caller.host_id(), Some(control.0.host), "the host shows its certificate");
    control.0.fetched.lock().expect("lock").push(digest.clone());
    control.0.blobs.lock().expect("lock").get(&digest).cloned().ok_or(StatusCode::NOT_FOUND)
}

impl World {
    /// Starts a control plane and an agent that joins it.
    pub(crate) async fn begin(name: &str) -> Self {
        tls::install_provider();
        let dir = tempfile::Builder::new().prefix(&format!("wt-agent-{name}-")).tempdir().expect("temporary directory");
        // A container's init walks to its root as a user of its own.
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).expect("permissions");
        let control = Control::new(HostId(chassis::ids::uuid_v7()));
        let scheduler = serve(&dir, &control, "scheduler").await;
        let image = serve(&dir, &control, "image").await;
        let agent_address = free_address();
        let mut world = Self {
            control,
            agent_address,
            agent: None,
            gateway: None,
            cgroup_parent: format!("/wt-agent-{name}-{}", std::process::id()),
            name: name.to_owned(),
            dir,
        };
        let config = world.config(scheduler, image);
        std::fs::write(world.path("agent.toml"), config).expect("writes");
        world.start_agent().await;
        world
    }

    fn config(&self, scheduler: SocketAddr, image: SocketAddr) -> String {
        let path = |name: &str| self.path(name).display().to_string();
        format!(
            "listen = \"{}\"\nadvertise_address = \"127.0.0.1\"\nname = \"{}\"\n\
             scheduler_url = \"https://{scheduler}\"\nimage_url = \"https://{image}\"\n\
             gateway_url = \"https://{image}\"\njoin_token = \"whf_join\"\n\
             ca = \"{}\"\ndata_dir = \"{}\"\nrun_dir = \"{}\"\nnetd_socket = \"{}\"\nshim_path = \"{}\"\n\
             cgroup_parent = \"{}\"\n[common]\nlog_json = false\nlog = \"info\"\n",
            self.agent_address,
            self.name,
            path("ca.pem"),
            path("data"),
            path("run"),
            path("netd.sock"),
            program("wharfage-shim").expect("cargo build -p shim first").display(),
            self.cgroup_parent,
        )
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) async fn start_agent(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("agent.log")).expect("opens");
        let child = Command::new(env!("CARGO_BIN_EXE_node-agent"))
            .arg("--config")
            .arg(self.path("agent.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("clones"))
            .stderr(log)
            .spawn()
            .expect("the agent starts");
        self.agent = Some(child);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while tokio::net::TcpStream::connect(self.agent_address).await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "the agent does not listen:\n{}", self.agent_log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn agent_log(&self) -> String {
        std::fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    /// SIGKILL: nothing is said, nothing is tidied.
    pub(crate) fn kill_agent(&mut self) {
        let mut child = self.agent.take().expect("an agent runs");
        child.kill().expect("kills");
        child.wait().expect("waits");
    }

    /// Power is lost: the agent, the shims, every container, and what the kernel and `/run` held of them.
    pub(crate) fn reboot(&mut self) {
        self.kill_agent();
        let run_dir = self.path("run").display().to_string();
        for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains(&run_dir) {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
        }
        let parent = self.cgroup_parent.clone();
        runtime::cgroup::remove(&parent, Duration::from_secs(10)).expect("nothing lives on");
        // The last of the dying may still unmount what they held themselves.
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            let table = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
            let below = table.lines().filter_map(|line| line.split(' ').nth(4)).filter(|at| at.starts_with(&run_dir));
            for at in below.collect::<Vec<_>>().iter().rev() {
                let _ = nix::mount::umount2(*at, nix::mount::MntFlags::MNT_DETACH);
            }
            match std::fs::remove_dir_all(self.path("run")) {
                Ok(()) => break,
                Err(e) => assert!(std::time::Instant::now() < deadline, "a file system in memory: {e}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        std::fs::write(self.path("data/boot"), "another boot").expect("writes");
    }

    /// The agent's API, with the gateway's certificate.
    pub(crate) fn gateway(&mut self) -> Internal {
        self.gateway
            .get_or_insert_with(|| client(self.dir.path(), &self.control, "service:gateway", self.agent_address))
            .clone()
    }

    pub(crate) fn someone_else(&self, name: &str) -> Internal {
        client(self.dir.path(), &self.control, name, self.agent_address)
    }

    pub(crate) async fn logs(&mut self, id: &ContainerId, query: &LogsQuery) -> Vec<(u8, String)> {
        frames(&self.raw_logs(id, query).await)
    }

    pub(crate) async fn raw_logs(&mut self, id: &ContainerId, query: &LogsQuery) -> Vec<u8> {
        let path = format!("/containers/v1/{id}/logs");
        let response = self.gateway().stream(chassis::axum::http::Method::GET, &path, Some(query), None::<&()>).await;
        response.expect("answers").bytes().await.expect("ends").to_vec()
    }

    /// What the container wrote to its standard output, as soon as that holds: that it runs does not
    /// say that its first process came as far as writing. What was written last, after ten seconds.
    pub(crate) async fn output_once(&mut self, id: &ContainerId, holds: impl Fn(&str) -> bool) -> String {
        let everything = LogsQuery { stdout: true, ..LogsQuery::default() };
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            let told = text(&self.logs(id, &everything).await, 1);
            if holds(&told) || std::time::Instant::now() > deadline {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn attach(&mut self, id: &ContainerId, query: AttachQuery) -> chassis::reqwest::Upgraded {
        let path = format!("/containers/v1/{id}/attach");
        self.gateway().upgrade(&path, STREAM_PROTOCOL, Some(&query), None::<&()>).await.expect("upgrades")
    }

    pub(crate) fn cgroup_of(&self, id: &ContainerId) -> Vec<PathBuf> {
        let inner = format!("{}/{id}", self.cgroup_parent.trim_start_matches('/'));
        let roots = std::fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten().map(|e| e.path().join(&inner));
        roots.chain([Path::new("/sys/fs/cgroup").join(&inner)]).filter(|p| p.exists()).collect()
    }

    /// Command lines of what runs in a container.
    pub(crate) fn processes_of(&self, id: &ContainerId) -> Vec<String> {
        let pids = runtime::cgroup::pids_in(&format!("{}/{id}", self.cgroup_parent));
        let line = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok();
        pids.into_iter().filter_map(line).map(|text| text.replace('\0', " ").trim().to_owned()).collect()
    }

    /// Everything mounted but the projects' namespaces, which stay for the next container.
    pub(crate) fn mounts(&self) -> Vec<String> {
        let prefix = self.dir.path().display().to_string();
        let pins = format!("{prefix}/run/namespaces/");
        let text = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        text.lines().filter(|l| l.contains(&prefix) && !l.contains(&pins)).map(str::to_owned).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- agent's log\n{}", self.agent_log());
        }
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        let purge = Command::new(env!("CARGO_BIN_EXE_node-agent"))
            .arg("purge")
            .arg("--config")
            .arg(self.path("agent.toml"))
            .status();
        if !std::thread::panicking() {
            assert!(purge.expect("purge runs").success(), "purge leaves nothing");
            assert!(self.mounts().is_empty());
            assert!(!self.path("run").exists());
        }
    }
}

/// A program of the workspace beside this package's own, if it was built.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_node-agent")).with_file_name(name);
    path.exists().then_some(path)
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("has one")
}

fn client(dir: &Path, control: &Control, name: &str, at: SocketAddr) -> Internal {
    let (cert, key) = control.0.authority.issue(name, &[Usage::Client], 1).expect("issues");
    let file = |kind: &str, text: &str| {
        let path = dir.join(format!("{}-{kind}.pem", name.replace(':', "-")));
        std::fs::write(&path, text).expect("writes");
        path
    };
    let files = ClientTls { ca: dir.join("ca.pem"), cert: Some(file("cert", &cert)), key: Some(file("key", &key)) };
    let http = tls::client(&files, ExpectedPeer::host(control.0.host)).expect("client");
    Internal::new(&format!("https://{at}"), http).expect("client")
}

async fn serve(dir: &tempfile::TempDir, control: &Control, name: &str) -> SocketAddr {
    let (cert, key) = control.0.authority.issue(&format!("service:{name}"), &[Usage::Server], 1).expect("issues");
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, control.0.authority.cert_pem()).expect("writes");
    let (cert_path, key_path) = (dir.path().join(format!("{name}.pem")), dir.path().join(format!("{name}-key.pem")));
    std::fs::write(&cert_path, cert).expect("writes");
    std::fs::write(&key_path, key).expect("writes");
    let router = Router::new()
        .route(contract::host::JOIN, routing::post(join))
        .route(contract::host::PLAN, routing::get(plan))
        .route(contract::host::REPORT, routing::post(report))
        .route("/hosts/v1/layers/{digest}", routing::get(layer))
        .with_state(control.clone());
    let files = ServerTls { cert: cert_path, key: key_path, client_auth: ClientAuth::Optional { ca }, http2: false };
    let server = Server::tcp("127.0.0.1:0".parse().expect("an address"), router).with_tls(files);
    let ctx = Ctx::new("test", &Common::default());
    let bound = server.bind(&ctx).await.expect("binds");
    let address = bound.local_addr().expect("has one");
    tokio::spawn(bound.serve(chassis::CancellationToken::new()));
    address
}

/// busybox with its common names, packed.
pub(crate) fn busybox(control: &Control) -> PlannedImage {
    let mut tar = tar::Builder::new(Vec::new());
    let program = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(program.len() as u64);
    tar.append_data(&mut header, "bin/busybox", program.as_slice()).expect("appends");
    for name in [
        "sh", "echo", "cat", "sleep", "true", "false", "ls", "id", "seq", "stty", "kill", "ip", "wc", "env", "touch",
        "dd",
    ] {
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        tar.append_link(&mut link, format!("bin/{name}"), "busybox").expect("appends");
    }
    let mut file = |path: &str, text: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, path, text.as_bytes()).expect("appends");
    };
    file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/:/bin/sh\n");
    file("etc/group", "root:x:0:\nweb:x:1000:\n");
    let tar = tar.into_inner().expect("finishes");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&tar).expect("packs");
    let layer = control.add_layer(&tar, packed.finish().expect("packs"), LayerEncoding::Gzip);
    let mut second = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(6);
    second.append_data(&mut header, "second", &b"layer\n"[..]).expect("appends");
    let second = second.into_inner().expect("finishes");
    let second_layer =
        control.add_layer(&second, zstd::encode_all(second.as_slice(), 3).expect("packs"), LayerEncoding::Zstd);
    PlannedImage { id: Digest::sha256([9; 32]), layers: vec![layer, second_layer] }
}

/// A container that runs a shell command, without a network.
pub(crate) fn shell(image: &PlannedImage, command: &str) -> PlannedContainer {
    let spec = ContainerSpec {
        image: "busybox".into(),
        cmd: vec!["sh".into(), "-c".into(), command.into()],
        network_none: true,
        ..ContainerSpec::default()
    };
    PlannedContainer {
        uid_base: Some(0x7ffe_0000),
        id: ContainerId::from_bytes(chassis::ids::random_hex_id()),
        project: ProjectId(chassis::ids::uuid_v7()),
        name: "box".parse().expect("a name"),
        desired: Desired::Created,
        spec,
        image: image.clone(),
        endpoints: Vec::new(),
        ports: Vec::new(),
        linked: Vec::new(),
    }
}

/// Docker's frames taken apart.
pub(crate) fn frames(mut bytes: &[u8]) -> Vec<(u8, String)> {
    let mut frames = Vec::new();
    while bytes.len() >= 8 {
        let length = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
        frames.push((bytes[0], String::from_utf8_lossy(&bytes[8..8 + length]).into_owned()));
        bytes = &bytes[8 + length..];
    }
    assert!(bytes.is_empty(), "a broken frame");
    frames
}

/// Both streams from the beginning.
pub(crate) fn all_logs() -> LogsQuery {
    LogsQuery { stdout: true, stderr: true, ..LogsQuery::default() }
}

/// The text of one stream.
pub(crate) fn text(frames: &[(u8, String)], stream: u8) -> String {
    frames.iter().filter(|(s, _)| *s == stream).map(|(_, t)| t.as_str()).collect()
}
