//! `GET /hosts/v1/layers/{digest}`: a host fetches a layer of a container placed on it. Any other
//! layer does not exist for it.

use std::ops::Range;

use axum::{
    body::Body,
    extract::{Path, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE},
    },
    response::{IntoResponse, Response},
};
use chassis::{Answer, Caller};
use contract::image;
use model::{Digest, Error};

use super::AppState;

const PATH: &str = "/hosts/v1/layers/{digest}";
const _: () = assert!(image::LAYERS.len() + "/{digest}".len() == PATH.len(), "the path is the contract's");

/// Read a layer blob, or a range of it.
#[utoipa::path(
    get,
    path = PATH,
    operation_id = "read_layer",
    tag = "layers",
    params(("digest" = String, Path, description = "Digest of the layer blob")),
    responses(
        (status = 200, description = "The blob", content_type = "application/octet-stream"),
        (status = 206, description = "The range asked for", content_type = "application/octet-stream"),
        (status = 401, description = "Not a host"),
        (status = 404, description = "No container on this host needs such a layer"),
        (status = 416, description = "The range begins behind the end"),
    ),
)]
pub(crate) async fn read_layer(
    State(state): State<AppState>,
    caller: Caller,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> Answer<Response> {
    let host = caller.require_host()?;
    let unknown = || Error::NotFound(format!("no container on this host needs layer {digest}"));
    let digest: Digest = digest.parse().map_err(|_| unknown())?;
    if !state.store.host_needs_layer(host, &digest).await? {
        return Err(unknown().into());
    }
    let size = state.blobs.size(&digest).await?;
    let size = size.ok_or_else(|| Error::internal(format!("layer {digest} is recorded but not stored")))?;
    let range = match headers.get(RANGE).and_then(|v| v.to_str().ok()).map(|text| parse_range(text, size)) {
        None | Some(Requested::Whole) => None,
        Some(Requested::Part(range)) => Some(range),
        Some(Requested::Unsatisfiable) => return Ok(unsatisfiable(size)),
    };
    let part = range.is_some();
    let blob = state.blobs.read(&digest, range).await?;
    let mut answer = Body::from_stream(blob.stream).into_response();
    let answer_headers = answer.headers_mut();
    answer_headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    answer_headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    answer_headers.insert(CONTENT_LENGTH, HeaderValue::from(blob.range.end - blob.range.start));
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{digest}\"")) {
        answer_headers.insert(ETAG, etag);
    }
    if part {
        let Range { start, end } = blob.range;
        if let Ok(range) = HeaderValue::from_str(&format!("bytes {start}-{}/{size}", end.saturating_sub(1))) {
            answer_headers.insert(CONTENT_RANGE, range);
        }
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(answer)
}

fn unsatisfiable(size: u64) -> Response {
    (StatusCode::RANGE_NOT_SATISFIABLE, [(CONTENT_RANGE, format!("bytes */{size}"))]).into_response()
}

#[derive(Debug, PartialEq, Eq)]
enum Requested {
    Whole,
    Part(Range<u64>),
    Unsatisfiable,
}

/// One range of bytes; several at once, and anything else, are answered with the whole (RFC 9110, 14.2).
fn parse_range(text: &str, size: u64) -> Requested {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|r| r.split_once('-')) else {
        return Requested::Whole;
    };
    match (first.trim().parse::<u64>(), last.trim().parse::<u64>(), last.trim().is_empty()) {
        (Ok(first), _, true) if first < size => Requested::Part(first..size),
        (Ok(first), Ok(last), _) if first <= last && first < size => {
            Requested::Part(first..size.min(last.saturating_add(1)))
        }
        (Ok(first), Ok(last), _) if first > last => Requested::Whole,
        (Ok(_), Ok(_), _) | (Ok(_), _, true) => Requested::Unsatisfiable,
        (Err(_), Ok(0), _) if first.trim().is_empty() => Requested::Unsatisfiable,
        (Err(_), Ok(tail), _) if first.trim().is_empty() && size > 0 => {
            Requested::Part(size.saturating_sub(tail)..size)
        }
        _ => Requested::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_says() {
        assert_eq!(parse_range("bytes=0-", 10), Requested::Part(0..10));
        assert_eq!(parse_range("bytes=3-5", 10), Requested::Part(3..6));
        assert_eq!(parse_range("bytes=3-99", 10), Requested::Part(3..10));
        assert_eq!(parse_range("bytes=-4", 10), Requested::Part(6..10));
        assert_eq!(parse_range("bytes=-99", 10), Requested::Part(0..10));
        assert_eq!(parse_range("bytes=10-", 10), Requested::Unsatisfiable);
        assert_eq!(parse_range("bytes=-0", 10), Requested::Unsatisfiable);
        assert_eq!(parse_range("bytes=5-3", 10), Requested::Whole);
        assert_eq!(parse_range("bytes=0-1,4-5", 10), Requested::Whole);
        assert_eq!(parse_range("lines=0-1", 10), Requested::Whole);
        assert_eq!(parse_range("bytes=0-18446744073709551615", 10), Requested::Part(0..10));
    }
}
