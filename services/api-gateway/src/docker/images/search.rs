//! `docker search`: what the hosted registry has for the caller, and the catalogs of upstreams that the
//! operator opened. Nobody gives stars here, so nothing has any.

use axum::http::StatusCode;
use contract::image::{SEARCH, SearchHit, SearchRequest};
use model::{Error, Result};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    Gateway,
    docker::{
        body::{DockerResponse, json},
        call::Call,
        error::ErrorResponse,
        filters::Filters,
        query::Query,
    },
};

/// What dockerd takes, and what it takes when nothing is said.
const LIMIT_MAX: i64 = 100;
const LIMIT: i64 = 25;

pub(crate) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(search))
}

/// An image that was found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SearchResult {
    /// Nobody gives any.
    star_count: i64,
    /// One of Docker's official library.
    is_official: bool,
    /// What it is pulled by.
    name: String,
    /// Always false, as of dockerd since 2023.
    is_automated: bool,
    /// Registries tell none.
    description: &'static str,
}

/// Search images
#[utoipa::path(get, path = "/images/search", operation_id = "ImageSearch", tag = "Image",
    params(("term" = String, Query, description = "A part of the name; a registry before it limits the search to that"),
        ("limit" = Option<i64>, Query, description = "1 to 100; 25"),
        ("filters" = Option<String>, Query, description = "JSON: is-automated, is-official, stars")),
    responses((status = 200, description = "Images", body = Vec<SearchResult>),
        (status = 400, description = "A filter or limit is wrong", body = ErrorResponse),
        (status = 501, description = "The term names a registry that is not searched", body = ErrorResponse)))]
async fn search(call: Call) -> DockerResponse {
    let wanted = Wanted::read(&call.query)?;
    let request = SearchRequest {
        project: call.scope.project(),
        term: wanted.term.clone(),
        // The filter comes after: what it takes away is made up for where there is more.
        limit: LIMIT_MAX as u16,
    };
    let hits: Vec<SearchHit> = call.gateway.image.post(SEARCH, &request).await?;
    json(StatusCode::OK, &wanted.of(hits))
}

#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    term: String,
    limit: usize,
    official: Option<bool>,
    automated: bool,
    stars: i64,
}

impl Wanted {
    /// dockerd's rules and texts.
    fn read(query: &Query) -> Result<Self> {
        let bad = |text: String| Err(Error::InvalidArgument(text));
        let filters = Filters::parse(query.text("filters"), &["is-automated", "is-official", "stars"])?;
        let limit = match query.text("limit").map(str::parse::<i64>) {
            Some(Ok(limit)) if limit >= 0 => limit,
            Some(Ok(_)) | Some(Err(_)) => return bad("invalid limit specified".into()),
            None => 0,
        };
        let limit = if limit == 0 { LIMIT } else { limit };
        if !(1..=LIMIT_MAX).contains(&limit) {
            return bad(format!("limit {limit} is outside the range of [1, {LIMIT_MAX}]"));
        }
        let term = query.get("term").unwrap_or_default().to_owned();
        if term.contains("://") {
            return bad(format!("invalid repository name: repository name ({term}) should not have a scheme"));
        }
        let mut stars = 0;
        for text in filters.values("stars") {
            stars =
                stars.max(text.parse().map_err(|_| Error::InvalidArgument(format!("invalid filter 'stars={text}'")))?);
        }
        Ok(Self {
            term,
            limit: usize::try_from(limit).map_err(Error::internal)?,
            official: filters.boolean("is-official")?,
            automated: filters.boolean("is-automated")?.unwrap_or(false),
            stars,
        })
    }

    fn of(&self, hits: Vec<SearchHit>) -> Vec<SearchResult> {
        let fits = |hit: &SearchHit| {
            !self.automated && self.stars <= 0 && self.official.is_none_or(|wanted| wanted == hit.is_official)
        };
        let shown = |SearchHit { name, is_official }| SearchResult {
            star_count: 0,
            is_official,
            name,
            is_automated: false,
            description: "",
        };
        hits.into_iter().filter(fits).take(self.limit).map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(query: &str) -> String {
        Wanted::read(&Query::parse(query)).expect_err(query).to_string()
    }

    #[test]
    fn limits_and_filters_are_read_as_dockerd_reads_them() {
        let limit = |query: &str| Wanted::read(&Query::parse(query)).map(|wanted| wanted.limit);
        assert_eq!((limit("term=a"), limit("term=a&limit=0"), limit("limit=100")), (Ok(25), Ok(25), Ok(100)));
        assert_eq!(refused("limit=101"), "limit 101 is outside the range of [1, 100]");
        assert_eq!(refused("limit=x"), "invalid limit specified");
        assert_eq!(refused("filters=%7B%22stars%22%3A%5B%22x%22%5D%7D"), "invalid filter 'stars=x'");
        assert_eq!(refused("filters=%7B%22foo%22%3A%5B%22x%22%5D%7D"), "invalid filter 'foo'");
        assert!(refused("term=https%3A%2F%2Fa").contains("should not have a scheme"));
    }

    #[test]
    fn filters_narrow_and_the_limit_counts_what_is_left() {
        let hits = || {
            let hit = |n: usize| SearchHit { name: format!("a{n}"), is_official: n.is_multiple_of(2) };
            (0..10).map(hit).collect::<Vec<_>>()
        };
        let found = |query: &str| Wanted::read(&Query::parse(query)).expect(query).of(hits()).len();
        assert_eq!(found("filters=%7B%22is-official%22%3A%5B%22true%22%5D%7D&limit=3"), 3);
        assert_eq!(found("filters=%7B%22is-official%22%3A%5B%22false%22%5D%7D"), 5);
        assert_eq!(found("filters=%7B%22stars%22%3A%5B%221%22%5D%7D"), 0);
        assert_eq!(found("filters=%7B%22is-automated%22%3A%5B%22true%22%5D%7D"), 0);
    }
}
