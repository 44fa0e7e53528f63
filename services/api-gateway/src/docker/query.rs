//! Query parameters by Docker's rules: repeatable keys, booleans that are true unless they are one
//! of five words, integers that name themselves when they are wrong.

use axum::{
    extract::FromRequestParts,
    http::{StatusCode, request::Parts},
    response::Response,
};
use model::Error;

use super::error::refused;
use crate::limits;

/// The decoded query of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes `a=1&b=2`.
    pub(crate) fn parse(raw: &str) -> Self {
        Self(form_urlencoded::parse(raw.as_bytes()).into_owned().collect())
    }

    /// The first value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The first value of a key, if it is not empty.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|v| !v.is_empty())
    }

    /// Every value of a key.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// A boolean by dockerd's rule: empty, `0`, `no`, `false` and `none` are false, all else is true.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(truthy)
    }

    /// An integer; absent or empty is `None`.
    pub(crate) fn integer(&self, key: &str) -> Result<Option<i64>, Error> {
        self.text(key)
            .map(|text| {
                text.parse().map_err(|_| Error::InvalidArgument(format!("invalid {key} {text:?}: invalid syntax")))
            })
            .transpose()
    }
}

fn truthy(text: &str) -> bool {
    !matches!(text.trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Response;
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Response> {
        let raw = parts.uri.query().unwrap_or_default();
        if raw.len() > limits::QUERY_BYTES {
            return Err(refused(StatusCode::URI_TOO_LONG, "the query is too long"));
        }
        Ok(Self::parse(raw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_but_five_words_is_true() {
        let query = Query::parse("a=&b=0&c=no&d=FALSE&e=none&f=foo&g=1&h");
        for key in ["a", "b", "c", "d", "e", "h", "absent"] {
            assert!(!query.flag(key), "{key}");
        }
        assert!(query.flag("f") && query.flag("g"));
    }

    #[test]
    fn a_wrong_integer_names_its_key() {
        let error = Query::parse("h=x").integer("h").expect_err("refused");
        assert_eq!(error.to_string(), "invalid h \"x\": invalid syntax");
        assert_eq!(Query::parse("h=").integer("h"), Ok(None));
    }

    #[test]
    fn a_key_may_repeat() {
        let query = Query::parse("names=a&names=b%2Fc");
        assert_eq!(query.all("names").collect::<Vec<_>>(), ["a", "b/c"]);
    }
}
