//! Who is on the other end of a connection. Only a certificate that was verified against our own
//! authority gives a name that means anything.

use std::{convert::Infallible, net::SocketAddr, ops::Deref, sync::Arc};

use axum::{extract::FromRequestParts, http::request::Parts};
use model::{Error, HostId, Result};

use crate::pki;

/// The other end of a connection; in the extensions of every request.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Its address, over TCP.
    pub addr: Option<SocketAddr>,
    /// The certificate it showed, if any.
    pub certificate: Option<Arc<PeerCertificate>>,
    /// The user of the process, over a unix socket.
    pub unix_uid: Option<u32>,
}

/// A certificate that a client showed, the key of which it holds.
#[derive(Clone, Debug)]
pub struct PeerCertificate {
    /// The subject's common name.
    pub common_name: Option<String>,
    /// SHA-256 of it, 64 hex digits.
    pub sha256_fingerprint: String,
    /// It, in DER.
    pub der: Vec<u8>,
    /// Whether our authority signed it. If not, the common name is whatever its maker liked.
    pub trusted: bool,
}

impl PeerCertificate {
    pub(super) fn new(der: &[u8], trusted: bool) -> Self {
        Self {
            common_name: pki::common_name(der),
            sha256_fingerprint: pki::fingerprint(der),
            der: der.to_vec(),
            trusted,
        }
    }
}

impl Peer {
    /// The name our authority vouches for.
    #[must_use]
    pub fn identity(&self) -> Option<&str> {
        self.certificate.as_deref().filter(|c| c.trusted).and_then(|c| c.common_name.as_deref())
    }

    /// Lets only this identity through (`service:gateway`).
    pub fn require(&self, identity: &str) -> Result<()> {
        self.require_any(&[identity])
    }

    /// Lets only these identities through. An entry that ends with `:` admits all names that begin so.
    pub fn require_any(&self, identities: &[&str]) -> Result<()> {
        let Some(found) = self.identity() else {
            return Err(Error::Unauthenticated("this needs a certificate of the suite".into()));
        };
        let admits = |wanted: &&str| if wanted.ends_with(':') { found.starts_with(*wanted) } else { found == *wanted };
        if identities.iter().any(admits) {
            Ok(())
        } else {
            Err(Error::Unauthenticated(format!("certificate `{found}` does not open this")))
        }
    }

    /// The host whose certificate this is.
    #[must_use]
    pub fn host_id(&self) -> Option<HostId> {
        self.identity()?.strip_prefix("host:")?.parse().ok()
    }

    /// The same, or 401.
    pub fn require_host(&self) -> Result<HostId> {
        self.host_id().ok_or_else(|| Error::Unauthenticated("this needs a host's certificate".into()))
    }
}

/// Extracts the [`Peer`] of a request.
#[derive(Clone, Debug)]
pub struct Caller(pub Peer);

impl Deref for Caller {
    type Target = Peer;
    fn deref(&self) -> &Peer {
        &self.0
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> std::result::Result<Self, Infallible> {
        Ok(Self(parts.extensions.get::<Peer>().cloned().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str, trusted: bool) -> Peer {
        let certificate = PeerCertificate {
            common_name: Some(name.to_owned()),
            sha256_fingerprint: String::new(),
            der: Vec::new(),
            trusted,
        };
        Peer { certificate: Some(Arc::new(certificate)), ..Peer::default() }
    }

    #[test]
    fn a_name_that_our_authority_did_not_sign_opens_nothing() {
        assert!(peer("service:gateway", true).require("service:gateway").is_ok());
        assert!(peer("service:gateway", false).require("service:gateway").is_err());
        assert!(peer("service:image", true).require("service:gateway").is_err());
        assert!(Peer::default().require("service:gateway").is_err());
    }

    #[test]
    fn a_host_is_known_by_its_certificate() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(peer(&format!("host:{id}"), true).host_id().map(|h| h.to_string()).as_deref(), Some(id));
        assert!(peer(&format!("host:{id}"), false).host_id().is_none());
        assert!(peer("host:me", true).host_id().is_none());
        assert!(peer(&format!("host:{id}"), true).require_any(&["service:gateway", "host:"]).is_ok());
    }
}
