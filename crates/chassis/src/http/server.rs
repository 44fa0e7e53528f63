//! A server: described by the service, bound late, drained at the end.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{Router, extract::DefaultBodyLimit, middleware};
use tokio::{net::UnixListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    connection::{self, Shared},
    endless, layers,
    listen::{Listen, Socket},
    ops,
};
use crate::{
    limits::HttpLimits,
    run::Ctx,
    tls::{Acceptor, ServerTls},
};

/// A server that a service wants. Nothing is bound until [`Server::bind`].
#[derive(Clone, Debug)]
pub struct Server {
    /// Where.
    pub listen: Listen,
    /// With TLS, or plain.
    pub tls: Option<ServerTls>,
    /// What it answers.
    pub router: Router,
    /// Its limits.
    pub limits: HttpLimits,
    /// Whether a client that closed its sending side while a handler works still gets its answer.
    /// Upgraded streams close one side at a time in any case. The price of `true`: a client that is
    /// gone altogether is noticed only when something is written to it, so a handler that waits or an
    /// idle stream goes on; with `false` it is dropped at once, as dockerd does.
    pub half_close: bool,
    ops: bool,
}

impl Server {
    /// A server on a listener.
    #[must_use]
    pub fn new(listen: Listen, router: Router) -> Self {
        Self { listen, tls: None, router, limits: HttpLimits::default(), half_close: false, ops: false }
    }

    /// A server on a TCP address.
    #[must_use]
    pub fn tcp(address: SocketAddr, router: Router) -> Self {
        Self::new(Listen::Tcp(address), router)
    }

    /// A server on a unix socket.
    #[must_use]
    pub fn unix(path: impl Into<PathBuf>, router: Router) -> Self {
        Self::new(Listen::Unix(path.into()), router)
    }

    /// With TLS.
    #[must_use]
    pub fn with_tls(self, tls: ServerTls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Answers `/healthz`, `/readyz` and `/metrics` here too.
    #[must_use]
    pub fn with_ops(self) -> Self {
        Self { ops: true, ..self }
    }

    /// With other limits.
    #[must_use]
    pub fn with_limits(self, limits: HttpLimits) -> Self {
        Self { limits, ..self }
    }

    /// Answers clients that closed their sending side; see [`Server::half_close`].
    #[must_use]
    pub fn with_half_close(self) -> Self {
        Self { half_close: true, ..self }
    }

    /// Plain HTTP with nothing but the ops endpoints.
    pub(crate) fn ops_only(address: SocketAddr) -> Self {
        Self::tcp(address, Router::new()).with_ops()
    }

    /// Loads the certificates and binds the listener.
    pub async fn bind(self, ctx: &Ctx) -> anyhow::Result<Bound> {
        let tls = self.tls.map(Acceptor::new).transpose()?;
        let socket = Socket::bind(&self.listen).await?;
        let router = if self.ops { self.router.merge(ops::router(ctx)) } else { self.router };
        let router = router
            .layer(DefaultBodyLimit::max(self.limits.body_bytes))
            .layer(middleware::from_fn_with_state(ctx.health().draining(), endless::cut))
            .layer(middleware::from_fn_with_state(ctx.observer().clone(), layers::observe));
        let address = socket.local_addr().map_or_else(|| self.listen.to_string(), |a| a.to_string());
        tracing::info!(address, tls = tls.is_some(), "listening");
        Ok(Bound { socket, router, tls, limits: self.limits, half_close: self.half_close })
    }
}

/// A server that is bound and not yet served.
pub struct Bound {
    socket: Socket,
    router: Router,
    tls: Option<Acceptor>,
    limits: HttpLimits,
    half_close: bool,
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound").field("local_addr", &self.local_addr()).finish_non_exhaustive()
    }
}

impl Bound {
    /// A unix socket that somebody else has bound, with nothing around what is answered there: no
    /// metrics, no request ids. For passing on what is counted where it arrives.
    #[must_use]
    pub fn unix(listener: UnixListener, router: Router, limits: HttpLimits) -> Self {
        Self { socket: Socket::Unix(listener), router, tls: None, limits, half_close: false }
    }

    /// The TCP address, with the port that the kernel chose if it was 0.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `stop`, then takes nothing new and returns when what was begun is done.
    pub async fn serve(self, stop: CancellationToken) {
        let permits = Arc::new(Semaphore::new(self.limits.connections));
        let connections = TaskTracker::new();
        let shared = Arc::new(Shared {
            router: self.router,
            tls: self.tls,
            limits: self.limits,
            half_close: self.half_close,
            stop: stop.clone(),
        });
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept(&self.socket, &permits) => accepted,
            };
            if let Some((stream, permit)) = accepted {
                let shared = shared.clone();
                connections.spawn(async move {
                    connection::serve(shared, stream).await;
                    drop(permit);
                });
            }
        }
        drop(self.socket);
        connections.close();
        connections.wait().await;
    }
}

async fn accept(
    socket: &Socket,
    permits: &Arc<Semaphore>,
) -> Option<(super::listen::Stream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.ok()?;
    match socket.accept().await {
        Ok(stream) => Some((stream, permit)),
        Err(error) => {
            // Out of descriptors, or a connection that was reset before we took it.
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}
