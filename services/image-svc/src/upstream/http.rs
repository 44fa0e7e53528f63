//! Requests to upstreams: every hop goes through the egress policy, redirects are followed by hand,
//! and credentials stay with the origin they were meant for.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use reqwest::{
    Body, Client, ClientBuilder, Method, Response, StatusCode, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION},
    redirect::Policy,
};

use super::{UpstreamError, dial::describe, with_tls};
use crate::{
    config::Timeouts,
    egress::{EgressPolicy, PublicResolver, Route},
    limits::REDIRECTS_MAX,
};

/// Two pools of connections that never mix: one that can only reach public addresses, and one for
/// what the operator listed.
#[derive(Clone)]
pub(crate) struct Http {
    policy: EgressPolicy,
    public: Client,
    listed: Client,
    /// The same for what is sent, whose answer begins when all of it is there: the sender has the patience.
    sending: Sending,
    /// How long an upload may stand still.
    pub(super) idle: Duration,
}

#[derive(Clone)]
struct Sending {
    public: Client,
    listed: Client,
}

/// One request; its body is a form, for token services, or content that is pushed.
pub(crate) struct Outgoing<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) form: Option<String>,
    pub(crate) body: Option<Body>,
    /// `host:port` of the operator's own choosing that this request may reach.
    pub(crate) operators: Option<&'a str>,
}

impl Http {
    pub(crate) fn new(policy: EgressPolicy, timeouts: Timeouts, extra_ca: Option<&Path>) -> anyhow::Result<Self> {
        let builder = || {
            Client::builder()
                .no_proxy()
                .redirect(Policy::none())
                .referer(false)
                .user_agent(concat!("wharfage-image-svc/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(Duration::from_millis(timeouts.connect_ms))
                .pool_idle_timeout(Duration::from_secs(30))
        };
        let idle = Duration::from_millis(timeouts.idle_ms);
        let resolver = Arc::new(PublicResolver(policy.clone()));
        let public = |builder: ClientBuilder| with_tls(builder.dns_resolver(resolver.clone()), extra_ca);
        let sending = Sending { public: public(builder())?, listed: with_tls(builder(), extra_ca)? };
        let (public, listed) =
            (public(builder().read_timeout(idle))?, with_tls(builder().read_timeout(idle), extra_ca)?);
        Ok(Self { policy, public, listed, sending, idle })
    }

    /// Sends a request and follows redirects. The answer may have any status.
    pub(crate) async fn send(&self, mut outgoing: Outgoing<'_>) -> Result<Response, UpstreamError> {
        let first = outgoing.url.clone();
        let mut url = outgoing.url;
        let sends = outgoing.body.is_some();
        for _ in 0..=REDIRECTS_MAX {
            let client = match self.policy.route(&url, outgoing.operators) {
                Ok(Route::Public) if sends => &self.sending.public,
                Ok(Route::Listed) if sends => &self.sending.listed,
                Ok(Route::Public) => &self.public,
                Ok(Route::Listed) => &self.listed,
                Err(refused) => return Err(UpstreamError::Refused(refused.0)),
            };
            let mut request = client.request(outgoing.method.clone(), url.clone()).headers(outgoing.headers.clone());
            if url.origin() == first.origin() {
                if let Some(authorization) = &outgoing.authorization {
                    request = request.header(AUTHORIZATION, authorization.clone());
                }
                if let Some(form) = &outgoing.form {
                    request = request.header("content-type", "application/x-www-form-urlencoded").body(form.clone());
                }
            }
            if let Some(body) = outgoing.body.take() {
                request = request.body(body);
            }
            let response = request.send().await.map_err(|e| describe(&base_of(&first), &url, &e))?;
            match redirect_target(&response, &url)? {
                // A form holds a secret: it is not sent anywhere but where it was meant to go.
                Some(_) if outgoing.form.is_some() => {
                    return Err(UpstreamError::Invalid("the token service answers with a redirect".into()));
                }
                Some(_) if sends => {
                    return Err(UpstreamError::Invalid("the registry answers an upload with a redirect".into()));
                }
                Some(next) => url = next,
                None => return Ok(response),
            }
        }
        Err(UpstreamError::Invalid(format!("stopped after {REDIRECTS_MAX} redirects")))
    }
}

fn base_of(url: &Url) -> Url {
    let mut base = url.clone();
    base.set_path("/");
    base.set_query(None);
    base
}

fn redirect_target(response: &Response, at: &Url) -> Result<Option<Url>, UpstreamError> {
    let moved = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    if !moved {
        return Ok(None);
    }
    let bad = || UpstreamError::Invalid(format!("{} redirects to nowhere", crate::egress::authority(at)));
    let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok()).ok_or_else(bad)?;
    at.join(location).map(Some).map_err(|_| bad())
}

/// Reads a document that may not be longer than `limit_bytes`.
pub(crate) async fn read_bounded(mut response: Response, limit_bytes: u64) -> Result<Bytes, UpstreamError> {
    let url = response.url().clone();
    let too_long = || UpstreamError::Invalid(format!("the answer of the registry is longer than {limit_bytes} bytes"));
    if response.content_length().is_some_and(|n| n > limit_bytes) {
        return Err(too_long());
    }
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if (body.len() + chunk.len()) as u64 > limit_bytes => return Err(too_long()),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body.freeze()),
            Err(error) => return Err(describe(&base_of(&url), &url, &error)),
        }
    }
}
