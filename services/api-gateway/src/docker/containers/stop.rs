//! Stop, restart and kill: ending what PID 1 does. A stop is a wish that survives everyone; a
//! signal goes to the host at once.

use std::time::Duration;

use axum::{
    extract::{Path, State},
    http::StatusCode,
};
use contract::{
    agent::{CONTAINERS, KillRequest},
    wake::Topic,
};
use model::{Error, Phase, Result};
use store::{ContainerRecord, ProjectScope};

use super::{recorded, start, state, translate::signal_number, waiting::Watch};
use crate::{
    Gateway,
    agents::tenant_error,
    auth::Project,
    docker::{body::DockerResponse, error::empty, query::Query},
};

/// Docker's time between the stop signal and SIGKILL.
const DEFAULT_TIMEOUT_S: i64 = 10;
/// What a host may need beyond the container's own time.
const SLACK: Duration = Duration::from_secs(30);
const SIGKILL: i32 = 9;

/// How to stop.
struct Stop {
    signal: String,
    timeout_s: i64,
}

impl Stop {
    /// The query's wishes over the container's own over Docker's.
    fn of(query: &Query, container: &ContainerRecord) -> Result<Self> {
        let signal = match query.text("signal") {
            Some(written) => known_signal(written)?.to_owned(),
            None => container.spec.stop_signal.clone().unwrap_or_else(|| "SIGTERM".into()),
        };
        let timeout_s = query.integer("t")?.or(container.spec.stop_timeout_s).unwrap_or(DEFAULT_TIMEOUT_S);
        Ok(Self { signal, timeout_s: timeout_s.clamp(-1, i64::from(i32::MAX)) })
    }

    fn patience(&self) -> Option<Duration> {
        u64::try_from(self.timeout_s).ok().map(|seconds| Duration::from_secs(seconds) + SLACK)
    }
}

fn known_signal(written: &str) -> Result<&str> {
    match signal_number(written) {
        Some(_) => Ok(written),
        None => Err(Error::InvalidArgument(format!("Invalid signal: {written}"))),
    }
}

/// Stops a container.
#[utoipa::path(post, path = "/containers/{id}/stop", operation_id = "ContainerStop", tag = "Container",
    params(("id" = String, Path, description = "Id, name or unique id prefix"),
        ("signal" = Option<String>, Query, description = "Signal to send first"),
        ("t" = Option<i64>, Query, description = "Seconds until SIGKILL; -1 waits for ever")),
    responses((status = 204, description = "It is over"), (status = 304, description = "It did not run"),
        (status = 404, description = "No such container")))]
pub(crate) async fn stop(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    query: Query,
    Path(reference): Path<String>,
) -> DockerResponse {
    // On its own, so that a client that leaves does not lose the rest of it.
    let work = chassis::request::spawn(async move {
        let container = stop_and_wait(&gateway, scope, &reference, &query).await?;
        recorded::alone(&gateway, &scope, &container, "stop", &[]).await;
        Ok::<_, Error>(())
    });
    work.await.map_err(Error::internal)??;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Wants the current run ended and waits until it is. `NotModified` if nothing runs.
async fn stop_and_wait(
    gateway: &Gateway,
    scope: ProjectScope,
    reference: &str,
    query: &Query,
) -> Result<ContainerRecord> {
    let mut tx = gateway.store.project_tx(&scope).await?;
    let container = tx.lock_container(reference).await?;
    let stop = Stop::of(query, &container)?;
    if !start::is_started(&container) {
        return Err(Error::NotModified);
    }
    let watch = Watch::new(gateway, scope, &container.id);
    tx.want_stopped(&container.id, &stop.signal, stop.timeout_s).await?;
    let signal = signal_number(&stop.signal).unwrap_or(15).to_string();
    recorded::within(gateway, &mut tx, &container, "kill", &[("signal", &signal)]).await?;
    tx.commit().await?;
    gateway.bus.publish(&Topic::Project(scope.project()));
    start::wake_host(gateway, &container);
    ended(watch, container.run, stop.patience()).await?;
    Ok(container)
}

/// Waits until a run is over.
async fn ended(mut watch: Watch, run: u32, patience: Option<Duration>) -> Result<()> {
    watch
        .until(patience, |progress, host_is_away| {
            let Some(progress) = progress else { return Some(Ok(())) };
            let reached = progress.observed.progress;
            let over = progress.removed || reached.run > run || (reached.run == run && reached.phase >= Phase::Exited);
            if over {
                return Some(Ok(()));
            }
            host_is_away.then(|| {
                Err(Error::Unavailable(
                    "the host of this container does not answer now; it will be stopped when the host is back".into(),
                ))
            })
        })
        .await?
}

/// Stops a container if it runs, and starts it.
#[utoipa::path(post, path = "/containers/{id}/restart", operation_id = "ContainerRestart", tag = "Container",
    params(("id" = String, Path, description = "Id, name or unique id prefix"),
        ("signal" = Option<String>, Query, description = "Signal to send first"),
        ("t" = Option<i64>, Query, description = "Seconds until SIGKILL")),
    responses((status = 204, description = "It runs again"), (status = 404, description = "No such container")))]
pub(crate) async fn restart(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    query: Query,
    Path(reference): Path<String>,
) -> DockerResponse {
    let work = chassis::request::spawn(async move {
        let container = match stop_and_wait(&gateway, scope, &reference, &query).await {
            Ok(container) => {
                recorded::alone(&gateway, &scope, &container, "stop", &[]).await;
                container
            }
            Err(Error::NotModified) => gateway.store.project_tx(&scope).await?.find_container(&reference).await?,
            Err(other) => return Err(other),
        };
        match start::run(&gateway, scope, container.id.as_str()).await {
            // Somebody else started it in between: it was restarted all the same.
            Ok(()) | Err(Error::NotModified) => {}
            Err(other) => return Err(other),
        }
        recorded::alone(&gateway, &scope, &container, "restart", &[]).await;
        Ok::<_, Error>(())
    });
    work.await.map_err(Error::internal)??;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Sends a signal to a container's first process.
#[utoipa::path(post, path = "/containers/{id}/kill", operation_id = "ContainerKill", tag = "Container",
    params(("id" = String, Path, description = "Id, name or unique id prefix"),
        ("signal" = Option<String>, Query, description = "Name or number; SIGKILL if absent")),
    responses((status = 204, description = "Sent"), (status = 404, description = "No such container"),
        (status = 409, description = "It does not run")))]
pub(crate) async fn kill(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    query: Query,
    Path(reference): Path<String>,
) -> DockerResponse {
    let written = known_signal(query.text("signal").unwrap_or("SIGKILL"))?;
    let signal = signal_number(written).unwrap_or(SIGKILL);
    let mut tx = gateway.store.project_tx(&scope).await?;
    let container = tx.lock_container(&reference).await?;
    if !state::of(&container).is_running() {
        return Err(Error::Conflict(format!(
            "cannot kill container: {reference}: container {} is not running",
            container.id
        ))
        .into());
    }
    let watch = Watch::new(&gateway, scope, &container.id);
    if signal == SIGKILL {
        // The wish keeps its host from starting it again under a restart policy.
        tx.want_stopped(&container.id, "SIGKILL", 0).await?;
    }
    recorded::within(&gateway, &mut tx, &container, "kill", &[("signal", &signal.to_string())]).await?;
    tx.commit().await?;
    gateway.bus.publish(&Topic::Project(scope.project()));
    if signal == SIGKILL {
        start::wake_host(&gateway, &container);
    }
    send(&gateway, &container, &reference, signal).await?;
    if signal == SIGKILL {
        ended(watch, container.run, Some(SLACK)).await?;
    }
    Ok(empty(StatusCode::NO_CONTENT))
}

async fn send(gateway: &Gateway, container: &ContainerRecord, reference: &str, signal: i32) -> Result<()> {
    let path = format!("{CONTAINERS}/{}/kill", container.id);
    let sent = gateway.agents.of(container)?.post::<_, ()>(&path, &KillRequest { signal }).await;
    match sent.map_err(tenant_error) {
        // The wish reached its host first.
        Err(Error::Conflict(_) | Error::NotFound(_)) if signal == SIGKILL => Ok(()),
        Err(Error::Conflict(_)) => Err(Error::Conflict(format!(
            "cannot kill container: {reference}: container {} is not running",
            container.id
        ))),
        other => other,
    }
}
