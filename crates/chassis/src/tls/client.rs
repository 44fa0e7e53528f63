//! Clients that speak to parts of the suite: our authority, our certificate, and the one peer we expect.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use serde::Deserialize;

use super::{certificates, key, provider, roots, verify::ByCommonName};
use crate::limits;

/// Where the files of a client are. Without a certificate it connects as nobody (a host that joins).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientTls {
    /// The internal authority, PEM.
    pub ca: PathBuf,
    /// Our certificate chain, PEM.
    #[serde(default)]
    pub cert: Option<PathBuf>,
    /// Its key, PEM.
    #[serde(default)]
    pub key: Option<PathBuf>,
}

/// Whose certificate the other side must show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedPeer {
    /// The one with exactly this common name.
    Named(String),
    /// Any with a common name that begins so (`host:`).
    Prefixed(String),
}

impl ExpectedPeer {
    /// The service `service:<name>`.
    #[must_use]
    pub fn service(name: &str) -> Self {
        Self::Named(format!("service:{name}"))
    }

    /// One host.
    #[must_use]
    pub fn host(id: model::HostId) -> Self {
        Self::Named(format!("host:{id}"))
    }

    pub(super) fn admits(&self, common_name: &str) -> bool {
        match self {
            Self::Named(name) => common_name == name,
            Self::Prefixed(prefix) => common_name.starts_with(prefix),
        }
    }
}

/// A client for one peer: HTTP/1.1 (so that connections can be upgraded), connections kept alive.
pub fn client(tls: &ClientTls, expected: ExpectedPeer) -> anyhow::Result<reqwest::Client> {
    let provider = provider();
    let verifier =
        ByCommonName { roots: roots(&tls.ca)?, expected, algorithms: provider.signature_verification_algorithms };
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let config = match (&tls.cert, &tls.key) {
        (Some(cert_path), Some(key_path)) => builder
            .with_client_auth_cert(certificates(cert_path)?, key(key_path)?)
            .with_context(|| format!("{} and {} do not fit", cert_path.display(), key_path.display()))?,
        (None, None) => builder.with_no_client_auth(),
        (Some(_), None) | (None, Some(_)) => anyhow::bail!("a client certificate needs both `cert` and `key`"),
    };
    base_client().tls_backend_preconfigured(config).https_only(true).build().context("cannot build a client")
}

/// What every internal client has in common.
pub(crate) fn base_client() -> reqwest::ClientBuilder {
    // reqwest looks for a default provider even where no TLS is spoken.
    super::install_provider();
    reqwest::Client::builder()
        .no_proxy()
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .tcp_nodelay(true)
        .tcp_keepalive(std::time::Duration::from_secs(30))
        .connect_timeout(limits::CONNECT)
        .pool_idle_timeout(limits::POOL_IDLE)
        .pool_max_idle_per_host(64)
}
