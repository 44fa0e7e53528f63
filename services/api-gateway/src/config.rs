//! The gateway's configuration: where it listens, and where the rest of the suite is.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use chassis::{ClientAuth, ClientTls, Common, Secret, ServerTls};
use serde::Deserialize;

use crate::limits::RateLimit;

/// `gateway.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What every service has.
    #[serde(default)]
    pub common: Common,
    /// The truth.
    pub database: Database,
    /// Wake-ups and rate buckets.
    #[serde(default)]
    pub redis: Redis,
    /// Plain HTTP for `DOCKER_HOST=tcp://…`; give it an address that only trusted networks reach.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// HTTPS; client certificates of any issuer are taken, and known by their fingerprint.
    #[serde(default)]
    pub tls: Option<TlsListener>,
    /// Where hosts bring what containers say over `/var/run/docker.sock`: with the certificate and
    /// authority of `[internal_tls]`, for hosts' certificates only. Without it there are no such sockets.
    #[serde(default)]
    pub hosts_listen: Option<SocketAddr>,
    /// Our own certificate towards the other services; plain HTTP between services without it (tests).
    #[serde(default)]
    pub internal_tls: Option<ClientTls>,
    /// Base address of the scheduler: `https://127.0.0.1:7420`.
    pub scheduler: String,
    /// Base address of image-svc.
    pub image: String,
    /// Requests a project may make.
    #[serde(default)]
    pub rate_limit: RateLimit,
    /// The hosted registry.
    #[serde(default)]
    pub registry: Registry,
}

/// How clients know the hosted registry.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registry {
    /// `https://registry.example.com`, behind a proxy; otherwise whatever address a client used.
    pub public_url: Option<String>,
    /// image-svc's `data_dir`, where this machine has it, to be read only: blobs are sent from there. Without
    /// it they come through image-svc.
    pub blobs_dir: Option<PathBuf>,
}

impl Config {
    /// For the listener that only hosts reach.
    ///
    /// # Errors
    /// There is no certificate to show.
    pub fn hosts_tls(&self) -> anyhow::Result<ServerTls> {
        let files = self.internal_tls.clone().context("`hosts_listen` needs `[internal_tls]`")?;
        let (cert, key) =
            files.cert.zip(files.key).context("`hosts_listen` needs a certificate in `[internal_tls]`")?;
        Ok(ServerTls { cert, key, client_auth: ClientAuth::Required { ca: files.ca }, http2: false })
    }
}

/// Postgres.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// `postgres://wharfage_gateway@…`
    pub url: Secret<String>,
    /// Connections at most.
    #[serde(default = "connections")]
    pub connections: u32,
}

fn connections() -> u32 {
    16
}

/// Redis.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// `redis://…`; without one the gateway works alone.
    pub url: Option<Secret<String>>,
}

/// The HTTPS listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsListener {
    /// Address.
    pub listen: SocketAddr,
    /// Its certificate chain, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

impl TlsListener {
    /// For the server: any client certificate is let in, and authenticated by its fingerprint later.
    #[must_use]
    pub fn server(&self) -> ServerTls {
        ServerTls {
            cert: self.cert.clone(),
            key: self.key.clone(),
            client_auth: ClientAuth::AnyCertificate,
            http2: false,
        }
    }
}
