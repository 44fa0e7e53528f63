//! The stream that tells a host what to do: everything first, then each change within a wake-up.
//! The connection carries the only state there is, the generation sent last; a host that connects
//! again starts from everything.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{Query, State as Shared},
    http::header,
    response::Response,
};
use bytes::Bytes;
use chassis::{Caller, CancellationToken, bus::Wakeups, error::Answer};
use contract::{
    host::{HostDelta, PlanQuery},
    wake::Topic,
};
use model::{Error, HostId, Result};
use store::Store;
use tokio::time::Instant;

use crate::State;

/// A lost wake-up costs at most this.
const SWEEP: Duration = Duration::from_secs(2);
/// A blank line this often tells the host that somebody is there, and us that the host is.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// A host's own plan, as an endless stream of lines.
#[utoipa::path(
    get, path = contract::host::PLAN, tag = "hosts",
    responses(
        (status = 200, description = "NDJSON: a full delta, then changes; blank lines are heartbeats",
         body = HostDelta, content_type = "application/x-ndjson"),
        (status = 401, description = "No host's certificate"),
        (status = 403, description = "The host is no longer part of the fleet"),
    )
)]
pub(crate) async fn plan(
    Shared(state): Shared<State>,
    caller: Caller,
    Query(said): Query<PlanQuery>,
) -> Answer<Response> {
    let host = caller.require_host()?;
    if let (Some(address), Some(agent_port)) = (said.address, said.agent_port) {
        for peer in state.store.host_reached_at(host, address, agent_port).await? {
            state.bus.publish(&Topic::Host(peer));
        }
    }
    // Listen first, then read: what changes in between wakes us.
    let wakeups = state.bus.subscribe(&Topic::Host(host));
    let first = state.store.host_changes(host, None).await?.unwrap_or_default();
    tracing::info!(%host, incarnation = said.incarnation, generation = first.generation, containers = first.containers.len(), "a host connected");
    let feed = Feed {
        host,
        generation: first.generation,
        store: state.store,
        wakeups,
        draining: state.draining,
        heartbeat_at: Instant::now() + HEARTBEAT,
        first: Some(first),
    };
    let lines = futures::stream::unfold(feed, |mut feed| async move { feed.next().await.map(|line| (line, feed)) });
    Response::builder()
        .header(header::CONTENT_TYPE, "application/x-ndjson")
        .body(Body::from_stream(lines))
        .map_err(|error| Error::internal(error).into())
}

struct Feed {
    host: HostId,
    generation: i64,
    store: Store,
    wakeups: Wakeups,
    draining: CancellationToken,
    heartbeat_at: Instant,
    first: Option<HostDelta>,
}

impl Feed {
    /// The next line; `None` when the service stops or the host is no host any more.
    async fn next(&mut self) -> Option<Result<Bytes>> {
        if let Some(first) = self.first.take() {
            return Some(line(&first));
        }
        loop {
            let until_heartbeat = self.heartbeat_at.saturating_duration_since(Instant::now());
            tokio::select! {
                () = self.draining.cancelled() => return None,
                () = self.wakeups.woken(SWEEP.min(until_heartbeat)) => {}
            }
            match self.store.host_changes(self.host, Some(self.generation)).await {
                Ok(Some(delta)) => {
                    self.generation = delta.generation;
                    self.heartbeat_at = Instant::now() + HEARTBEAT;
                    return Some(line(&delta));
                }
                Ok(None) => {}
                Err(Error::Forbidden(why)) => {
                    tracing::info!(host = %self.host, why, "plan stream ends");
                    return None;
                }
                // The host goes on with what it has; it is told when Postgres is back.
                Err(error) => tracing::warn!(host = %self.host, %error, "cannot read a host's plan"),
            }
            if Instant::now() >= self.heartbeat_at {
                self.heartbeat_at = Instant::now() + HEARTBEAT;
                return Some(Ok(Bytes::from_static(b"\n")));
            }
        }
    }
}

fn line(delta: &HostDelta) -> Result<Bytes> {
    let mut text = serde_json::to_vec(delta).map_err(Error::internal)?;
    text.push(b'\n');
    Ok(text.into())
}
