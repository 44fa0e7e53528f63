//! Taking over a client's connection. With `Upgrade` the answer is `101 UPGRADED` and the bytes
//! follow raw, both ways; without, the answer is a 200 whose body is the output and whose request
//! body is the input.

use std::future::Future;

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use futures::TryStreamExt as _;
use hyper::{ext::ReasonPhrase, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use model::Error;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_util::io::{ReaderStream, StreamReader};

use super::{Ended, Input, relay};
use crate::docker::{headers::Bare, version::RequestedVersion};

pub(crate) const RAW: &str = "application/vnd.docker.raw-stream";
const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";

/// Type of a stream: framed ones got a name of their own with 1.42.
pub(crate) fn content_type(tty: bool, version: RequestedVersion) -> &'static str {
    if tty || !version.at_least(42) { RAW } else { MULTIPLEXED }
}

/// The client's side of a stream.
#[derive(Debug)]
pub(crate) enum Client {
    /// Gives up HTTP once it has its 101.
    Upgrading(OnUpgrade),
    /// Stays with HTTP: its input is the rest of the request.
    Plain(Body),
}

impl Client {
    /// Splits a request into its head and the stream it wants.
    pub(crate) fn of(request: Request) -> (Parts, Self) {
        let (mut parts, body) = request.into_parts();
        let client = Self::of_head(&mut parts, body);
        (parts, client)
    }

    /// As [`Client::of`], for a request whose body was read already: `rest` is what follows it.
    pub(crate) fn of_head(parts: &mut Parts, rest: Body) -> Self {
        let wanted = wants_upgrade(&parts.headers);
        match parts.extensions.remove::<OnUpgrade>() {
            Some(upgrade) if wanted => Self::Upgrading(upgrade),
            _ => Self::Plain(rest),
        }
    }

    /// Answers with the stream and passes bytes until it ends; then runs `after`.
    pub(crate) fn connect<A, F>(
        self,
        agent: A,
        stream_type: &'static str,
        input: Input,
        after: impl FnOnce(Ended) -> F + Send + 'static,
    ) -> Response
    where
        A: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = ()> + Send,
    {
        self.connect_once(std::future::ready(agent), stream_type, input, after)
    }

    /// As [`Client::connect`]; the other side is asked for once the head of the answer is out. Clients
    /// that look for the stream below their HTTP library (docker-py does) lose what comes in one piece
    /// with the head, so nothing is begun that may speak before.
    pub(crate) fn connect_once<A, F>(
        self,
        agent: impl Future<Output = A> + Send + 'static,
        stream_type: &'static str,
        input: Input,
        after: impl FnOnce(Ended) -> F + Send + 'static,
    ) -> Response
    where
        A: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = ()> + Send,
    {
        match self {
            Self::Upgrading(upgrade) => {
                chassis::request::spawn(async move {
                    let ended = match upgrade.await {
                        Ok(client) => relay::run(TokioIo::new(client), agent.await, input).await,
                        Err(error) => {
                            tracing::debug!(%error, "a client left before its stream began");
                            Ended::Finished
                        }
                    };
                    after(ended).await;
                });
                switched(stream_type)
            }
            Self::Plain(body) => {
                let (mut to_client, reading) = tokio::io::duplex(64 * 1024);
                // A request without a body is not a client that has left.
                let input = Input { ends_stream: false, ..input };
                chassis::request::spawn(async move {
                    let (mut from_agent, mut to_agent) = tokio::io::split(agent.await);
                    let mut typed = StreamReader::new(body.into_data_stream().map_err(std::io::Error::other));
                    let ended = tokio::select! {
                        () = relay::down(&mut from_agent, &mut to_client) => Ended::Finished,
                        () = relay::up(&mut typed, &mut to_agent, input) => Ended::Detached,
                    };
                    let _ = to_client.shutdown().await;
                    after(ended).await;
                });
                let mut response = Body::from_stream(ReaderStream::new(reading)).into_response();
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(RAW));
                response
            }
        }
    }
}

/// A stream that consists of one frame on stdout and ends: how dockerd tells of an exec that fails after
/// the connection was taken over.
pub(crate) fn told(text: &str, raw: bool) -> tokio::io::DuplexStream {
    let payload = format!("{text}\r\n").into_bytes();
    let mut bytes = Vec::with_capacity(payload.len() + 8);
    if !raw {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&[1, 0, 0, 0]);
        bytes.extend_from_slice(&length.to_be_bytes());
    }
    bytes.extend_from_slice(&payload);
    let (agent, mut writer) = tokio::io::duplex(bytes.len().max(1));
    tokio::spawn(async move {
        let _ = writer.write_all(&bytes).await;
    });
    agent
}

fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|value| !value.is_empty())
}

fn switched(stream_type: &'static str) -> Response {
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(stream_type));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    // Clients in the wild look for dockerd's own wording.
    response.extensions_mut().insert(ReasonPhrase::from_static(b"UPGRADED"));
    response
}

/// An error on a connection that was to be taken over: plain text, not JSON, and the end of it.
pub(crate) fn plain_error(error: &Error) -> Response {
    if let Error::Internal(source) = error {
        tracing::error!(error = %source, "a request failed inside");
    }
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Body::from(format!("{}\r\n", error.public_message()))).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(RAW));
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response.extensions_mut().insert(Bare);
    response
}
