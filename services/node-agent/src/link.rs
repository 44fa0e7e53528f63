//! The line to the scheduler: its plan comes down as an endless stream, reports go up. Containers
//! never notice when it is down; it is taken up again with a growing pause, and then everything is
//! told again.

use std::{io, time::Duration};

use chassis::{CancellationToken, axum::http::Method, backoff::Backoff, client::Internal};
use contract::host::{HostDelta, PLAN, PlanQuery};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use tokio_util::{
    codec::{FramedRead, LinesCodec},
    io::StreamReader,
};

use crate::{host::SharedHost, reconcile::Fleet};

/// The scheduler sends at least a blank line every five seconds: silence for this long is a dead line.
const SILENCE: Duration = Duration::from_secs(16);
/// A whole plan of some ten thousand containers in one line.
const LINE_MAX_BYTES: usize = 128 << 20;

/// Follows the plan for as long as the agent lives.
pub(crate) async fn follow(scheduler: Internal, host: SharedHost, fleet: Fleet, cancel: CancellationToken) {
    let said = PlanQuery {
        incarnation: uuid::Uuid::from_bytes(chassis::ids::random_bytes()).simple().to_string(),
        address: Some(host.config.advertise_address),
        agent_port: Some(host.config.listen.port()),
    };
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(3));
    loop {
        let outcome = tokio::select! {
            () = cancel.cancelled() => return,
            outcome = session(&scheduler, &host, &fleet, &said, &mut backoff) => outcome,
        };
        tracing::warn!(cause = outcome, "the plan stream ended");
        tokio::select! {
            () = cancel.cancelled() => return,
            () = backoff.wait() => {}
        }
    }
}

/// One connection, until it breaks; says why it did.
async fn session(
    scheduler: &Internal,
    host: &SharedHost,
    fleet: &Fleet,
    said: &PlanQuery,
    backoff: &mut Backoff,
) -> String {
    let response = match scheduler.stream(Method::GET, PLAN, Some(said), None::<&()>).await {
        Ok(response) => response,
        Err(error) => return error.to_string(),
    };
    let mut lines = lines(response);
    loop {
        let line = match tokio::time::timeout(SILENCE, lines.next()).await {
            Ok(Some(Ok(line))) if line.is_empty() => continue,
            Ok(Some(Ok(line))) => line,
            Ok(Some(Err(error))) => return error.to_string(),
            Ok(None) => return "closed by the scheduler".to_owned(),
            Err(_) => return format!("silent for {SILENCE:?}"),
        };
        let delta: HostDelta = match serde_json::from_str(&line) {
            Ok(delta) => delta,
            // Not to be followed by guesses: the next connection begins with a whole plan.
            Err(error) => return format!("a line that is no plan: {error}"),
        };
        let (full, generation, containers) = (delta.full, delta.generation, delta.containers.len());
        tracing::debug!(generation, full, containers, "plan");
        let changed = match fleet.apply(delta) {
            Ok(changed) => changed,
            Err(stale) => return stale.to_string(),
        };
        for network in changed {
            let net = host.net.clone();
            tokio::spawn(async move { net.refresh(&network).await });
        }
        if full {
            tracing::info!(generation, containers, "connected to the scheduler");
            backoff.reset();
            host.reports.tell_all();
        }
    }
}

fn lines(response: chassis::reqwest::Response) -> impl Stream<Item = io::Result<String>> + Unpin {
    let bytes = Box::pin(response.bytes_stream().map_err(io::Error::other));
    let codec = LinesCodec::new_with_max_length(LINE_MAX_BYTES);
    Box::pin(FramedRead::new(StreamReader::new(bytes), codec).map_err(io::Error::other))
}
