//! What comes in: JSON bodies, list positions, ids in paths; each refused as a problem document.

use axum::{
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{header, request::Parts},
};
use chassis::Problem;
use model::{Error, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use store::Page;
use utoipa::{IntoParams, ToSchema};

use crate::json;

/// Items a list returns unless fewer are asked for, and at most.
const LIST_LIMIT: i64 = 1_000;

/// A JSON body.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, _state: &S) -> std::result::Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let essence = parts.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if !essence.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
            return Err(Error::InvalidArgument("the body must be application/json".into()).into());
        }
        let bytes = json::read(body).await.map_err(|unread| {
            let problem = Problem::from(Error::InvalidArgument(unread.message().into()));
            Problem { status: unread.status().as_u16(), ..problem }
        })?;
        Ok(Self(json::parse(&bytes)?))
    }
}

/// Where a list goes on.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Position {
    /// Only items after this name (the `next` of the list before).
    #[serde(default)]
    after: String,
    /// At most so many, 1 to 1000.
    #[serde(default)]
    limit: Option<i64>,
}

impl Position {
    pub(crate) fn page(&self) -> Result<Page<'_>> {
        Ok(Page { after: &self.after, limit: self.limit()? })
    }

    pub(crate) fn after(&self) -> Option<&str> {
        Some(self.after.as_str()).filter(|after| !after.is_empty())
    }

    pub(crate) fn limit(&self) -> Result<i64> {
        match self.limit {
            None => Ok(LIST_LIMIT),
            Some(limit) if (1..=LIST_LIMIT).contains(&limit) => Ok(limit),
            Some(_) => Err(Error::invalid("limit", "is not 1 to 1000")),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Position {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> std::result::Result<Self, Problem> {
        let query = Query::try_from_uri(&parts.uri).map_err(|e| Error::invalid("query", &e.body_text()))?;
        Ok(query.0)
    }
}

/// One slice of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct List<T> {
    /// The items.
    pub(crate) items: Vec<T>,
    /// Ask again with `after` set to this for more; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

impl<T> List<T> {
    /// A slice that was read with a limit: a full one may have more behind it.
    pub(crate) fn sliced(items: Vec<T>, limit: i64, name: impl Fn(&T) -> String) -> Self {
        let full = i64::try_from(items.len()).is_ok_and(|len| len >= limit);
        let next = if full { items.last().map(name) } else { None };
        Self { items, next }
    }
}

/// An id in a path. What is no id at all names nothing.
pub(crate) fn id<T: std::str::FromStr<Err = Error>>(text: &str) -> Result<T> {
    text.parse().map_err(|_| Error::NotFound(format!("nothing has the id {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_slice_says_where_the_next_one_begins() {
        let full = List::sliced(vec!["a", "b"], 2, ToString::to_string);
        assert_eq!(full.next.as_deref(), Some("b"));
        assert!(List::sliced(vec!["a"], 2, ToString::to_string).next.is_none());
        assert!(List::sliced(Vec::<String>::new(), 2, Clone::clone).next.is_none());
    }

    #[test]
    fn a_limit_has_bounds() {
        let limit = |limit| Position { limit, ..Position::default() }.limit();
        assert_eq!(limit(None), Ok(LIST_LIMIT));
        assert!(limit(Some(0)).is_err() && limit(Some(LIST_LIMIT + 1)).is_err());
    }
}
