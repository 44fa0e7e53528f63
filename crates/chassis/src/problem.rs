//! The platform API's error shape: RFC 9457 problem documents.

use std::collections::BTreeMap;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use model::Error;
use serde::{Deserialize, Serialize};
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder},
};

use crate::{error, request};

const CONTENT_TYPE: &str = "application/problem+json";

/// A problem document (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Which kind of problem: `urn:wharfage:problem:<kind>`.
    #[serde(rename = "type")]
    #[schema(examples("urn:wharfage:problem:not_found"))]
    pub kind: String,
    /// The kind, for people.
    pub title: String,
    /// The HTTP status.
    #[schema(examples(404))]
    pub status: u16,
    /// What went wrong this time.
    pub detail: String,
    /// Finds the request in the logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        error::log_once(&error);
        let (kind, title) = kind(&error);
        Self {
            kind: format!("urn:wharfage:problem:{kind}"),
            title: title.to_owned(),
            status: error.status(),
            detail: error.public_message(),
            request_id: request::current_id().map(|id| id.to_string()),
        }
    }
}

fn kind(error: &Error) -> (&'static str, &'static str) {
    match error {
        Error::NotFound(_) => ("not_found", "Not found"),
        Error::InvalidArgument(_) => ("invalid_argument", "Invalid argument"),
        Error::Conflict(_) => ("conflict", "Conflict"),
        Error::NotModified => ("not_modified", "Not modified"),
        Error::Unauthenticated(_) => ("unauthenticated", "Unauthenticated"),
        Error::Forbidden(_) => ("forbidden", "Forbidden"),
        Error::LimitExceeded(_) => ("limit_exceeded", "Limit exceeded"),
        Error::NoCapacity(_) => ("no_capacity", "No capacity"),
        Error::Unavailable(_) => ("unavailable", "Temporarily unavailable"),
        Error::NotImplemented(_) => ("not_implemented", "Not implemented"),
        Error::Failed(_) => ("failed", "Failed"),
        Error::Internal(_) => ("internal", "Internal error"),
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status == StatusCode::NOT_MODIFIED {
            return status.into_response();
        }
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"wharfage\""));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// The error answers of every platform operation, for its OpenAPI description:
/// `responses((status = 200, …), Problems)`.
#[derive(Clone, Copy, Debug)]
pub struct Problems;

impl IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let answer = |text: &str| {
            let content = ContentBuilder::new()
                .schema(Some(RefOr::<utoipa::openapi::Schema>::Ref(Ref::from_schema_name(Problem::name()))));
            RefOr::T(ResponseBuilder::new().description(text).content(CONTENT_TYPE, content.build()).build())
        };
        BTreeMap::from([
            ("4XX".to_owned(), answer("The request cannot be served as it is")),
            ("5XX".to_owned(), answer("The service cannot serve it now")),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_domain_error_becomes_a_problem_document() {
        let response = Problem::from(Error::invalid("name", "is empty")).into_response();
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()["content-type"], CONTENT_TYPE);
        let body = axum::body::to_bytes(response.into_body(), 4096).await.expect("body");
        let problem: Problem = serde_json::from_slice(&body).expect("a problem");
        assert_eq!(problem.kind, "urn:wharfage:problem:invalid_argument");
        assert_eq!(problem.detail, "invalid name: is empty");
    }

    #[test]
    fn the_description_refers_to_the_problem_schema() {
        let text = serde_json::to_string(&Problems::responses()).expect("json");
        assert!(text.contains("#/components/schemas/Problem"), "{text}");
    }
}
