//! A blob as an answer: the whole, a part of it, or nothing for whoever has it already (RFC 9110).

use std::ops::Range;

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE},
    },
    response::{IntoResponse, Response},
};
use model::{Digest, Result};

use crate::blob_store::BlobStore;

/// Answers with a blob of a known length; `head` leaves its bytes out.
pub(super) async fn answer(
    blobs: &BlobStore,
    digest: &Digest,
    size: u64,
    asked: &HeaderMap,
    head: bool,
) -> Result<Response> {
    let etag = format!("\"{digest}\"");
    if matches(asked.get(IF_NONE_MATCH), &etag) {
        return Ok(labelled(StatusCode::NOT_MODIFIED.into_response(), &etag));
    }
    // A part of something else than what the client has a part of would be of no use to it.
    let same = asked.get(IF_RANGE).is_none_or(|value| value.as_bytes() == etag.as_bytes());
    let range =
        match asked.get(RANGE).filter(|_| same).and_then(|v| v.to_str().ok()).map(|text| parse_range(text, size)) {
            None | Some(Requested::Whole) => None,
            Some(Requested::Part(range)) => Some(range),
            Some(Requested::Unsatisfiable) => return Ok(unsatisfiable(size)),
        };
    let mut answer = if head {
        Response::new(Body::empty())
    } else {
        Body::from_stream(blobs.read(digest, range.clone()).await?.stream).into_response()
    };
    let Range { start, end } = range.clone().unwrap_or(0..size);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(end - start));
    if range.is_some() {
        if let Ok(range) = HeaderValue::from_str(&format!("bytes {start}-{}/{size}", end.saturating_sub(1))) {
            headers.insert(CONTENT_RANGE, range);
        }
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(labelled(answer, &etag))
}

/// Whether a list of entity tags names this one, or any.
pub(super) fn matches(value: Option<&HeaderValue>, etag: &str) -> bool {
    let listed = value.and_then(|v| v.to_str().ok()).unwrap_or_default();
    listed.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

fn labelled(mut answer: Response, etag: &str) -> Response {
    if let Ok(etag) = HeaderValue::from_str(etag) {
        answer.headers_mut().insert(ETAG, etag);
    }
    answer
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
