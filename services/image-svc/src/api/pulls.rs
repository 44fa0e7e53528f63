//! `POST /internal/v1/pulls` and `/internal/v1/pushes`: the gateway asks on behalf of a project it has authorized.

use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use chassis::{Answer, Caller};
use contract::image::{self, PullProgress, PullRequest, PushRequest};
use futures::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tracing::Instrument as _;

use super::AppState;
use crate::{pull::Progress, push::Push};

/// Bring an image into a project. What fails before the first line has a status of its own.
#[utoipa::path(
    post,
    path = image::PULL,
    operation_id = "pull_image",
    tag = "pulls",
    request_body = PullRequest,
    responses(
        (status = 200, description = "NDJSON, one line for each step; the last one may be an error", body = PullProgress, content_type = "application/x-ndjson"),
        (status = 400, description = "The reference or platform cannot be read"),
        (status = 401, description = "Not the gateway"),
        (status = 403, description = "The registry is at an address this platform does not reach out to"),
        (status = 404, description = "No such image, or not for these credentials"),
        (status = 429, description = "The registry's own limit is reached"),
        (status = 500, description = "The registry answers with something that cannot be taken"),
        (status = 503, description = "The registry does not answer"),
    ),
)]
pub(crate) async fn pull_image(
    State(state): State<AppState>,
    caller: Caller,
    Json(request): Json<PullRequest>,
) -> Answer<Response> {
    caller.require("service:gateway")?;
    let pull = state.puller.begin(request).await?;
    Ok(told(|progress| async move { pull.run(&progress).await }))
}

/// Take an image of a project to a registry.
#[utoipa::path(
    post,
    path = image::PUSH,
    operation_id = "push_image",
    tag = "pulls",
    request_body = PushRequest,
    responses(
        (status = 200, description = "NDJSON, as of a pull", body = PullProgress, content_type = "application/x-ndjson"),
        (status = 400, description = "The reference cannot be read"),
        (status = 401, description = "Not the gateway"),
        (status = 403, description = "The registry is at an address this platform does not reach out to"),
        (status = 503, description = "Too many at once"),
    ),
)]
pub(crate) async fn push_image(
    State(state): State<AppState>,
    caller: Caller,
    Json(request): Json<PushRequest>,
) -> Answer<Response> {
    caller.require("service:gateway")?;
    let push = Push::begin(&state.registry, &state.puller, &state.hosted, &request)?;
    Ok(told(|progress| async move { push.run(&progress).await }))
}

/// Work that tells how it goes, as an answer.
pub(super) fn told<Fut>(work: impl FnOnce(Progress) -> Fut + Send + 'static) -> Response
where
    Fut: Future<Output = model::Result<()>> + Send + 'static,
{
    let (progress, lines) = Progress::channel();
    let work = work(progress.clone());
    tokio::spawn(run(work, progress).in_current_span());
    let body = Body::from_stream(ReceiverStream::new(lines).map(|line| ndjson(&line)));
    ([(CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// Until it is done, or nobody listens any more.
async fn run(work: impl Future<Output = model::Result<()>>, progress: Progress) {
    tokio::select! {
        () = progress.reader_gone() => tracing::info!("cancelled by its reader"),
        outcome = work => {
            if let Err(error) = outcome {
                chassis::error::log_once(&error);
                progress.failed(&error).await;
            }
        }
    }
}

fn ndjson(line: &PullProgress) -> Result<Bytes, serde_json::Error> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text.into())
}
