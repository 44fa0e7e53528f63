//! One connection: handshake, who it is, requests until it ends. When the client goes away, what it
//! asked for is dropped; an upgraded stream belongs to its handler and closes one side at a time.

use std::{pin::pin, sync::Arc};

use axum::{Router, body::Body, http::Request};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{
    listen::Stream,
    peer::{Peer, PeerCertificate},
    sending::Sending,
};
use crate::{limits::HttpLimits, tls::Acceptor};

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// What the connections of one server share.
pub(super) struct Shared {
    pub(super) router: Router,
    pub(super) tls: Option<Acceptor>,
    pub(super) limits: HttpLimits,
    pub(super) half_close: bool,
    pub(super) stop: CancellationToken,
}

pub(super) async fn serve(shared: Arc<Shared>, stream: Stream) {
    if let Err(error) = converse(&shared, stream).await {
        // Clients vanish and scanners talk nonsense: nothing an operator has to act on.
        tracing::debug!(%error, "connection ended");
    }
}

async fn converse(shared: &Shared, stream: Stream) -> Result<(), Failed> {
    match stream {
        Stream::Unix(stream, unix_uid) => http1(shared, stream, Peer { unix_uid, ..Peer::default() }).await,
        Stream::Tcp(stream, addr) => {
            let mut peer = Peer { addr: Some(addr), ..Peer::default() };
            let Some(acceptor) = &shared.tls else {
                return http1(shared, Sending::new(stream), peer).await;
            };
            let handshake = acceptor.current().accept(stream);
            let stream = tokio::time::timeout(shared.limits.handshake, handshake).await??;
            let (_, session) = stream.get_ref();
            let shown = session.peer_certificates().and_then(|chain| chain.first());
            peer.certificate = shown.map(|der| Arc::new(PeerCertificate::new(der, acceptor.verifies_clients())));
            if session.alpn_protocol() == Some(b"h2") {
                http2(shared, stream, peer).await
            } else {
                http1(shared, stream, peer).await
            }
        }
    }
}

async fn http1<I>(shared: &Shared, io: I, peer: Peer) -> Result<(), Failed>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .half_close(shared.half_close)
        .header_read_timeout(shared.limits.header_read)
        .max_headers(shared.limits.headers)
        .max_header_size(shared.limits.header_bytes);
    let router = shared.router.clone();
    let service = service_fn(move |request| router.clone().oneshot(with_peer(request, &peer)));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service).with_upgrades());
    tokio::select! {
        ended = connection.as_mut() => return Ok(ended?),
        () = shared.stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}

async fn http2<I>(shared: &Shared, io: I, peer: Peer) -> Result<(), Failed>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http2::Builder::new(TokioExecutor::new());
    let largest = u32::try_from(shared.limits.header_bytes).unwrap_or(u32::MAX);
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(shared.limits.header_read)
        .max_header_list_size(largest)
        .max_concurrent_streams(256);
    let router = shared.router.clone();
    let service = service_fn(move |request| router.clone().oneshot(with_peer(request, &peer)));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    tokio::select! {
        ended = connection.as_mut() => return Ok(ended?),
        () = shared.stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}

fn with_peer(request: Request<Incoming>, peer: &Peer) -> Request<Body> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(peer.clone());
    request
}
