//! The server's side. Certificates are read again when their files change; a bad new file leaves
//! the old certificate in use and says so.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use serde::Deserialize;
use tokio_rustls::TlsAcceptor;

use super::{certificates, key, provider, roots, verify::ByPossession};

const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// A server's certificate, and what it asks of clients.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Whether clients show a certificate.
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// Offer HTTP/2 as well. Upgrades need HTTP/1.1.
    #[serde(default)]
    pub http2: bool,
}

/// What a server asks of its clients. In TOML: `client_auth = { mode = "required", ca = "ca.pem" }`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case", deny_unknown_fields)]
pub enum ClientAuth {
    /// Nothing.
    #[default]
    None,
    /// A certificate of this authority; without one there is no connection.
    Required {
        /// The authority, PEM.
        ca: PathBuf,
    },
    /// A certificate of this authority, or none.
    Optional {
        /// The authority, PEM.
        ca: PathBuf,
    },
    /// Any certificate at all, or none: identity is by fingerprint, names in it are not trusted.
    AnyCertificate,
}

impl ClientAuth {
    fn ca(&self) -> Option<&Path> {
        match self {
            Self::Required { ca } | Self::Optional { ca } => Some(ca),
            Self::None | Self::AnyCertificate => None,
        }
    }
}

impl ServerTls {
    fn load(&self) -> anyhow::Result<Arc<ServerConfig>> {
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let verified = |roots: Arc<RootCertStore>| WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
        let builder = match &self.client_auth {
            ClientAuth::None => builder.with_no_client_auth(),
            ClientAuth::Required { ca } => builder.with_client_cert_verifier(verified(roots(ca)?).build()?),
            ClientAuth::Optional { ca } => {
                builder.with_client_cert_verifier(verified(roots(ca)?).allow_unauthenticated().build()?)
            }
            ClientAuth::AnyCertificate => builder.with_client_cert_verifier(Arc::new(ByPossession {
                algorithms: provider.signature_verification_algorithms,
            })),
        };
        let mut config = builder.with_single_cert(certificates(&self.cert)?, key(&self.key)?)?;
        config.alpn_protocols =
            if self.http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
        Ok(Arc::new(config))
    }

    fn changed(&self) -> Vec<Option<SystemTime>> {
        let modified = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).ok();
        [Some(self.cert.as_path()), Some(self.key.as_path()), self.client_auth.ca()]
            .into_iter()
            .flatten()
            .map(modified)
            .collect()
    }
}

/// Takes TLS connections with the newest certificate.
pub(crate) struct Acceptor {
    tls: ServerTls,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    config: Arc<ServerConfig>,
    files: Vec<Option<SystemTime>>,
    looked: Instant,
}

impl Acceptor {
    pub(crate) fn new(tls: ServerTls) -> anyhow::Result<Self> {
        let loaded = Loaded { files: tls.changed(), config: tls.load()?, looked: Instant::now() };
        Ok(Self { tls, loaded: Mutex::new(loaded) })
    }

    /// Whether a certificate that a client showed was verified against our authority.
    pub(crate) fn verifies_clients(&self) -> bool {
        self.tls.client_auth.ca().is_some()
    }

    pub(crate) fn current(&self) -> TlsAcceptor {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.looked.elapsed() >= LOOK_AGAIN {
            loaded.looked = Instant::now();
            self.look_again(&mut loaded);
        }
        TlsAcceptor::from(loaded.config.clone())
    }

    fn look_again(&self, loaded: &mut Loaded) {
        let files = self.tls.changed();
        if files == loaded.files {
            return;
        }
        match self.tls.load() {
            Ok(config) => {
                tracing::info!(cert = %self.tls.cert.display(), "certificate reloaded");
                loaded.config = config;
                loaded.files = files;
            }
            // Perhaps only half of it is written yet: the next look tries again.
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "the new certificate is not usable; the old one stays")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Authority, Usage};

    #[test]
    fn a_new_certificate_is_taken_up_and_a_bad_one_is_not() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = |name: &str| dir.path().join(name);
        let authority = Authority::create("ca").expect("ca");
        let write = |stamp: u64| {
            let (cert, key) = authority.issue("service:a", &[Usage::Server], 1).expect("issue");
            std::fs::write(path("cert.pem"), cert).expect("write");
            std::fs::write(path("key.pem"), key).expect("write");
            let file = std::fs::File::open(path("cert.pem")).expect("open");
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(stamp)).expect("stamp");
        };
        write(1);
        let tls =
            ServerTls { cert: path("cert.pem"), key: path("key.pem"), client_auth: ClientAuth::None, http2: false };
        let acceptor = Acceptor::new(tls).expect("load");
        let current = || {
            acceptor.loaded.lock().expect("lock").looked -= LOOK_AGAIN;
            acceptor.current().config().clone()
        };
        let first = current();
        assert!(Arc::ptr_eq(&first, &current()), "unchanged files are not read again");
        std::fs::write(path("cert.pem"), "half").expect("write");
        assert!(Arc::ptr_eq(&first, &current()), "a bad file changes nothing");
        write(2);
        assert!(!Arc::ptr_eq(&first, &current()), "a good file is taken up");
    }
}
