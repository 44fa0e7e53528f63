//! Upstream registries: which addresses serve a reference, and what was said there. Everything that
//! comes back is hostile until its digest, length and shape were checked.

mod auth;
mod catalog;
mod challenge;
mod dial;
mod error;
mod http;
mod login;
mod manifest;
mod repository;
mod send;

use std::path::Path;

use contract::image::RegistryAuth;
use model::{DEFAULT_REGISTRY, ImageReference};
use reqwest::{Certificate, ClientBuilder, Url};

pub(crate) use error::UpstreamError;
pub(crate) use login::Verdict;
pub(crate) use manifest::{Descriptor, Document, ImageManifest, Platform, select};
pub(crate) use repository::{Fetched, Repository};
pub(crate) use send::Begun;

use crate::{
    config::{Egress, Timeouts, Upstream},
    egress::{EgressPolicy, authority},
};
use auth::Credentials;
use http::Http;
use repository::Right;

/// The registries this service knows how to reach.
pub(crate) struct Upstreams {
    http: Http,
    policy: EgressPolicy,
    configured: Vec<Upstream>,
}

impl Upstreams {
    pub(crate) fn new(configured: Vec<Upstream>, egress: &Egress, timeouts: Timeouts) -> anyhow::Result<Self> {
        for mirror in configured.iter().flat_map(|u| &u.mirrors) {
            mirror.parse::<Url>().map_err(|e| anyhow::anyhow!("mirror {mirror}: {e}"))?;
        }
        let policy = EgressPolicy::new(&egress.allowed_private, &egress.denied);
        let http = Http::new(policy.clone(), timeouts, egress.extra_ca.as_deref())?;
        Ok(Self { http, policy, configured })
    }

    /// Where to ask for a reference, in order: mirrors without credentials, then the registry itself.
    pub(crate) fn repositories(
        &self,
        reference: &ImageReference,
        auth: Option<&RegistryAuth>,
    ) -> Result<Vec<Repository>, UpstreamError> {
        let configured = self.configured.iter().find(|u| u.registry == reference.registry);
        let mut found = Vec::new();
        for mirror in configured.into_iter().flat_map(|u| &u.mirrors) {
            let base: Url = mirror.parse().map_err(|e| UpstreamError::Invalid(format!("mirror {mirror}: {e}")))?;
            let operators = Some(authority(&base));
            found.push(Repository::new(self.http.clone(), base, operators, &reference.repository, None, Right::Pull));
        }
        if configured.is_some_and(|u| u.mirrors_only && !u.mirrors.is_empty()) {
            return Ok(found);
        }
        let base = self.own_address(&reference.registry, configured)?;
        let credentials = auth.and_then(|auth| Credentials::for_registry(auth, &reference.registry));
        let own = Repository::new(self.http.clone(), base, None, &reference.repository, credentials, Right::Pull);
        found.push(own);
        Ok(found)
    }

    /// Where to push: the registry itself, never a mirror.
    pub(crate) fn target(
        &self,
        reference: &ImageReference,
        auth: Option<&RegistryAuth>,
    ) -> Result<Repository, UpstreamError> {
        let configured = self.configured.iter().find(|u| u.registry == reference.registry);
        if configured.is_some_and(|u| u.mirrors_only && !u.mirrors.is_empty()) {
            return Err(UpstreamError::Refused(format!(
                "{} is reached through mirrors only on this platform, and nothing is pushed to them",
                reference.registry
            )));
        }
        let base = self.own_address(&reference.registry, configured)?;
        let credentials = auth.and_then(|auth| Credentials::for_registry(auth, &reference.registry));
        Ok(Repository::new(self.http.clone(), base, None, &reference.repository, credentials, Right::Push))
    }

    /// Names of all repositories of each upstream whose catalog the operator opened to searches.
    pub(crate) async fn catalogs(&self) -> Result<Vec<(String, Vec<String>)>, UpstreamError> {
        let mut found = Vec::new();
        for upstream in self.configured.iter().filter(|u| u.search) {
            let (base, operators) = match upstream.mirrors.first().and_then(|mirror| mirror.parse::<Url>().ok()) {
                Some(mirror) => (mirror.clone(), Some(authority(&mirror))),
                None => (self.own_address(&upstream.registry, Some(upstream))?, None),
            };
            let names = catalog::names(&self.http, &base, operators.as_deref()).await?;
            found.push((upstream.registry.clone(), names));
        }
        Ok(found)
    }

    /// Whether the registry that credentials are for takes them. Mirrors are never asked: they get none.
    pub(crate) async fn login(&self, auth: &RegistryAuth) -> Result<Verdict, UpstreamError> {
        let named = auth::server_name(&auth.server_address);
        let registry = if named.is_empty() { DEFAULT_REGISTRY } else { named };
        let configured = self.configured.iter().find(|u| u.registry == registry);
        if configured.is_some_and(|u| u.mirrors_only && !u.mirrors.is_empty()) {
            let why =
                format!("{registry} is reached through mirrors only on this platform, and they take no credentials");
            return Err(UpstreamError::Refused(why));
        }
        let base = self.own_address(registry, configured)?;
        match Credentials::for_registry(auth, registry) {
            Some(credentials) => login::login(&self.http, &base, &credentials).await,
            None => Ok(Verdict::Refused("no user name and no token was given".into())),
        }
    }

    fn own_address(&self, registry: &str, configured: Option<&Upstream>) -> Result<Url, UpstreamError> {
        let host = if registry == DEFAULT_REGISTRY { "registry-1.docker.io" } else { registry };
        let loopback = host.starts_with("127.") || host.starts_with("localhost:");
        let plain = configured.is_some_and(|u| u.insecure) || (loopback && self.policy.lists(host));
        let scheme = if plain { "http" } else { "https" };
        format!("{scheme}://{host}/")
            .parse()
            .map_err(|_| UpstreamError::Invalid(format!("{registry} is not the name of a registry")))
    }
}

/// The TLS of upstream connections: ring, the system's authorities and the operator's.
pub(crate) fn with_tls(builder: ClientBuilder, extra_ca: Option<&Path>) -> anyhow::Result<reqwest::Client> {
    // Another part of the process may have installed the same provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let extra = match extra_ca {
        Some(path) => Certificate::from_pem_bundle(&std::fs::read(path)?)?,
        None => Vec::new(),
    };
    Ok(builder.tls_certs_merge(extra).build()?)
}
