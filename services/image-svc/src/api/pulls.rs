//! `POST /internal/v1/pulls`: the gateway asks on behalf of a project it has authorized.

use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use chassis::{Answer, Caller};
use contract::image::{self, PullProgress, PullRequest};
use futures::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tracing::Instrument as _;

use super::AppState;
use crate::pull::{Begun, Progress};

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
    let (progress, lines) = Progress::channel();
    tokio::spawn(run(pull, progress).in_current_span());
    let body = Body::from_stream(ReceiverStream::new(lines).map(|line| ndjson(&line)));
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Until it is done, or nobody listens any more.
async fn run(pull: Begun, progress: Progress) {
    tokio::select! {
        () = progress.reader_gone() => tracing::info!("pull cancelled by its reader"),
        outcome = pull.run(&progress) => {
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
