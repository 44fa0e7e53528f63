//! The agent's API (`contract::agent`), for the gateway's certificate alone. Handlers find the
//! container and hand over to `streams`; nothing here knows how a thing is done.

mod files;

use std::time::Duration;

use chassis::{
    Answer, Endless, Failure,
    axum::{
        Extension, Json, RequestExt as _,
        body::Body,
        extract::{Path, Query, Request, State, rejection::JsonRejection},
        http::{StatusCode, header},
        response::{IntoResponse as _, Response},
    },
    http,
};
use contract::agent::{
    ATTACH_WAIT_MAX_MS, AttachQuery, ExecStart, ExecState, FreezeRequest, KillRequest, LimitsReply, LimitsRequest,
    LogsQuery, NetworksRequest, ResizeRequest, TopReply, VolumeUsage, VolumeUsageRequest,
};
use model::{ContainerId, Error, ExecId, Phase, Result};
use runtime::protocol::Request as ShimRequest;
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi, openapi::OpenApi as Document};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    freezer,
    host::SharedHost,
    keeper::{Handle, Message, signal_number},
    limits, plug,
    reconcile::Fleet,
    shims,
    streams::{Upgrade, attach, exec, logs, stats, top},
};

/// What handlers share.
#[derive(Clone)]
pub(crate) struct AgentState {
    pub(crate) host: SharedHost,
    pub(crate) fleet: Fleet,
}

/// How long the plan may take to come after the gateway wrote it.
const PLAN_PATIENCE: Duration = Duration::from_secs(5);

#[derive(OpenApi)]
#[openapi(info(title = "Wharfage node-agent", description = "What must reach a running container at once."))]
struct Doc;

/// The API as a document, for `openapi/`.
#[must_use]
pub fn openapi() -> Document {
    routes().split_for_parts().1
}

fn routes() -> OpenApiRouter<AgentState> {
    OpenApiRouter::with_openapi(Doc::openapi())
        .routes(routes!(attach_container))
        .routes(routes!(read_logs))
        .routes(routes!(kill_container))
        .routes(routes!(freeze_container))
        .routes(routes!(limit_container))
        .routes(routes!(settle_networks))
        .routes(routes!(resize_container))
        .routes(routes!(top_container))
        .routes(routes!(read_stats))
        .routes(routes!(start_exec))
        .routes(routes!(read_exec))
        .routes(routes!(resize_exec))
        .merge(files::routes())
        .routes(routes!(volume_usage))
}

/// The router, closed to everyone but the gateway.
pub(crate) fn router(state: AgentState) -> chassis::axum::Router {
    let (router, _) = routes().split_for_parts();
    router.layer(chassis::axum::middleware::from_fn(http::only(&["service:gateway"]))).with_state(state)
}

impl AgentState {
    fn container(&self, id: &str) -> Result<Handle> {
        self.fleet.get(&container_id(id)?)
    }
}

fn container_id(id: &str) -> Result<ContainerId> {
    id.parse().map_err(|_| Error::NotFound(format!("No such container: {id}")))
}

fn exec_id(id: &str) -> Result<ExecId> {
    id.parse().map_err(|_| Error::NotFound(format!("No such exec instance: {id}")))
}

fn body<T>(body: std::result::Result<Json<T>, JsonRejection>) -> Result<T> {
    body.map(|Json(document)| document).map_err(|e| Error::InvalidArgument(e.body_text()))
}

/// Attach to the run that lives, or the next one.
#[utoipa::path(
    post, path = "/containers/v1/{id}/attach", tag = "containers",
    params(("id" = String, Path, description = "Container")), request_body = AttachQuery,
    responses((status = 101, description = "The stream"), (status = 404, description = "No such container"))
)]
async fn attach_container(
    State(state): State<AgentState>,
    Path(id): Path<String>,
    Query(query): Query<AttachQuery>,
    mut request: Request,
) -> Answer<Response> {
    let upgrade = Upgrade::of(&mut request)?;
    let patience = Duration::from_millis(query.wait_ms.min(ATTACH_WAIT_MAX_MS));
    let keeper = state.fleet.awaited(&container_id(&id)?, patience).await?;
    Ok(attach::attach(&state.host, &keeper, query, upgrade).await?)
}

/// Read the log.
#[utoipa::path(
    get, path = "/containers/v1/{id}/logs", tag = "containers", params(("id" = String, Path, description = "Container")),
    responses(
        (status = 200, description = "Docker's frames, or raw bytes of a terminal", content_type = "application/octet-stream"),
        (status = 404, description = "No such container"),
    )
)]
async fn read_logs(
    State(state): State<AgentState>,
    Path(id): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Answer<Response> {
    let keeper = state.container(&id)?;
    let followed = query.follow.then_some(Extension(Endless));
    let chunks = logs::stream(&state.host, &keeper, query);
    Ok((followed, [(header::CONTENT_TYPE, "application/octet-stream")], Body::from_stream(chunks)).into_response())
}

/// Signal PID 1.
#[utoipa::path(
    post, path = "/containers/v1/{id}/kill", tag = "containers",
    params(("id" = String, Path, description = "Container")), request_body = KillRequest,
    responses((status = 204, description = "Sent"), (status = 404, description = "No such container"), (status = 409, description = "It does not run"))
)]
async fn kill_container(
    State(state): State<AgentState>,
    Path(id): Path<String>,
    request: std::result::Result<Json<KillRequest>, JsonRejection>,
) -> Answer<StatusCode> {
    let keeper = state.container(&id)?;
    let KillRequest { signal } = body(request)?;
    if !(1..=64).contains(&signal) {
        return Err(Failure(Error::invalid("signal", "is not between 1 and 64")));
    }
    let stop_signal = keeper.plan().and_then(|p| p.spec.stop_signal).and_then(|s| signal_number(&s)).unwrap_or(15);
    // As with dockerd, a signal that is meant to end it ends the restart policy's care for this run.
    if signal == 9 || signal == stop_signal {
        keeper.tell(Message::EndedByUser);
    }
    shims::tell(&state.host.places.run_dir(&keeper.id), &ShimRequest::Signal { signal }).await?;
    if (signal == 9 || signal == stop_signal) && keeper.observed().borrow().paused {
        // As dockerd does: what shall end it wakes it up. It may have been woken by somebody else.
        let _ = freezer::set(&state.host, &keeper, false).await;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Freeze or thaw its processes.
#[utoipa::path(
    post, path = "/containers/v1/{id}/freeze", tag = "containers",
    params(("id" = String, Path, description = "Container")), request_body = FreezeRequest,
    responses((status = 204, description = "Done"), (status = 404, description = "No such container"), (status = 409, description = "It does not run, or is frozen already"))
)]
async fn freeze_container(
    State(state): State<AgentState>,
    Path(id): Path<String>,
    request: std::result::Result<Json<FreezeRequest>, JsonRejection>,
) -> Answer<StatusCode> {
    let keeper = state.container(&id)?;
    freezer::set(&state.host, &keeper, body(request)?.frozen).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give it new limits while it runs.
#[utoipa::path(
    post, path = "/containers/v1/{id}/limits", tag = "containers",
    params(("id" = String, Path, description = "Container")), request_body = LimitsRequest,
    responses((status = 200, body = LimitsReply), (status = 404, description = "No such container"), (status = 500, description = "The kernel does not take them"))
)]
async fn limit_container(
    State(state): State<AgentState>,
    Path(id): Path<String>,
    request: std::result::Result<Json<LimitsRequest>, JsonRejection>,
) -> Answer<Json<LimitsReply>> {
    let keeper = state.container(&id)?;
    let LimitsRequest { resources } = body(request)?;
    let _turn = keeper.cgroup.lock().await;
    let runs = keeper.observed().borrow().progress.phase == Phase::Running;
    let runtime = keeper.plan().filter(|_| runs).map(|plan| plan.spec.runtime);
    let Some(runtime) = runtime else { return Ok(Json(LimitsReply::default())) };
    Ok(Json(LimitsReply { warnings: limits::apply(&state.host, &keeper.id, &runtime, &resources).await? }))
}

/// Have it on the networks of its plan.
#[utoipa::path(
    post, path = "/containers/v1/{id}/networks", tag = "containers",
    params(("id" = String, Path, description = "Container")), request_body = NetworksRequest,
    responses((status = 204, description = "It is on them, or does not run"), (status = 404, description = "No such container"),
        (status = 500, description = "A network could not be made"), (status = 503, description = "The plan has not come"))
)]
async fn settle_networks(
    State(state): State<AgentState>,
    Path(id): Path<String>,
    request: std::result::Result<Json<NetworksRequest>, JsonRejection>,
) -> Answer<StatusCode> {
    let keeper = state.container(&id)?;
    state.fleet.reached(body(request)?.generation, PLAN_PATIENCE).await?;
    plug::settle(&state.host, &state.fleet, &keeper.id, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Set the terminal's size.
#[utoipa::path(
    post, path = "/containers/v1/{id}/resize", tag = "containers",
    params(("id" = String, Path, description = "Container")), request_body = ResizeRequest,
    responses((status = 204, description = "Set"), (status = 404, description = "No such container"), (status = 409, description = "It does not run"))
)]
async fn resize_container(
    State(state): State<AgentState>,
    Path(id): Path<String>,
    request: std::result::Result<Json<ResizeRequest>, JsonRejection>,
) -> Answer<StatusCode> {
    let keeper = state.container(&id)?;
    let ResizeRequest { height, width } = body(request)?;
    shims::tell(&state.host.places.run_dir(&keeper.id), &ShimRequest::Resize { height, width }).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct TopQuery {
    /// Arguments of `ps`; `-ef` if there are none.
    #[serde(default)]
    ps_args: String,
}

/// List the processes.
#[utoipa::path(
    get, path = "/containers/v1/{id}/top", tag = "containers",
    params(("id" = String, Path, description = "Container"), TopQuery),
    responses((status = 200, body = TopReply), (status = 404, description = "No such container"), (status = 409, description = "It does not run"))
)]
async fn top_container(
    State(state): State<AgentState>,
    Path(id): Path<String>,
    Query(query): Query<TopQuery>,
) -> Answer<Json<TopReply>> {
    let keeper = state.container(&id)?;
    if keeper.observed().borrow().pid.is_none() {
        return Err(Failure(Error::Conflict(format!("container {id} is not running"))));
    }
    let cgroup_path = state.host.cgroup_path(&keeper.id);
    let reply = tokio::task::spawn_blocking(move || top::top(&cgroup_path, &query.ps_args)).await;
    Ok(Json(reply.map_err(Error::internal)??))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "kebab-case")]
struct StatsQuery {
    /// One document every second.
    #[serde(default)]
    stream: bool,
    /// One document at once, without a sample before it.
    #[serde(default, alias = "one_shot")]
    one_shot: bool,
}

/// Read what it uses.
#[utoipa::path(
    get, path = "/containers/v1/{id}/stats", tag = "containers",
    params(("id" = String, Path, description = "Container"), StatsQuery),
    responses((status = 200, description = "NDJSON of Docker's stats documents", content_type = "application/x-ndjson"), (status = 404, description = "No such container"))
)]
async fn read_stats(
    State(state): State<AgentState>,
    Path(id): Path<String>,
    Query(query): Query<StatsQuery>,
) -> Answer<Response> {
    let keeper = state.container(&id)?;
    let documents = stats::stream(&state.host, &keeper, query.stream, query.one_shot);
    Ok((Extension(Endless), [(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(documents))
        .into_response())
}

/// Run a further process.
#[utoipa::path(
    post, path = "/execs/v1/{id}/start", tag = "execs",
    params(("id" = String, Path, description = "Exec")), request_body = ExecStart,
    responses(
        (status = 101, description = "The stream"),
        (status = 204, description = "Started, detached"),
        (status = 409, description = "The container does not run, or the exec was started already"),
        (status = 500, description = "The runtime would not start it; the text is dockerd's, the code is in its state"),
    )
)]
async fn start_exec(State(state): State<AgentState>, Path(id): Path<String>, mut request: Request) -> Answer<Response> {
    let id = exec_id(&id)?;
    let asks = request.headers().contains_key(header::UPGRADE);
    let upgrade = if asks { Some(Upgrade::of(&mut request)?) } else { None };
    let start: ExecStart = body(request.extract::<Json<ExecStart>, _>().await)?;
    if upgrade.is_none() && !start.detach {
        return Err(Failure(Error::InvalidArgument("an exec that is not detached needs an upgrade".to_owned())));
    }
    if start.cmd.is_empty() {
        return Err(Failure(Error::InvalidArgument("No exec command specified".to_owned())));
    }
    let keeper = state.fleet.get(&start.container)?;
    let upgrade = upgrade.filter(|_| !start.detach);
    Ok(exec::start(&state.host, &keeper, &id, start, upgrade).await?)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ExecQuery {
    /// The container it is in; looked for when absent.
    #[serde(default)]
    container: Option<String>,
}

impl AgentState {
    fn container_of(&self, id: &ExecId, query: &ExecQuery) -> Result<ContainerId> {
        let unknown = || Error::NotFound(format!("No such exec instance: {id}"));
        match &query.container {
            Some(container) => container.parse().map_err(|_| unknown()),
            None => exec::container_of(&self.host, id).ok_or_else(unknown),
        }
    }
}

/// What became of an exec.
#[utoipa::path(
    get, path = "/execs/v1/{id}", tag = "execs", params(("id" = String, Path, description = "Exec"), ExecQuery),
    responses((status = 200, body = ExecState), (status = 404, description = "It never started here"))
)]
async fn read_exec(
    State(state): State<AgentState>,
    Path(id): Path<String>,
    Query(query): Query<ExecQuery>,
) -> Answer<Json<ExecState>> {
    let id = exec_id(&id)?;
    let container = state.container_of(&id, &query)?;
    Ok(Json(exec::state(&state.host, &container, &id)?))
}

/// Set the size of an exec's terminal.
#[utoipa::path(
    post, path = "/execs/v1/{id}/resize", tag = "execs",
    params(("id" = String, Path, description = "Exec"), ExecQuery), request_body = ResizeRequest,
    responses((status = 204, description = "Set"), (status = 404, description = "No such exec"))
)]
async fn resize_exec(
    State(state): State<AgentState>,
    Path(id): Path<String>,
    Query(query): Query<ExecQuery>,
    request: std::result::Result<Json<ResizeRequest>, JsonRejection>,
) -> Answer<StatusCode> {
    let id = exec_id(&id)?;
    let container = state.container_of(&id, &query)?;
    exec::resize(&state.host, &container, &id, body(request)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How large volumes are.
#[utoipa::path(
    post, path = "/volumes/v1/usage", tag = "volumes", request_body = VolumeUsageRequest,
    responses((status = 200, description = "Bytes by volume", body = VolumeUsage))
)]
async fn volume_usage(
    State(state): State<AgentState>,
    request: std::result::Result<Json<VolumeUsageRequest>, JsonRejection>,
) -> Answer<Json<VolumeUsage>> {
    let VolumeUsageRequest { project, volumes } = body(request)?;
    let all = state.host.volumes.clone();
    let measure = move || {
        let sized = volumes.into_iter().map(|id| (all.size(project, &id).unwrap_or_default(), id));
        VolumeUsage { bytes: sized.map(|(bytes, id)| (id, bytes)).collect() }
    };
    Ok(Json(tokio::task::spawn_blocking(measure).await.map_err(Error::internal)?))
}
