//! One request at a time from a container to the gateway and back: bodies as streams, upgraded
//! connections as bytes, one direction closed at a time. Nothing is looked into but the head.

use chassis::{
    CancellationToken,
    axum::{
        Json, Router,
        body::{Body, HttpBody as _},
        extract::{Request, State},
        http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
        response::{IntoResponse as _, Response},
    },
    reqwest,
};
use contract::socket::{CLAIM, Claim};
use futures::StreamExt as _;
use hyper::{ext::ReasonPhrase, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, copy, split};

use super::{
    Gateway,
    streams::{self, Open, Streams},
};

/// Of one connection, not of what it carries.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// On whose behalf, and where to.
#[derive(Clone)]
struct Way {
    gateway: Gateway,
    claim: HeaderValue,
    streams: Streams,
}

/// Passes everything on.
pub(super) fn router(gateway: Gateway, claim: &Claim, stop: CancellationToken) -> Router {
    // An id and two numbers.
    let claim = HeaderValue::from_str(&claim.to_string()).unwrap_or(HeaderValue::from_static(""));
    let way = Way { gateway, claim, streams: Streams::new(stop) };
    let asking = way.clone();
    tokio::spawn(way.streams.clone().watch(streams::EVERY, async move || asking.is_admitted().await));
    Router::new().fallback(forward).with_state(way)
}

impl Way {
    /// What the gateway says to a request that asks for nothing.
    async fn is_admitted(&self) -> Option<StatusCode> {
        let url = format!("{}/_ping", self.gateway.base);
        let answer = self.gateway.http.get(url).header(CLAIM, self.claim.clone()).send().await;
        answer.ok().map(|answer| answer.status())
    }
}

async fn forward(State(way): State<Way>, mut request: Request) -> Response {
    let Some(target) = request.uri().path_and_query().filter(|_| request.method() != Method::CONNECT) else {
        return refused(StatusCode::BAD_REQUEST, "malformed request");
    };
    let url = format!("{}{target}", way.gateway.base);
    let upgrade = request.headers().get(header::UPGRADE).cloned();
    let connection = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    let open = way.streams.open();
    let (parts, body) = request.into_parts();
    let headers = onward(parts.headers, upgrade, &way.claim);
    let mut request = way.gateway.http.request(parts.method, url).headers(headers);
    if !body.is_end_stream() {
        request = request.body(reqwest::Body::wrap_stream(body.into_data_stream()));
    }
    let answer = tokio::select! {
        answer = request.send() => answer,
        () = open.cut.cancelled() => return refused(StatusCode::UNAUTHORIZED, "this container may not ask any more"),
    };
    match (answer, connection) {
        (Ok(answer), Some(connection)) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
            switch(answer, connection, open)
        }
        (Ok(answer), _) => back(answer, open),
        (Err(error), _) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the gateway does not answer a container");
            refused(StatusCode::SERVICE_UNAVAILABLE, "the API of this project does not answer now; try again")
        }
    }
}

/// What goes on to the gateway: a container has no credential but the one its host shows for it.
fn onward(mut headers: HeaderMap, upgrade: Option<HeaderValue>, claim: &HeaderValue) -> HeaderMap {
    without_hop_by_hop(&mut headers);
    for name in [header::AUTHORIZATION, header::HOST, header::EXPECT] {
        headers.remove(name);
    }
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    headers.insert(CLAIM, claim.clone());
    headers
}

fn without_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(|name| name.trim().to_ascii_lowercase()))
        .collect();
    for name in named {
        headers.remove(name.as_str());
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// An answer with its body as it comes.
fn back(answer: reqwest::Response, open: Open) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    without_hop_by_hop(response.headers_mut());
    let body = answer.bytes_stream().take_until(open.cut.clone().cancelled_owned());
    *response.body_mut() = Body::from_stream(body.inspect(move |_| _ = &open));
    response
}

/// A connection that was taken over, at both ends.
fn switch(answer: reqwest::Response, connection: OnUpgrade, open: Open) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer.headers().clone();
    if answer.headers().get(header::UPGRADE).is_some_and(|protocol| protocol == "tcp") {
        // Clients in the wild look for dockerd's own wording.
        response.extensions_mut().insert(ReasonPhrase::from_static(b"UPGRADED"));
    }
    tokio::spawn(async move {
        let ends = tokio::try_join!(async { connection.await.map_err(|e| e.to_string()) }, async {
            answer.upgrade().await.map_err(|e| e.to_string())
        });
        match ends {
            Ok((container, gateway)) => tokio::select! {
                () = pass(TokioIo::new(container), gateway) => {}
                () = open.cut.cancelled() => {}
            },
            Err(error) => tracing::debug!(error, "an upgrade did not come about"),
        }
    });
    response
}

/// Until the gateway's side has ended. The end of what the container sends is the end of that direction alone.
async fn pass(container: impl AsyncRead + AsyncWrite, gateway: impl AsyncRead + AsyncWrite) {
    let (mut from_container, mut to_container) = split(container);
    let (mut from_gateway, mut to_gateway) = split(gateway);
    let down = async {
        let _ = copy(&mut from_gateway, &mut to_container).await;
        let _ = to_container.shutdown().await;
    };
    let up = async {
        let _ = copy(&mut from_container, &mut to_gateway).await;
        let _ = to_gateway.shutdown().await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = down => {}
        () = up => {}
    }
}

fn refused(status: StatusCode, message: &str) -> Response {
    (status, Json(serde_json::json!({ "message": message }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_brings_no_credential_of_its_own() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer whf_stolen"),
            (CLAIM, "somebody else"),
            ("connection", "Upgrade, X-Private"),
            ("x-private", "1"),
            ("upgrade", "tcp"),
            ("host", "docker"),
            ("x-registry-auth", "kept"),
            ("content-length", "3"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers.append(CLAIM, HeaderValue::from_static("twice"));
        let claim = HeaderValue::from_static("mine 1 0");
        let sent = onward(headers, Some(HeaderValue::from_static("tcp")), &claim);
        assert_eq!(sent.get_all(CLAIM).iter().collect::<Vec<_>>(), [&claim]);
        for gone in ["authorization", "x-private", "host"] {
            assert!(!sent.contains_key(gone), "{gone}");
        }
        assert_eq!(sent[header::CONNECTION], "Upgrade");
        assert_eq!(
            (&sent["x-registry-auth"], &sent["content-length"]),
            (&"kept".parse().expect("v"), &"3".parse().expect("v"))
        );
    }
}
