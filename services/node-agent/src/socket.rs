//! `/var/run/docker.sock` of containers: a unix socket of its own for each, that leads to its own
//! project's API. What is said there is passed on to the gateway's listener for hosts, with this
//! host's certificate and the name of the run that asks; whether that opens anything is the gateway's
//! to decide, for each request.
//!
//! The listening socket is made and kept by the container's shim ([`runtime::RunDir::docker_socket`]), and
//! taken over from it: it outlives the agent, so the bind mount in the container never goes stale, and
//! whoever connects while there is no agent waits for the next one. With the run everything ends.

mod relay;
mod streams;

use std::io;

use chassis::{CancellationToken, http::Bound, limits::HttpLimits, reqwest};
use contract::{host::PlannedContainer, socket::Claim};
use model::Progress;
use tokio::net::UnixListener;
use tokio_util::sync::DropGuard;

use crate::{host::SharedHost, shims};

/// Connections at a time of one container.
const CONNECTIONS: usize = 256;

/// The way to the gateway.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    http: reqwest::Client,
    base: String,
}

impl Gateway {
    /// At an address, by a client that shows this host's certificate.
    pub(crate) fn new(base: &str, http: reqwest::Client) -> Self {
        Self { http, base: base.trim_end_matches('/').to_owned() }
    }
}

/// Passes on what a run's processes say to its sockets, if it has any, until the answer is dropped.
pub(crate) fn serve(host: &SharedHost, plan: &PlannedContainer, of: Progress) -> Option<DropGuard> {
    if plan.spec.docker_sockets.is_empty() {
        return None;
    }
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    let claim = Claim { container: plan.id.clone(), run: of.run, restart: of.restart };
    let (host, id) = (host.clone(), plan.id.clone());
    tokio::spawn(async move {
        match take_over(&host, &claim).await {
            Ok(listener) => {
                let limits = HttpLimits { connections: CONNECTIONS, ..HttpLimits::default() };
                let router = relay::router(host.gateway.clone(), &claim, stop.clone());
                Bound::unix(listener, router, limits).serve(stop).await;
            }
            Err(error) => tracing::error!(container = %id, %error, "its Docker socket does not answer"),
        }
    });
    Some(guard)
}

async fn take_over(host: &SharedHost, claim: &Claim) -> io::Result<UnixListener> {
    let run_dir = host.places.run_dir(&claim.container);
    let listener = tokio::task::spawn_blocking(move || shims::docker_socket(&run_dir)).await??;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}
