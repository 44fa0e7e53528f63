//! A container's streams over a WebSocket: what it says are messages, whose bytes are the output of
//! both streams as they are; what the client sends are its input, in messages of either kind. Frames
//! of the agent's own stream are taken apart here. The end of the WebSocket is the client's leaving.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures::{Sink as _, Stream as _};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{
            CloseFrame, Role, WebSocketConfig,
            frame::{
                Frame,
                coding::{CloseCode, Data, OpCode},
            },
        },
    },
};

use super::{Ended, Input, relay};
use crate::{docker::headers::Bare, limits::WEBSOCKET_MESSAGE_BYTES};

/// How long a client may take to say goodbye once we have.
const GOODBYE: Duration = Duration::from_secs(5);

/// A client that asked for a WebSocket, in order.
#[derive(Debug)]
pub(crate) struct Handshake {
    upgrade: OnUpgrade,
    accept: HeaderValue,
    protocol: Option<HeaderValue>,
}

/// Why a handshake fails; dockerd's words, but for the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    NotWebSocket,
    NoKey,
    Version,
    Protocol,
    /// A browser on another site's page: it would send along what its user is known here by.
    Origin,
}

impl Failure {
    /// A bare status and a text, as dockerd's own, and the end of the connection.
    pub(crate) fn answer(self) -> Response {
        let (status, text) = match self {
            Self::NotWebSocket => (StatusCode::BAD_REQUEST, "not websocket protocol"),
            Self::NoKey => (StatusCode::BAD_REQUEST, "mismatch challenge/response"),
            Self::Version => (StatusCode::BAD_REQUEST, "missing or bad WebSocket Version"),
            Self::Protocol => (StatusCode::BAD_REQUEST, "missing or bad WebSocket-Protocol"),
            Self::Origin => (StatusCode::FORBIDDEN, "a page of another site may not attach to containers"),
        };
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        if self == Self::Version {
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        response.extensions_mut().insert(Bare);
        response
    }
}

impl Handshake {
    /// Checks what the client asks for.
    pub(crate) fn of(mut parts: Parts) -> Result<Self, Failure> {
        let text = |name| parts.headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or_default();
        let asked = text(header::UPGRADE).eq_ignore_ascii_case("websocket")
            && text(header::CONNECTION).to_ascii_lowercase().contains("upgrade");
        let key = text(header::SEC_WEBSOCKET_KEY);
        let protocol = parts.headers.get(header::SEC_WEBSOCKET_PROTOCOL).cloned();
        let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()));
        let failure = if !asked {
            Some(Failure::NotWebSocket)
        } else if key.is_empty() {
            Some(Failure::NoKey)
        } else if text(header::SEC_WEBSOCKET_VERSION) != "13" {
            Some(Failure::Version)
        } else if protocol.as_ref().is_some_and(|one| one.as_bytes().contains(&b',')) {
            Some(Failure::Protocol)
        } else if !is_of_this_site(&parts.headers) {
            Some(Failure::Origin)
        } else {
            None
        };
        match (failure, parts.extensions.remove::<OnUpgrade>(), accept) {
            (None, Some(upgrade), Ok(accept)) => Ok(Self { upgrade, accept, protocol }),
            (failure, ..) => Err(failure.unwrap_or(Failure::NotWebSocket)),
        }
    }

    /// Answers with the WebSocket and passes bytes until it ends; then runs `after`. `framed`: the
    /// agent's stream is frames. `binary`: so are the messages, otherwise they are called text.
    pub(crate) fn connect<A, F>(
        self,
        agent: A,
        (framed, binary): (bool, bool),
        input: Input,
        after: impl FnOnce(Ended) -> F + Send + 'static,
    ) -> Response
    where
        A: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = ()> + Send,
    {
        let Self { upgrade, accept, protocol } = self;
        // A client cannot end its input and stay.
        let input = Input { ends_stream: true, ..input };
        chassis::request::spawn(async move {
            let ended = match upgrade.await {
                Ok(client) => {
                    let socket = WebSocketStream::from_raw_socket(TokioIo::new(client), Role::Server, Some(bounds()));
                    relay::run(Messages::new(socket.await, framed, binary), agent, input).await
                }
                Err(error) => {
                    tracing::debug!(%error, "a client left before its stream began");
                    Ended::Finished
                }
            };
            after(ended).await;
        });
        let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        if let Some(protocol) = protocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        response.extensions_mut().insert(Bare);
        response
    }
}

/// Programs send no origin, or what their library puts there; browsers send the page's, and with it
/// whatever credential of ours they keep.
fn is_of_this_site(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let authority = origin.to_str().ok().and_then(|o| o.split_once("://")).map(|(_, authority)| authority);
    let Some(authority) = authority.filter(|a| !a.is_empty()) else { return false };
    let host = authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let host = host.map_or(authority, |(host, _)| host);
    let ours = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    authority.eq_ignore_ascii_case(ours) || matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

fn bounds() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(WEBSOCKET_MESSAGE_BYTES))
        .max_frame_size(Some(WEBSOCKET_MESSAGE_BYTES))
        // What was written is on its way: one message waits at most.
        .write_buffer_size(0)
        .max_write_buffer_size(2 * WEBSOCKET_MESSAGE_BYTES)
}

/// A WebSocket as a stream of bytes.
struct Messages<S> {
    socket: WebSocketStream<S>,
    binary: bool,
    frames: Option<Frames>,
    /// What of the last message has not been read.
    unread: Bytes,
    /// The client said goodbye, or is gone.
    over: bool,
    goodbye: Option<Pin<Box<Sleep>>>,
}

/// Where in the agent's frames we are.
#[derive(Debug, Default)]
struct Frames {
    header: Vec<u8>,
    /// Bytes of the current frame that are still to come.
    left: usize,
}

impl Frames {
    /// How many of these bytes are no payload, and how many after them are.
    fn cut(&mut self, bytes: &[u8]) -> (usize, usize) {
        let mut skipped = 0;
        while self.left == 0 && skipped < bytes.len() {
            let rest = &bytes[skipped..];
            let taken = rest.len().min(8 - self.header.len());
            self.header.extend_from_slice(&rest[..taken]);
            skipped += taken;
            if let [_, _, _, _, length @ ..] = self.header.as_slice()
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                self.left = u32::from_be_bytes(length) as usize;
                self.header.clear();
            }
        }
        let payload = self.left.min(bytes.len() - skipped);
        self.left -= payload;
        (skipped, payload)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Messages<S> {
    fn new(socket: WebSocketStream<S>, framed: bool, binary: bool) -> Self {
        let frames = framed.then(Frames::default);
        Self { socket, binary, frames, unread: Bytes::new(), over: false, goodbye: None }
    }

    fn message(&self, payload: &[u8]) -> Message {
        let payload = Bytes::copy_from_slice(payload);
        if self.binary {
            return Message::Binary(payload);
        }
        // Not checked, as dockerd does not: a container may say anything.
        Message::Frame(Frame::message(payload, OpCode::Data(Data::Text), true))
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => Some(bytes),
                Some(Ok(Message::Text(text))) => Some(text.into()),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Close(_)) | Err(_)) | None => {
                    self.over = true;
                    None
                }
            });
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Messages<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.next(cx)) {
                Some(bytes) => self.unread = bytes,
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread.split_to(n));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Messages<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(io::Error::other)?;
        let (skipped, payload) = self.frames.as_mut().map_or((0, bytes.len()), |frames| frames.cut(bytes));
        if payload > 0 {
            let message = self.message(&bytes[skipped..skipped + payload]);
            Pin::new(&mut self.socket).start_send(message).map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(skipped + payload))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(io::Error::other)
    }

    /// Says goodbye and waits for the client's, a while: closing on what it still sends would cut off
    /// the end of what it has not read yet.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.goodbye.is_none() {
            if !self.over {
                ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(io::Error::other)?;
                let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                Pin::new(&mut self.socket).start_send(Message::Close(Some(normal))).map_err(io::Error::other)?;
            }
            self.goodbye = Some(Box::pin(tokio::time::sleep(GOODBYE)));
        }
        if self.goodbye.as_mut().is_some_and(|goodbye| goodbye.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Ok(()));
        }
        // The answer to the client's own goodbye is in there, if it was the first to say it.
        ready!(Pin::new(&mut self.socket).poll_flush(cx)).map_err(io::Error::other)?;
        while !self.over {
            ready!(self.next(cx));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn refusal(change: impl FnOnce(&mut HeaderMap)) -> Option<Failure> {
        let mut parts = Request::new(()).into_parts().0;
        for (name, value) in [
            (header::HOST, "docker:2375"),
            (header::CONNECTION, "keep-alive, Upgrade"),
            (header::UPGRADE, "WebSocket"),
            (header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
            (header::SEC_WEBSOCKET_VERSION, "13"),
        ] {
            parts.headers.insert(name, HeaderValue::from_static(value));
        }
        change(&mut parts.headers);
        // Without a connection the last step fails in any case.
        Handshake::of(parts).err().filter(|failure| *failure != Failure::NotWebSocket)
    }

    #[test]
    fn a_handshake_that_is_none_is_refused_for_what_it_lacks() {
        let without = |name: header::HeaderName| refusal(move |headers| drop(headers.remove(name)));
        assert_eq!(refusal(|_| {}), None);
        assert_eq!(without(header::SEC_WEBSOCKET_KEY), Some(Failure::NoKey));
        assert_eq!(without(header::SEC_WEBSOCKET_VERSION), Some(Failure::Version));
        let two = HeaderValue::from_static("a, b");
        assert_eq!(
            refusal(|headers| drop(headers.insert(header::SEC_WEBSOCKET_PROTOCOL, two))),
            Some(Failure::Protocol)
        );
    }

    #[test]
    fn a_page_of_another_site_does_not_get_a_websocket() {
        let from = |origin: &'static str| {
            refusal(|headers| drop(headers.insert(header::ORIGIN, HeaderValue::from_static(origin))))
        };
        for good in ["http://docker:2375", "http://localhost", "http://localhost:3000", "http://127.0.0.1:9"] {
            assert_eq!(from(good), None, "{good}");
        }
        for bad in ["https://evil.example", "null", "http://docker:2376", "http://localhost.evil.example", "http://"] {
            assert_eq!(from(bad), Some(Failure::Origin), "{bad}");
        }
    }

    #[test]
    fn frames_are_taken_apart_wherever_they_are_cut() {
        let stream =
            [&[1, 0, 0, 0, 0, 0, 0, 3][..], b"out", &[2, 0, 0, 0, 0, 0, 0, 0], &[2, 0, 0, 0, 0, 0, 0, 2], b"er"]
                .concat();
        for piece in 1..=stream.len() {
            let (mut frames, mut payload) = (Frames::default(), Vec::new());
            for mut bytes in stream.chunks(piece) {
                while !bytes.is_empty() {
                    let (skipped, taken) = frames.cut(bytes);
                    payload.extend_from_slice(&bytes[skipped..skipped + taken]);
                    bytes = &bytes[skipped + taken..];
                }
            }
            assert_eq!(payload, b"outer", "in pieces of {piece}");
        }
    }
}
