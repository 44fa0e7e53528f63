//! What a request carries through the suite: its id, and the trace it belongs to. It is bound to
//! the task that serves the request; work spawned from there keeps it by [`spawn`].

use std::{future::Future, sync::Arc};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tokio::task::JoinHandle;
use tracing::{Instrument as _, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::ids;

/// `x-request-id`.
pub const REQUEST_ID: HeaderName = HeaderName::from_static(contract::REQUEST_ID);
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const LONGEST_ID: usize = 128;

tokio::task_local! {
    static CURRENT: RequestContext;
}

/// The id of a request, also found in the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub Arc<str>);

/// A request's id and the trace headers it came with.
#[derive(Clone, Debug)]
pub struct RequestContext {
    id: Arc<str>,
    traceparent: Option<HeaderValue>,
    tracestate: Option<HeaderValue>,
}

impl RequestContext {
    /// A context with a new id, for work that no request began.
    #[must_use]
    pub fn new() -> Self {
        Self { id: new_id(), traceparent: None, tracestate: None }
    }

    /// The context of the request that this task serves.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// From a request's headers; its id only if the sender is trusted and it is well formed.
    pub(crate) fn from_headers(headers: &HeaderMap, trusted: bool) -> Self {
        let sent =
            headers.get(REQUEST_ID).filter(|_| trusted).and_then(|v| v.to_str().ok()).filter(|id| well_formed(id));
        Self {
            id: sent.map_or_else(new_id, Arc::from),
            traceparent: headers.get(TRACEPARENT).cloned(),
            tracestate: headers.get(TRACESTATE).cloned(),
        }
    }

    /// The request's id.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Runs a future as part of this request.
    pub async fn scope<F: Future>(self, future: F) -> F::Output {
        CURRENT.scope(self, future).await
    }
}

impl Default for RequestContext {
    fn default() -> Self {
        Self::new()
    }
}

/// The id of the request that this task serves.
#[must_use]
pub fn current_id() -> Option<Arc<str>> {
    CURRENT.try_with(|context| context.id.clone()).ok()
}

/// Spawns a task that belongs to the current request: same id, same span.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let future = future.instrument(Span::current());
    match RequestContext::current() {
        Some(context) => tokio::spawn(context.scope(future)),
        None => tokio::spawn(future),
    }
}

/// Makes a span a child of the trace in the headers, if there is one.
pub(crate) fn adopt(span: &Span, headers: &HeaderMap) {
    if headers.contains_key(TRACEPARENT) {
        let parent = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
        // Fails only where spans are not exported; then the headers are passed on as they came.
        let _ = span.set_parent(parent);
    }
}

/// Puts the current request's id and trace on an outgoing request.
pub fn inject(headers: &mut HeaderMap) {
    if let Some(context) = RequestContext::current() {
        if let Ok(id) = HeaderValue::from_str(&context.id) {
            headers.insert(REQUEST_ID, id);
        }
        if let Some(parent) = context.traceparent {
            headers.insert(TRACEPARENT, parent);
        }
        if let Some(state) = context.tracestate {
            headers.insert(TRACESTATE, state);
        }
    }
    // Where spans are exported, the child hangs under our own span instead of our caller's.
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut HeaderInjector(headers));
}

fn new_id() -> Arc<str> {
    Arc::from(ids::uuid_v7().simple().to_string())
}

fn well_formed(id: &str) -> bool {
    (1..=LONGEST_ID).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(id: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_static(id))])
    }

    #[test]
    fn a_request_id_is_taken_only_from_the_trusted_and_only_if_well_formed() {
        assert_eq!(&**RequestContext::from_headers(&headers("abc-1"), true).id(), "abc-1");
        assert_ne!(&**RequestContext::from_headers(&headers("abc-1"), false).id(), "abc-1");
        assert_ne!(&**RequestContext::from_headers(&headers("a b"), true).id(), "a b");
    }

    #[tokio::test]
    async fn a_spawned_task_keeps_the_request() {
        let context = RequestContext::new();
        let id = context.id().clone();
        let seen = context.scope(async { spawn(async { current_id() }).await }).await.expect("joins");
        assert_eq!(seen, Some(id));
    }

    #[tokio::test]
    async fn trace_headers_pass_through_unchanged_without_an_exporter() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let incoming = HeaderMap::from_iter([(TRACEPARENT, HeaderValue::from_static(parent))]);
        let context = RequestContext::from_headers(&incoming, false);
        let out = context
            .scope(async {
                let mut out = HeaderMap::new();
                inject(&mut out);
                out
            })
            .await;
        assert_eq!(out[TRACEPARENT], parent);
    }
}
