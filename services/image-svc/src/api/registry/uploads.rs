//! Uploads: in one request, in two, in pieces; resumed, cancelled; or no upload at all where the blob can
//! be mounted. What writes goes on although its client is gone: what came is kept for when it resumes.

use axum::{
    body::{Body, BodyDataStream},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use chassis::request;
use contract::registry::{Code, Refusal, RegistryQuery, UPLOADS};
use model::{Digest, Error, RepositoryId, UploadId};
use store::ProjectScope;

use super::{
    Answer, DOCKER_CONTENT_DIGEST, Refused,
    access::{Push, ToUpload},
    digest, set,
};
use crate::{
    api::AppState,
    registry::{
        Failure, Outcome, Source, refused,
        upload::{Part, Upload},
    },
};

const PATH: &str = "/internal/v1/registry/uploads/{id}";
const _: () = assert!(UPLOADS.len() + "/{id}".len() == PATH.len(), "the path is the contract's");

/// Begin an upload; with `digest` the body is all of it; with `mount` there may be nothing to upload.
#[utoipa::path(post, path = UPLOADS, operation_id = "registry_upload", tag = "registry", params(RegistryQuery),
    responses((status = 201, description = "Mounted, or uploaded"), (status = 202, description = "Begun"),
        (status = 429, description = "Too many are open")))]
pub(crate) async fn begin_upload(
    State(state): State<AppState>,
    Push { scope, repository, query }: Push,
    request: Request,
) -> Answer {
    let wanted = query.digest.as_deref().map(digest).transpose()?;
    if let Some(mounted) = mount(&state, (&scope, repository), &query).await? {
        return Ok(created(&query.name, &mounted));
    }
    let length = wanted.as_ref().and_then(|_| length(request.headers()));
    let upload = state.registry.begin_upload(scope, repository, length).await?;
    match wanted {
        None => Ok(under_way(StatusCode::ACCEPTED, &query.name, upload.id, 0)),
        Some(wanted) => {
            finish(&state, (upload, Once(true)), wanted, Part { start: None, length }, request.into_body(), &query.name)
                .await
        }
    }
}

async fn mount(
    state: &AppState,
    target: (&ProjectScope, RepositoryId),
    query: &RegistryQuery,
) -> Result<Option<Digest>, Refused> {
    let Some(wanted) = &query.mount else { return Ok(None) };
    let wanted = digest(wanted)?;
    let source = match (query.from_project, query.from_repository) {
        (Some(project), Some(repository)) => Source::Repository(ProjectScope::delegated(project), repository),
        _ if query.from_anywhere => Source::Project,
        _ => return Ok(None),
    };
    Ok(state.registry.mount(target, &source, &wanted).await?.map(|_| wanted))
}

/// Where an upload stands.
#[utoipa::path(get, path = PATH, operation_id = "registry_upload_status", tag = "registry",
    params(("id" = UploadId, Path, description = "The upload"), RegistryQuery),
    responses((status = 204, description = "`Range` says how much there is"), (status = 404, description = "No such upload")))]
pub(crate) async fn upload_status(State(state): State<AppState>, ToUpload { upload, query }: ToUpload) -> Answer {
    let offset = state.registry.upload_offset(&upload).await?;
    Ok(under_way(StatusCode::NO_CONTENT, &query.name, upload.id, offset))
}

/// Append to an upload.
#[utoipa::path(patch, path = PATH, operation_id = "registry_upload_append", tag = "registry",
    params(("id" = UploadId, Path, description = "The upload"), RegistryQuery),
    responses((status = 202, description = "Appended"), (status = 404, description = "No such upload"),
        (status = 416, description = "It goes on somewhere else")))]
pub(crate) async fn append_upload(
    State(state): State<AppState>,
    ToUpload { upload, query }: ToUpload,
    request: Request,
) -> Answer {
    let part = part(request.headers())?;
    let (registry, body) = (state.registry.clone(), request.into_body().into_data_stream());
    let outcome = detached(async move { registry.append(&upload, part, body).await }).await;
    match outcome {
        Ok(offset) => Ok(under_way(StatusCode::ACCEPTED, &query.name, upload.id, offset)),
        Err(failure) => Ok(out_of_order(failure, &query.name, upload.id)),
    }
}

/// Append what is left and finish an upload.
#[utoipa::path(put, path = PATH, operation_id = "registry_upload_finish", tag = "registry",
    params(("id" = UploadId, Path, description = "The upload"), RegistryQuery),
    responses((status = 201, description = "The blob is there"), (status = 400, description = "It is not what the digest says"),
        (status = 404, description = "No such upload"), (status = 416, description = "It goes on somewhere else")))]
pub(crate) async fn finish_upload(
    State(state): State<AppState>,
    ToUpload { upload, query }: ToUpload,
    request: Request,
) -> Answer {
    let Some(written) = query.digest.as_deref() else {
        return Ok(refused(Code::DigestInvalid, "digest is missing")?);
    };
    let wanted = digest(written)?;
    let part = part(request.headers())?;
    finish(&state, (upload, Once(false)), wanted, part, request.into_body(), &query.name).await
}

/// Cancel an upload.
#[utoipa::path(delete, path = PATH, operation_id = "registry_upload_cancel", tag = "registry",
    params(("id" = UploadId, Path, description = "The upload"), RegistryQuery),
    responses((status = 204, description = "Cancelled"), (status = 404, description = "No such upload")))]
pub(crate) async fn cancel_upload(State(state): State<AppState>, ToUpload { upload, .. }: ToUpload) -> Answer {
    state.registry.cancel_upload(&upload).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Whether an upload is one request alone, so that nobody can go on with it.
struct Once(bool);

async fn finish(
    state: &AppState,
    (upload, once): (Upload, Once),
    wanted: Digest,
    part: Part,
    body: Body,
    name: &str,
) -> Answer {
    let (registry, stream): (_, BodyDataStream) = (state.registry.clone(), body.into_data_stream());
    let digest = wanted.clone();
    let work = async move {
        let outcome = registry.finish_upload(&upload, &wanted, part, stream).await;
        if outcome.is_err() && once.0 {
            // It may be over already.
            let _ = registry.cancel_upload(&upload).await;
        }
        outcome
    };
    match detached(work).await {
        Ok(_) => Ok(created(name, &digest)),
        Err(failure) => Ok(out_of_order(failure, name, upload.id)),
    }
}

/// Work that goes on when its client is gone; the body ends then, with an error.
async fn detached<T: Send + 'static>(work: impl Future<Output = Outcome<T>> + Send + 'static) -> Outcome<T> {
    request::spawn(work).await.unwrap_or_else(|e| Err(Failure::Broken(Error::internal(e))))
}

fn part(headers: &HeaderMap) -> Outcome<Part> {
    Ok(Part { start: start(headers)?, length: length(headers) })
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Where a part says it begins: `Content-Range: 0-99`, with or without a unit and a total.
fn start(headers: &HeaderMap) -> Outcome<Option<u64>> {
    let Some(value) = headers.get(header::CONTENT_RANGE) else { return Ok(None) };
    let bad = || Refusal::new(Code::BlobUploadInvalid, "Content-Range is not first-last");
    let text = value.to_str().map_err(|_| bad())?.trim();
    let text = text.strip_prefix("bytes").unwrap_or(text).trim_start_matches([' ', '=']);
    let (first, rest) = text.split_once('-').ok_or_else(bad)?;
    let last = rest.split('/').next().unwrap_or_default();
    let (first, last): (u64, u64) = (first.trim().parse().map_err(|_| bad())?, last.trim().parse().map_err(|_| bad())?);
    let spans = last.checked_sub(first).map(|n| n.saturating_add(1));
    if spans.is_none() || length(headers).is_some_and(|length| spans != Some(length)) {
        return refused(Code::BlobUploadInvalid, "Content-Range is not as long as the content");
    }
    Ok(Some(first))
}

fn created(name: &str, digest: &Digest) -> Response {
    let mut answer = StatusCode::CREATED.into_response();
    let headers = answer.headers_mut();
    set(headers, header::LOCATION, &format!("/v2/{name}/blobs/{digest}"));
    set(headers, DOCKER_CONTENT_DIGEST, digest.as_str());
    answer
}

/// The answer while an upload is not finished: where it is, and what is there of it.
fn under_way(status: StatusCode, name: &str, id: UploadId, offset: u64) -> Response {
    let mut answer = status.into_response();
    let headers = answer.headers_mut();
    set(headers, header::LOCATION, &format!("/v2/{name}/blobs/uploads/{id}"));
    set(headers, header::RANGE, &format!("0-{}", offset.saturating_sub(1)));
    set(headers, HeaderName::from_static("docker-upload-uuid"), &id.to_string());
    answer
}

/// A refusal; one of a part out of order says where the upload goes on.
fn out_of_order(failure: Failure, name: &str, id: UploadId) -> Response {
    let offset = if let Failure::OutOfOrder { offset } = failure { Some(offset) } else { None };
    let mut answer = Refused(failure).into_response();
    if let Some(offset) = offset {
        let told = under_way(answer.status(), name, id, offset);
        answer.headers_mut().extend(told.headers().clone());
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start_of(range: &str, length: Option<u64>) -> Outcome<Option<u64>> {
        let mut headers = HeaderMap::new();
        set(&mut headers, header::CONTENT_RANGE, range);
        if let Some(length) = length {
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
        start(&headers)
    }

    #[test]
    fn a_part_says_where_it_begins_and_is_as_long_as_it_says() {
        assert_eq!(start(&HeaderMap::new()), Ok(None));
        for text in ["10-19", "bytes 10-19", "bytes=10-19/*", "10-19/100"] {
            assert_eq!(start_of(text, Some(10)), Ok(Some(10)), "{text}");
            assert_eq!(start_of(text, None), Ok(Some(10)), "{text}");
            assert!(start_of(text, Some(11)).is_err(), "{text}");
        }
        for bad in ["", "10", "10-", "-19", "x-y", "19-10"] {
            assert!(start_of(bad, None).is_err(), "{bad}");
        }
    }
}
