//! Where everything of this checkout's suite lives: files under `.wharfage/`, sockets and
//! namespaces under `/run/wharfage-<tag>` (socket paths have a limit of 107 bytes), ports from one base.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use anyhow::{Context, Result};

/// Paths and ports. Derived from the checkout's path alone, so that `down` finds what `up` made.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// The checkout.
    pub root: PathBuf,
    /// `.wharfage`.
    pub state: PathBuf,
    /// Sockets, namespaces, runtime state.
    pub volatile: PathBuf,
    /// Tells this checkout's things from another's: `wharfage-1a2b3c`.
    pub tag: String,
    /// First port; see the accessors.
    pub port_base: u16,
}

impl Layout {
    /// The layout of the checkout in the current directory.
    pub(crate) fn here() -> Result<Self> {
        let root = std::env::current_dir().context("no current directory")?;
        let sum = ring::digest::digest(&ring::digest::SHA256, root.as_os_str().as_encoded_bytes());
        let tag = format!("wharfage-{}", hex::encode(&sum.as_ref()[..3]));
        let port_base = match std::env::var("WHARFAGE_PORT_BASE") {
            Ok(text) => text.parse().context("WHARFAGE_PORT_BASE is not a port")?,
            Err(_) => 7300,
        };
        Ok(Self { state: root.join(".wharfage"), volatile: PathBuf::from("/run").join(&tag), root, tag, port_base })
    }

    /// Pid files and service descriptions.
    pub(crate) fn run(&self) -> PathBuf {
        self.state.join("run")
    }

    /// Logs, one a process.
    pub(crate) fn log(&self) -> PathBuf {
        self.state.join("log")
    }

    /// Keys and certificates.
    pub(crate) fn pki(&self) -> PathBuf {
        self.state.join("pki")
    }

    /// The network namespace of a host, when there are several.
    pub(crate) fn host_netns(&self, node: u8) -> PathBuf {
        self.volatile.join(format!("host-{node}.netns"))
    }

    /// A host's sockets and runtime state.
    pub(crate) fn host_volatile(&self, node: u8) -> PathBuf {
        self.volatile.join(format!("n{node}"))
    }

    /// A host's data root.
    pub(crate) fn host_data(&self, node: u8) -> PathBuf {
        self.state.join(format!("host-{node}"))
    }

    /// A service's binary: of the release build, or of the directory `WHARFAGE_BIN_DIR` names.
    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        if let Some(dir) = std::env::var_os("WHARFAGE_BIN_DIR") {
            return PathBuf::from(dir).join(name);
        }
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.root.join("target"), PathBuf::from);
        target.join("release").join(name)
    }

    /// A checked-in default configuration file.
    pub(crate) fn config(&self, service: &str) -> PathBuf {
        self.root.join("compose/config").join(format!("{service}.toml"))
    }

    /// Docker API, plain.
    pub(crate) fn gateway_port(&self) -> u16 {
        self.port_base
    }
    /// Docker API, TLS.
    pub(crate) fn gateway_tls_port(&self) -> u16 {
        self.port_base + 1
    }
    /// Docker API, for containers, by way of their hosts.
    pub(crate) fn gateway_hosts_port(&self) -> u16 {
        self.port_base + 2
    }
    /// Scheduler.
    pub(crate) fn scheduler_port(&self) -> u16 {
        self.port_base + 10
    }
    /// image-svc.
    pub(crate) fn image_port(&self) -> u16 {
        self.port_base + 20
    }
    /// The upstream registry that stands for Docker Hub.
    pub(crate) fn registry_port(&self) -> u16 {
        self.port_base + 30
    }
    /// A node-agent.
    pub(crate) fn agent_port(&self) -> u16 {
        self.port_base + 40
    }
    /// Health and metrics of the service whose API port is `port`.
    pub(crate) fn ops_port(port: u16) -> u16 {
        port + 5
    }

    /// The hosted registry as references name it: the gateway, by either port.
    pub(crate) fn registry_names(&self) -> Vec<String> {
        let ports = [self.gateway_port(), self.gateway_tls_port()];
        ports.iter().flat_map(|port| [format!("127.0.0.1:{port}"), format!("localhost:{port}")]).collect()
    }

    /// The upstream registry as a reference names it.
    pub(crate) fn upstream(&self) -> String {
        format!("127.0.0.1:{}", self.registry_port())
    }
}

/// How hosts and control plane reach each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// The control plane's.
    pub control: IpAddr,
    /// Each host's, in order.
    pub hosts: Vec<IpAddr>,
}

impl Addresses {
    /// One host: everything on loopback.
    pub(crate) fn loopback() -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self { control: loopback, hosts: vec![loopback] }
    }
}
