//! What an operator says: where to listen, where content lies, which upstreams there are and how far
//! this service may reach into the network.

use std::{net::SocketAddr, path::PathBuf};

use chassis::{ClientAuth, Common, Secret, ServerTls};
use ipnet::IpNet;
use serde::Deserialize;

/// The configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What every service has.
    #[serde(default)]
    pub common: Common,
    /// Where the gateway and the hosts reach it.
    pub listen: SocketAddr,
    /// Its certificate, and the authority of its callers.
    pub tls: TlsFiles,
    /// Postgres: `postgres://wharfage_image@…`.
    pub database_url: Secret<String>,
    /// Connections to it at most.
    #[serde(default = "default_connections")]
    pub database_connections: u32,
    /// Redis, for wake-ups: `redis://…`. The service works without one.
    #[serde(default)]
    pub redis_url: Option<Secret<String>>,
    /// Directory of the blobs. One running image-svc per directory.
    pub data_dir: PathBuf,
    /// Platform of the fleet, taken from an index when a pull names none.
    #[serde(default = "default_platform")]
    pub platform: String,
    /// Registries that are not simply `https://<name>`.
    #[serde(default)]
    pub upstreams: Vec<Upstream>,
    /// How far into the network a tenant can make this service reach.
    #[serde(default)]
    pub egress: Egress,
    /// Patience with upstreams.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// The hosted registry.
    #[serde(default)]
    pub registry: HostedRegistry,
    /// Garbage collection.
    #[serde(default)]
    pub collection: Collection,
}

/// When content that nothing refers to goes.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Collection {
    /// Between two looks; at least 100.
    pub interval_ms: u64,
    /// How long a blob stays in a repository whose manifests do not need it, after it was pushed or last
    /// asked for. A client that was told that a blob is there has most of this time to push the manifest.
    pub link_kept_ms: u64,
    /// How long bytes stay that nothing refers to. Longer than the time between the two calls of a commit.
    pub blob_kept_ms: u64,
}

impl Default for Collection {
    fn default() -> Self {
        Self { interval_ms: 10 * 60_000, link_kept_ms: 24 * 3_600_000, blob_kept_ms: 3_600_000 }
    }
}

/// How tenants name the hosted registry in a reference.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostedRegistry {
    /// `host:port` of the gateways, as it stands in `docker pull host:port/tenant/project/name`. What is
    /// pulled by these names is taken from the store here.
    pub names: Vec<String>,
}

/// PEM files.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificate chain, common name `service:image`.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Authority that signed gateway and hosts.
    pub ca: PathBuf,
}

/// A registry with mirrors or without TLS.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Name as it stands in a reference: `docker.io`, `127.0.0.1:5000`.
    pub registry: String,
    /// Base addresses tried first, in order, without credentials. Written by the operator, so they
    /// may be private.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// Never ask the registry itself.
    #[serde(default)]
    pub mirrors_only: bool,
    /// Speak plain HTTP to the registry itself.
    #[serde(default)]
    pub insecure: bool,
    /// `docker search` finds what its catalog has (`/v2/_catalog` of the first mirror, or of the registry).
    #[serde(default)]
    pub search: bool,
}

/// Egress policy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Egress {
    /// `host:port` that tenants may name although the address is private. Loopback ones speak plain HTTP.
    pub allowed_private: Vec<String>,
    /// Public networks that are off limits too, such as the fleet's own.
    pub denied: Vec<IpNet>,
    /// Further authority certificates to trust, PEM.
    pub extra_ca: Option<PathBuf>,
}

/// Patience.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// To connect.
    pub connect_ms: u64,
    /// Between two reads, and until an answer begins.
    pub idle_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect_ms: 5_000, idle_ms: 30_000 }
    }
}

impl TlsFiles {
    /// For the server: nobody without a certificate of the suite.
    #[must_use]
    pub fn server(&self) -> ServerTls {
        ServerTls {
            cert: self.cert.clone(),
            key: self.key.clone(),
            client_auth: ClientAuth::Required { ca: self.ca.clone() },
            http2: false,
        }
    }
}

fn default_connections() -> u32 {
    8
}

fn default_platform() -> String {
    "linux/amd64".to_owned()
}
