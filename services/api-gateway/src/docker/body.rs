//! JSON in and out as dockerd does it: its rules for a missing body or content type, its texts.

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use model::Error;
use serde::{Serialize, de::DeserializeOwned};

use super::error::{DockerError, refused};
use crate::json;

/// A JSON request body; `None` when the request has none.
#[derive(Debug)]
pub(crate) struct JsonBody<T>(pub(crate) Option<T>);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Response;
    async fn from_request(request: Request, _state: &S) -> Result<Self, Response> {
        let (parts, body) = request.into_parts();
        let bytes = json::read(body).await.map_err(|unread| refused(unread.status(), unread.message()))?;
        decode(&parts.headers, &bytes).map(Self).map_err(|e| DockerError(e).into_response())
    }
}

/// Reads a body that was collected already.
pub(crate) fn decode<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<Option<T>, Error> {
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::to_str).transpose();
    let content_type = content_type.map_err(|_| Error::InvalidArgument("malformed Content-Type header".into()))?;
    match content_type {
        None | Some("") if bytes.is_empty() => return Ok(None),
        None | Some("") => {
            return Err(Error::InvalidArgument("malformed Content-Type header (): mime: no media type".into()));
        }
        Some(written) => {
            let essence = written.split(';').next().unwrap_or_default().trim();
            if !essence.eq_ignore_ascii_case("application/json") {
                let text = format!("unsupported Content-Type header ({written}): must be 'application/json'");
                return Err(Error::InvalidArgument(text));
            }
        }
    }
    if bytes.is_empty() {
        return Ok(None);
    }
    json::parse(bytes).map(Some)
}

/// A JSON answer as dockerd writes it: compact, with a newline at the end.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> DockerResponse {
    Ok(json_line(status, line(value)?))
}

/// What [`json`] answers, written.
pub(crate) fn line<T: Serialize>(value: &T) -> Result<Bytes, Error> {
    let mut bytes = serde_json::to_vec(value).map_err(Error::internal)?;
    bytes.push(b'\n');
    Ok(bytes.into())
}

/// An answer of JSON that is written already.
pub(crate) fn json_line(status: StatusCode, line: Bytes) -> Response {
    let mut response = (status, Body::from(line)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A response, or the error to render instead.
pub(crate) type DockerResponse = super::error::DockerResult<Response>;

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn headers(content_type: Option<&'static str>) -> HeaderMap {
        content_type.map(|v| (header::CONTENT_TYPE, HeaderValue::from_static(v))).into_iter().collect()
    }

    fn refusal(content_type: Option<&'static str>, body: &str) -> String {
        decode::<Value>(&headers(content_type), body.as_bytes()).expect_err("refused").to_string()
    }

    #[test]
    fn the_texts_are_dockerds() {
        assert_eq!(
            refusal(Some("application/x-www-form-urlencoded"), "{}"),
            "unsupported Content-Type header (application/x-www-form-urlencoded): must be 'application/json'"
        );
        assert_eq!(refusal(Some("application/json"), "{"), "invalid JSON: unexpected EOF");
        assert_eq!(refusal(Some("application/json"), "{}{}"), "unexpected content after JSON");
    }

    #[test]
    fn an_empty_body_needs_no_content_type() {
        assert!(decode::<Value>(&headers(None), b"").expect("accepted").is_none());
        assert!(decode::<Value>(&headers(Some("application/json; charset=utf-8")), b"{}").expect("accepted").is_some());
    }
}
