//! What happens to every request of every server: an id, a span, a log line, two metrics, and an
//! answer even when the handler panics.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Method, StatusCode},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures::FutureExt as _;
use model::Error;
use tracing::{Instrument as _, Span, field};

use super::{ops, peer::Peer};
use crate::{
    error::Failure,
    metrics::{HttpMetrics, Metrics},
    request::{self, REQUEST_ID, RequestContext, RequestId},
};

/// Watches the requests of one process.
#[derive(Clone, Debug)]
pub(crate) struct Observer {
    metrics: HttpMetrics,
    trust_request_id: bool,
}

impl Observer {
    pub(crate) fn new(metrics: &Metrics, trust_request_id: bool) -> Arc<Self> {
        Arc::new(Self { metrics: HttpMetrics::new(metrics), trust_request_id })
    }

    fn trusts(&self, peer: Option<&Peer>) -> bool {
        self.trust_request_id || peer.is_some_and(|p| p.identity().is_some() || p.unix_uid.is_some())
    }
}

/// The route of a request that no route matched.
const UNMATCHED: &str = "unmatched";

/// What is known of a request before it is answered.
struct Seen {
    method: Method,
    route: String,
    start: Instant,
}

impl Seen {
    fn new(request: &Request) -> Self {
        let route = request.extensions().get::<MatchedPath>().map_or(UNMATCHED, MatchedPath::as_str).to_owned();
        Self { method: request.method().clone(), route, start: Instant::now() }
    }

    /// A service with a router behind its router leaves the route in its response's extensions.
    fn told_by(self, response: &Response) -> Self {
        let Some(inner) = response.extensions().get::<MatchedPath>().filter(|_| self.route == UNMATCHED) else {
            return self;
        };
        let told = Self { route: inner.as_str().to_owned(), ..self };
        let span = Span::current();
        span.record("route", &told.route);
        span.record("otel.name", format!("{} {}", told.method, told.route));
        told
    }

    /// Anyone can invent methods; a metric has a label for the known ones only.
    fn method_label(&self) -> &str {
        match self.method {
            Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::DELETE
            | Method::PATCH
            | Method::OPTIONS => self.method.as_str(),
            _ => "OTHER",
        }
    }
}

/// The layer of every server.
pub(crate) async fn observe(State(observer): State<Arc<Observer>>, mut request: Request, next: Next) -> Response {
    let seen = Seen::new(&request);
    let trusted = observer.trusts(request.extensions().get::<Peer>());
    let context = RequestContext::from_headers(request.headers(), trusted);
    let id = context.id().clone();
    let span = tracing::info_span!(
        "request",
        otel.name = format!("{} {}", seen.method, seen.route),
        otel.kind = "server",
        otel.status_code = field::Empty,
        request_id = &*id,
        method = %seen.method,
        route = seen.route,
        status = field::Empty,
    );
    request::adopt(&span, request.headers());
    request.extensions_mut().insert(RequestId(id.clone()));
    let work = AssertUnwindSafe(next.run(request)).catch_unwind();
    let answered = context.scope(
        async {
            let mut response = work.await.unwrap_or_else(|panic| panicked(&*panic));
            record(&observer, &seen.told_by(&response), response.status());
            if let Ok(value) = HeaderValue::from_str(&id) {
                response.headers_mut().insert(REQUEST_ID, value);
            }
            response
        }
        .instrument(span),
    );
    answered.await
}

fn record(observer: &Observer, seen: &Seen, status: StatusCode) {
    let (span, elapsed) = (Span::current(), seen.start.elapsed());
    span.record("status", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    let duration_ms = elapsed.as_micros() as f64 / 1000.0;
    if ops::PATHS.contains(&seen.route.as_str()) {
        tracing::debug!(target: "access", duration_ms, "answered");
    } else {
        tracing::info!(target: "access", duration_ms, "answered");
    }
    let method = seen.method_label();
    observer.metrics.requests.with_label_values(&[method, &seen.route, status.as_str()]).inc();
    observer.metrics.duration.with_label_values(&[method, &seen.route]).observe(elapsed.as_secs_f64());
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Failure(Error::Internal(format!("a handler panicked: {}", text.unwrap_or("no text")))).into_response()
}

/// A layer for routers of internal APIs: only these identities get through (see
/// [`Peer::require_any`]). `router.layer(axum::middleware::from_fn(http::only(&["service:gateway"])))`.
pub fn only(
    identities: &'static [&'static str],
) -> impl Fn(Request, Next) -> futures::future::BoxFuture<'static, Response> + Clone + Send + Sync + 'static {
    move |request, next| {
        Box::pin(async move {
            let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
            match peer.require_any(identities) {
                Ok(()) => next.run(request).await,
                Err(error) => Failure(error).into_response(),
            }
        })
    }
}
