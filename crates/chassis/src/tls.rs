//! TLS on both sides. Inside the suite a certificate's common name is the identity
//! (`service:scheduler`, `host:<uuid>`); services are dialled by address, so host names are never
//! checked, common names always are. All of it uses one cryptography provider, ring.

mod client;
mod server;
mod verify;

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

pub(crate) use client::base_client as plain;
pub use client::{ClientTls, ExpectedPeer, client};
pub(crate) use server::Acceptor;
pub use server::{ClientAuth, ServerTls};

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Makes ring the process's default, for libraries that ask for the default. Safe to call twice.
pub fn install_provider() {
    // A second call finds one installed, which is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || format!("cannot read certificates from {}", path.display());
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(path).with_context(read)?.collect::<Result<_, _>>().with_context(read)?;
    anyhow::ensure!(!chain.is_empty(), "no certificate in {}", path.display());
    Ok(chain)
}

fn key(path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).with_context(|| format!("cannot read a key from {}", path.display()))
}

fn roots(path: &Path) -> anyhow::Result<Arc<RootCertStore>> {
    let mut store = RootCertStore::empty();
    for cert in certificates(path)? {
        store.add(cert).with_context(|| format!("{} holds no usable authority", path.display()))?;
    }
    Ok(Arc::new(store))
}
