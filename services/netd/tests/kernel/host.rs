//! A host for one test: a network namespace of its own with a real netd in it. Dropping it leaves
//! nothing behind.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use chassis::client::Internal;
use contract::net::{self, NetAttachment, NetDelta, NetEndpoint, NetNetwork, NetPlan, NetStatus};
use model::{ContainerId, NetworkId, PortProtocol, PublishedPort};
use nix::sched::{CloneFlags, setns};
use tempfile::TempDir;

/// A namespace and its netd.
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) dir: TempDir,
    protected: Vec<String>,
    netd: Option<Child>,
    runtime: tokio::runtime::Runtime,
}

impl Host {
    /// A namespace with `lo` up. Give it links, then [`Host::start`] it.
    pub(crate) fn new(name: &str, address: [u8; 4], protected: &[&str]) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces: run it as root");
        chassis::tls::install_provider();
        let name = format!("wt-netd-{name}-{}", std::process::id());
        run("ip", &["netns", "add", &name]);
        run("ip", &["-n", &name, "link", "set", "lo", "up"]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let dir = tempfile::tempdir().expect("a directory");
        let protected = protected.iter().map(ToString::to_string).collect();
        Self { name, address: address.into(), dir, protected, netd: None, runtime }
    }

    /// The namespace's file.
    pub(crate) fn netns(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("netd.toml")
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("netd.sock")
    }

    /// Starts netd and waits until it answers.
    pub(crate) fn start(&mut self) {
        let dir = self.dir.path().display();
        let config = format!(
            "socket_path = \"{dir}/netd.sock\"\nrun_dir = \"{dir}/run\"\nhost_address = \"{}\"\nprotected = {:?}\n\
             [common]\nlog = \"warn\"\nlog_json = false\n",
            self.address, self.protected,
        );
        std::fs::write(self.config(), config).expect("the configuration");
        let netd = Command::new("nsenter")
            .arg(format!("--net={}", self.netns().display()))
            .arg(binary())
            .arg("--config")
            .arg(self.config())
            .spawn();
        self.netd = Some(netd.expect("netd starts"));
        until("netd answers", || TcpLike::unix(&self.socket()));
    }

    /// Kills netd as a crash would.
    pub(crate) fn kill(&mut self) {
        let mut netd = self.netd.take().expect("it runs");
        netd.kill().expect("killed"); // SIGKILL; nsenter has become netd by exec
        netd.wait().expect("gone");
    }

    pub(crate) fn put(&self, plan: &NetPlan) -> NetStatus {
        let client = Internal::unix(&self.socket()).expect("a client");
        self.runtime.block_on(client.put(net::PLAN, plan)).expect("the plan is taken")
    }

    pub(crate) fn try_delta(&self, delta: &NetDelta) -> Result<NetStatus, model::Error> {
        let client = Internal::unix(&self.socket()).expect("a client");
        self.runtime.block_on(client.post(net::DELTA, delta))
    }

    pub(crate) fn delta(&self, delta: &NetDelta) -> NetStatus {
        self.try_delta(delta).expect("the delta is taken")
    }

    /// How long each of these deltas took, over one connection, with a pause before each.
    pub(crate) fn timed(&self, deltas: &[NetDelta], pause: Duration) -> Vec<Duration> {
        let client = Internal::unix(&self.socket()).expect("a client");
        let took = |delta: &NetDelta| {
            std::thread::sleep(pause);
            let begun = Instant::now();
            let status: NetStatus = self.runtime.block_on(client.post(net::DELTA, delta)).expect("the delta is taken");
            assert!(status.failed.is_empty(), "{:?}", status.failed);
            begun.elapsed()
        };
        deltas.iter().map(took).collect()
    }

    /// Time the kernel thread spent on a processor so far; a busy machine does not lengthen it.
    pub(crate) fn worked(&self) -> Duration {
        let pid = self.netd.as_ref().expect("it runs").id();
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("readable").flatten().map(|e| e.path());
        let named = |task: &PathBuf| std::fs::read_to_string(task.join("comm")).is_ok_and(|c| c.trim() == "kernel");
        let task = tasks.into_iter().find(named).expect("the kernel thread");
        let stat = std::fs::read_to_string(task.join("schedstat")).expect("readable");
        Duration::from_nanos(stat.split(' ').next().and_then(|n| n.parse().ok()).expect("a number"))
    }

    /// A container's namespace.
    pub(crate) fn container(&self, n: u8) -> PathBuf {
        self.dir.path().join("run/netns").join(container(n).as_str())
    }

    /// Runs a shell command in the host's namespace.
    pub(crate) fn sh(&self, script: &str) -> String {
        let output = enter(&self.netns(), "sh", &["-c", script]);
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `netd purge`.
    pub(crate) fn purge(&self) {
        let net = format!("--net={}", self.netns().display());
        let config = self.config().display().to_string();
        run("nsenter", &[&net, &binary(), "purge", "--config", &config]);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut netd) = self.netd.take() {
            let _: Result<_, _> = netd.kill().and_then(|()| netd.wait());
        }
        let mounts = std::fs::read_dir(self.dir.path().join("run/netns"));
        for mount in mounts.into_iter().flatten().flatten() {
            let _: Result<_, _> = nix::mount::umount2(&mount.path(), nix::mount::MntFlags::MNT_DETACH);
        }
        let _: Result<_, _> = nix::mount::umount2(&self.dir.path().join("run/netns"), nix::mount::MntFlags::MNT_DETACH);
        let _: Result<_, _> = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// The netd to test: this build's, or another one that is to be measured.
fn binary() -> String {
    std::env::var("NETD_UNDER_TEST").unwrap_or_else(|_| env!("CARGO_BIN_EXE_netd").to_owned())
}

/// Whether a unix socket takes connections.
struct TcpLike;
impl TcpLike {
    fn unix(path: &Path) -> bool {
        std::os::unix::net::UnixStream::connect(path).is_ok()
    }
}

pub(crate) fn network_id(n: u8) -> NetworkId {
    NetworkId::from_bytes([n; 32])
}

pub(crate) fn container(n: u8) -> ContainerId {
    ContainerId::from_bytes([n; 32])
}

/// Network `n` is 10.128.n.0/24.
pub(crate) fn network(n: u8, peers: &[Ipv4Addr]) -> NetNetwork {
    let subnet = format!("10.128.{n}.0/24").parse().expect("a subnet");
    NetNetwork {
        id: network_id(n),
        vni: u32::from(n),
        subnet,
        gateway: None,
        internal: false,
        peers: peers.iter().map(|p| IpAddr::V4(*p)).collect(),
        names: None,
    }
}

/// Container `n` on network `on` has 10.128.on.n.
pub(crate) fn endpoint(n: u8, on: u8, ports: &[(u16, u16)]) -> NetEndpoint {
    let publish = |(host_port, container_port): &(u16, u16)| PublishedPort {
        container_port: *container_port,
        protocol: PortProtocol::Tcp,
        host_ip: None,
        host_port: *host_port,
    };
    let attachments = vec![NetAttachment {
        network: network_id(on),
        ip: address(n, on),
        interface: 0,
        mac: None,
        links: BTreeMap::new(),
    }];
    let ports = ports.iter().map(publish).collect();
    NetEndpoint { container: container(n), attachments, ports, resolvers: Vec::new(), owner: None }
}

pub(crate) fn address(n: u8, on: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 128, on, n)
}

pub(crate) fn plan(networks: &[NetNetwork], endpoints: &[NetEndpoint]) -> NetPlan {
    NetPlan {
        networks: networks.iter().map(|n| (n.id.to_string(), n.clone())).collect(),
        endpoints: endpoints.iter().map(|e| (e.container.to_string(), e.clone())).collect(),
    }
}

/// Runs a closure on a thread inside a namespace.
pub(crate) fn within<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> T {
    let entered = || {
        let file = File::open(netns).expect("the namespace is there");
        setns(file, CloneFlags::CLONE_NEWNET).expect("entered");
        work()
    };
    std::thread::scope(|scope| scope.spawn(entered).join().expect("no panic inside"))
}

/// Answers every connection with the address it came from, and keeps it open until the other end
/// closes, echoing.
pub(crate) fn serve(netns: &Path, at: impl Into<IpAddr>, port: u16) {
    let at = SocketAddr::new(at.into(), port);
    let listener = within(netns, || TcpListener::bind(at).expect("bound"));
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.expect("accepted");
            std::thread::spawn(move || {
                let from = connection.peer_addr().expect("a peer").ip();
                writeln!(connection, "{from}").expect("written");
                let mut bytes = [0; 64];
                while let Ok(count @ 1..) = connection.read(&mut bytes) {
                    if connection.write_all(&bytes[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// Dials from inside a namespace.
pub(crate) fn dial(netns: &Path, to: impl Into<IpAddr>, port: u16) -> Option<Connection> {
    let to = SocketAddr::new(to.into(), port);
    within(netns, || TcpStream::connect_timeout(&to, Duration::from_millis(700)).ok().and_then(Connection::new))
}

/// A connection to [`serve`].
pub(crate) struct Connection {
    stream: TcpStream,
    /// Where the server says it came from.
    pub(crate) from: String,
}

impl Connection {
    fn new(mut stream: TcpStream) -> Option<Self> {
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        let mut from = Vec::new();
        let mut byte = [0];
        while stream.read(&mut byte).ok()? == 1 && byte != *b"\n" {
            from.extend_from_slice(&byte);
        }
        Some(Self { stream, from: String::from_utf8(from).ok()? })
    }

    /// Whether bytes still come back.
    pub(crate) fn echoes(&mut self) -> bool {
        let mut back = [0; 4];
        self.stream.write_all(b"ping").is_ok() && self.stream.read_exact(&mut back).is_ok() && back == *b"ping"
    }
}

pub(crate) fn pings(netns: &Path, to: Ipv4Addr) -> bool {
    enter(netns, "busybox", &["ping", "-c", "1", "-W", "1", &to.to_string()]).status.success()
}

fn enter(netns: &Path, program: &str, arguments: &[&str]) -> Output {
    let net = format!("--net={}", netns.display());
    Command::new("nsenter").arg(net).arg(program).args(arguments).output().expect("nsenter runs")
}

pub(crate) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().expect("it runs");
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Joins two hosts, or a host and somebody outside, by a pair called `up0` at both ends.
pub(crate) fn join(a: &Host, b: &Host) {
    run("ip", &["-n", &a.name, "link", "add", "up0", "type", "veth", "peer", "name", "up0", "netns", &b.name]);
    for host in [a, b] {
        run("ip", &["-n", &host.name, "addr", "add", &format!("{}/24", host.address), "dev", "up0"]);
        run("ip", &["-n", &host.name, "link", "set", "up0", "up"]);
    }
}

/// Waits for something that takes the kernel or netd a moment.
pub(crate) fn until(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(15), "{what}: not in time");
        std::thread::sleep(Duration::from_millis(10));
    }
}
