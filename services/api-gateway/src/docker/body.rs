//! JSON in and out, with dockerd's own error texts. One parser reads a body, whole: a key that
//! appears twice, trailing data, too much nesting or too many bytes refuse it before any handler
//! looks at it.

use std::{collections::HashSet, fmt};

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use model::Error;
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::error::{DockerError, refused};
use crate::limits;

/// A JSON request body; `None` when the request has none.
#[derive(Debug)]
pub(crate) struct JsonBody<T>(pub(crate) Option<T>);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Response;
    async fn from_request(request: Request, _state: &S) -> Result<Self, Response> {
        let (parts, body) = request.into_parts();
        let bytes = read(body).await?;
        decode(&parts.headers, &bytes).map(Self).map_err(|e| DockerError(e).into_response())
    }
}

/// Reads a body of at most [`limits::JSON_BODY_BYTES`].
pub(crate) async fn read(body: Body) -> Result<Bytes, Response> {
    match Limited::new(body, limits::JSON_BODY_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
            Err(refused(StatusCode::PAYLOAD_TOO_LARGE, "http: request body too large"))
        }
        Err(_) => Err(refused(StatusCode::BAD_REQUEST, "the request body ended early")),
    }
}

fn decode<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<Option<T>, Error> {
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
    parse(bytes).map(Some)
}

/// Parses one JSON document that is the whole of `bytes`.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let mut documents = serde_json::Deserializer::from_slice(bytes);
    NoDuplicates::deserialize(&mut documents).map_err(|e| explain(&e))?;
    documents.end().map_err(|_| Error::InvalidArgument("unexpected content after JSON".into()))?;
    serde_json::from_slice(bytes).map_err(|e| explain(&e))
}

fn explain(error: &serde_json::Error) -> Error {
    Error::InvalidArgument(match error.classify() {
        serde_json::error::Category::Eof => "invalid JSON: unexpected EOF".into(),
        serde_json::error::Category::Io | serde_json::error::Category::Syntax | serde_json::error::Category::Data => {
            format!("invalid JSON: {error}")
        }
    })
}

/// Walks a document and keeps nothing; fails on a key that its object already has.
struct NoDuplicates;

impl<'de> Deserialize<'de> for NoDuplicates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NoDuplicates)
    }
}

impl<'de> Visitor<'de> for NoDuplicates {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<NoDuplicates>()?.is_some() {}
        Ok(self)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self, A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            if seen.len() >= limits::JSON_KEYS {
                return Err(serde::de::Error::custom("an object has too many keys"));
            }
            if let Some(key) = seen.replace(key) {
                entries.next_value::<IgnoredAny>()?;
                return Err(serde::de::Error::custom(format!("duplicate key {key:?}")));
            }
            entries.next_value::<NoDuplicates>()?;
        }
        Ok(self)
    }
}

/// A JSON answer as dockerd writes it: compact, with a newline at the end.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> DockerResponse {
    let mut bytes = serde_json::to_vec(value).map_err(|e| DockerError(Error::internal(e)))?;
    bytes.push(b'\n');
    let mut response = (status, Body::from(bytes)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
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

    #[test]
    fn a_key_given_twice_is_refused_however_deep_or_escaped() {
        assert!(refusal(Some("application/json"), r#"{"a":1,"a":2}"#).contains("duplicate key \"a\""));
        assert!(refusal(Some("application/json"), r#"{"x":[{"a":1,"\u0061":2}]}"#).contains("duplicate key"));
    }

    #[test]
    fn a_nesting_bomb_is_refused() {
        let bomb = "[".repeat(100_000);
        assert!(refusal(Some("application/json"), &bomb).starts_with("invalid JSON: recursion limit"));
    }

    #[test]
    fn a_byte_order_mark_is_not_json() {
        assert!(refusal(Some("application/json"), "\u{feff}{}").starts_with("invalid JSON"));
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_with_413() {
        let body = Body::from(vec![b' '; limits::JSON_BODY_BYTES + 1]);
        assert_eq!(read(body).await.expect_err("refused").status(), 413);
        assert!(read(Body::from(vec![b' '; limits::JSON_BODY_BYTES])).await.is_ok());
    }
}
