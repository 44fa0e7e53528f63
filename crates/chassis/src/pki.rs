//! The internal certificate authority: makes keys, signs certificates, reads who a certificate names.
//! What an authority signs always carries the subject its caller chose, never one a request asked for.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::ids;

/// What a certificate may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// To answer connections.
    Server,
    /// To open connections.
    Client,
}

/// What went wrong with a key, a certificate or a request.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct PkiError {
    what: &'static str,
    #[source]
    source: rcgen::Error,
}

fn failed(what: &'static str) -> impl FnOnce(rcgen::Error) -> PkiError {
    move |source| PkiError { what, source }
}

/// A certificate authority with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert_pem: String,
    key_pem: String,
}

impl Authority {
    /// Makes a new authority, valid for ten years.
    pub fn create(common_name: &str) -> Result<Self, PkiError> {
        let key = KeyPair::generate().map_err(failed("cannot make a key"))?;
        let mut params = params(common_name, &[], &[], 3650)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key).map_err(failed("cannot sign the authority"))?;
        let key_pem = key.serialize_pem();
        Ok(Self { cert_pem: cert.pem(), key_pem, issuer: Issuer::new(params, key) })
    }

    /// Takes up an authority made before.
    pub fn load(cert_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(key_pem).map_err(failed("cannot read the authority's key"))?;
        let issuer =
            Issuer::from_ca_cert_pem(cert_pem, key).map_err(failed("cannot read the authority's certificate"))?;
        Ok(Self { issuer, cert_pem: cert_pem.to_owned(), key_pem: key_pem.to_owned() })
    }

    /// Its certificate, which everyone may have.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// Its key, which nobody else may have.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Makes a key and a certificate for it: `(certificate, key)`, both PEM.
    pub fn issue(&self, common_name: &str, usages: &[Usage], days: i64) -> Result<(String, String), PkiError> {
        self.issue_named(common_name, usages, &[], days)
    }

    /// The same with subject alternative names (DNS names or addresses), for clients that check them.
    pub fn issue_named(
        &self,
        common_name: &str,
        usages: &[Usage],
        names: &[String],
        days: i64,
    ) -> Result<(String, String), PkiError> {
        let key = KeyPair::generate().map_err(failed("cannot make a key"))?;
        let cert = self.sign(&key, common_name, usages, names, days)?;
        Ok((cert, key.serialize_pem()))
    }

    /// Signs the key of a request, whose holder proved possession, for server and client use. Nothing
    /// else of the request is taken over.
    pub fn sign_csr(&self, csr_pem: &str, common_name: &str, days: i64) -> Result<String, PkiError> {
        let csr =
            CertificateSigningRequestParams::from_pem(csr_pem).map_err(failed("cannot take the signing request"))?;
        self.sign(&csr.public_key, common_name, &[Usage::Server, Usage::Client], &[], days)
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        common_name: &str,
        usages: &[Usage],
        names: &[String],
        days: i64,
    ) -> Result<String, PkiError> {
        let params = params(common_name, usages, names, days)?;
        Ok(params.signed_by(key, &self.issuer).map_err(failed("cannot sign a certificate"))?.pem())
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// Makes a key and a request for a certificate: `(request, key)`, both PEM.
pub fn new_csr() -> Result<(String, String), PkiError> {
    let key = KeyPair::generate().map_err(failed("cannot make a key"))?;
    let params = CertificateParams::default();
    let csr = params.serialize_request(&key).map_err(failed("cannot make a signing request"))?;
    Ok((csr.pem().map_err(failed("cannot write a signing request"))?, key.serialize_pem()))
}

/// Makes a self-signed client certificate: `(certificate, key)`, both PEM. It is known by its fingerprint.
pub fn self_signed(common_name: &str, days: i64) -> Result<(String, String), PkiError> {
    let key = KeyPair::generate().map_err(failed("cannot make a key"))?;
    let params = params(common_name, &[Usage::Client], &[], days)?;
    let cert = params.self_signed(&key).map_err(failed("cannot sign a certificate"))?;
    Ok((cert.pem(), key.serialize_pem()))
}

/// SHA-256 of a certificate in DER, as 64 lower-case hex digits.
#[must_use]
pub fn fingerprint(cert_der: &[u8]) -> String {
    hex::encode(ids::sha256(cert_der))
}

/// The common name of a certificate in DER. A subject with none, or with several, names nobody.
#[must_use]
pub fn common_name(cert_der: &[u8]) -> Option<String> {
    let (_, cert) = X509Certificate::from_der(cert_der).ok()?;
    let mut names = cert.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?.to_owned();
    names.next().is_none().then_some(name)
}

fn params(common_name: &str, usages: &[Usage], names: &[String], days: i64) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(names.to_vec()).map_err(failed("cannot take an alternative name"))?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = OffsetDateTime::now_utc();
    // Hosts' clocks differ a little: a certificate is good from an hour before it was made.
    params.not_before = now - Duration::hours(1);
    params.not_after = now + Duration::days(days);
    params.use_authority_key_identifier_extension = true;
    if !usages.is_empty() {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    }
    params.extended_key_usages = usages
        .iter()
        .map(|usage| match usage {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        })
        .collect();
    Ok(params)
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};

    use super::*;

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
    }

    #[test]
    fn a_signed_request_carries_our_subject_not_its_own() {
        let authority = Authority::create("test authority").expect("create");
        let again = Authority::load(authority.cert_pem(), authority.key_pem()).expect("load");
        let (csr, _key) = new_csr().expect("csr");
        let cert = der(&again.sign_csr(&csr, "host:1", 30).expect("sign"));
        assert_eq!(common_name(&cert).as_deref(), Some("host:1"));
        let (_, parsed) = X509Certificate::from_der(&cert).expect("parse");
        let (ca_der, _) = (der(authority.cert_pem()), ());
        let (_, ca) = X509Certificate::from_der(&ca_der).expect("parse");
        assert_eq!(parsed.issuer(), ca.subject());
        assert!(!parsed.is_ca());
    }

    #[test]
    fn a_tampered_request_is_refused() {
        let authority = Authority::create("test authority").expect("create");
        let (a, _) = new_csr().expect("csr");
        let (b, _) = new_csr().expect("csr");
        // The signature of one over the key of another.
        let half = |pem: &str, first: bool| {
            let lines: Vec<&str> = pem.lines().collect();
            let (head, tail) = lines.split_at(lines.len() / 2);
            if first { head.join("\n") } else { tail.join("\n") }
        };
        let mixed = format!("{}\n{}\n", half(&a, true), half(&b, false));
        assert!(authority.sign_csr(&mixed, "host:1", 30).is_err());
    }

    #[test]
    fn a_fingerprint_is_64_hex_digits() {
        let (cert, _) = self_signed("laptop", 1).expect("cert");
        assert_eq!(fingerprint(&der(&cert)).len(), 64);
    }
}
