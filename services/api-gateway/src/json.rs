//! Reading JSON bodies, for both faces. One parser reads a body, whole: a key that appears twice,
//! trailing data, too much nesting or too many bytes refuse it before any handler looks at it.

use std::{collections::HashSet, fmt};

use axum::{body::Body, http::StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use model::Error;
use serde::{
    Deserialize,
    de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::limits;

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// Over [`limits::JSON_BODY_BYTES`].
    TooLarge,
    /// The client went away, or framed it wrongly.
    Broken,
}

impl Unread {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Broken => StatusCode::BAD_REQUEST,
        }
    }

    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::TooLarge => "the request body is too large",
            Self::Broken => "the request body ended early",
        }
    }
}

/// Reads a body of at most [`limits::JSON_BODY_BYTES`].
pub(crate) async fn read(body: Body) -> Result<Bytes, Unread> {
    match Limited::new(body, limits::JSON_BODY_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => Err(Unread::TooLarge),
        Err(_) => Err(Unread::Broken),
    }
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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn refusal(text: &str) -> String {
        parse::<Value>(text.as_bytes()).expect_err("refused").to_string()
    }

    #[test]
    fn a_key_given_twice_is_refused_however_deep_or_escaped() {
        assert!(refusal(r#"{"a":1,"a":2}"#).contains("duplicate key \"a\""));
        assert!(refusal(r#"{"x":[{"a":1,"\u0061":2}]}"#).contains("duplicate key"));
    }

    #[test]
    fn bombs_are_refused() {
        assert!(refusal(&"[".repeat(100_000)).starts_with("invalid JSON: recursion limit"));
        let keys: Vec<String> = (0..=limits::JSON_KEYS).map(|n| format!("\"{n}\":0")).collect();
        assert!(refusal(&format!("{{{}}}", keys.join(","))).contains("too many keys"));
        assert!(refusal("1e400").starts_with("invalid JSON"));
    }

    #[test]
    fn a_byte_order_mark_is_not_json() {
        assert!(refusal("\u{feff}{}").starts_with("invalid JSON"));
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_with_413() {
        let body = Body::from(vec![b' '; limits::JSON_BODY_BYTES + 1]);
        assert_eq!(read(body).await.expect_err("refused").status(), 413);
        assert!(read(Body::from(vec![b' '; limits::JSON_BODY_BYTES])).await.is_ok());
    }
}
