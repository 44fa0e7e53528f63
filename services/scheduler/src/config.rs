//! What an operator says: where to listen, where the truth is, and the authority that signs hosts.

use std::{net::SocketAddr, path::PathBuf};

use chassis::{ClientAuth, Common, Secret, ServerTls};
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
    /// The authority that signs hosts' certificates.
    pub authority: AuthorityFiles,
    /// Postgres, under the role `wharfage_scheduler`.
    pub database_url: Secret<String>,
    /// Connections to it.
    #[serde(default = "default_connections")]
    pub database_connections: u32,
    /// Redis for wake-ups; the service works without it.
    #[serde(default)]
    pub redis_url: Option<Secret<String>>,
}

/// PEM files of the server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificate chain, common name `service:scheduler`.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Authority that signed gateway and hosts.
    pub ca: PathBuf,
}

/// PEM files of the internal authority.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorityFiles {
    /// Its certificate; handed to every host that joins.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl TlsFiles {
    /// A certificate is asked for but not required: a host that joins has none yet.
    pub(crate) fn server(&self) -> ServerTls {
        ServerTls {
            cert: self.cert.clone(),
            key: self.key.clone(),
            client_auth: ClientAuth::Optional { ca: self.ca.clone() },
            http2: false,
        }
    }
}

fn default_connections() -> u32 {
    16
}
