//! [`model::Error`] as dockerd writes it: `{"message": …}` and a newline, under a content type the
//! Go client compares byte for byte. The one place where a domain error becomes a Docker answer.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use model::Error;
use serde::Serialize;

/// A domain error on its way to a Docker client.
#[derive(Debug)]
pub(crate) struct DockerError(pub(crate) Error);

/// What a Docker handler returns.
pub(crate) type DockerResult<T> = Result<T, DockerError>;

impl From<Error> for DockerError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

/// The body of every error answer of the Docker face.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ErrorResponse {
    /// What went wrong, for people.
    pub(crate) message: String,
}

impl IntoResponse for DockerError {
    fn into_response(self) -> Response {
        if let Error::Internal(source) = &self.0 {
            tracing::error!(error = %source, "a request failed inside");
        }
        let status = StatusCode::from_u16(self.0.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status == StatusCode::NOT_MODIFIED {
            return empty(status);
        }
        let mut response = refused(status, &self.0.public_message());
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, crate::auth::CHALLENGE);
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// An error answer with a status the domain has no kind for.
pub(crate) fn refused(status: StatusCode, message: &str) -> Response {
    let mut body = serde_json::to_vec(&ErrorResponse { message: message.to_owned() }).unwrap_or_default();
    body.push(b'\n');
    let mut response = (status, Body::from(body)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A status alone: neither body nor, on 204 and 304, a length.
pub(crate) fn empty(status: StatusCode) -> Response {
    status.into_response()
}

/// dockerd's answer to a path or method it does not know. It carries none of the API's headers.
pub(crate) fn page_not_found() -> Response {
    let mut response = refused(StatusCode::NOT_FOUND, "page not found");
    response.extensions_mut().insert(super::headers::Bare);
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn an_error_is_a_message_with_a_newline_under_exactly_application_json() {
        let response = DockerError(Error::NotFound("No such container: nope".into())).into_response();
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        let body = response.into_body().collect().await.expect("body").to_bytes();
        assert_eq!(body.as_ref(), b"{\"message\":\"No such container: nope\"}\n");
    }

    #[tokio::test]
    async fn an_internal_fault_is_not_told() {
        let response = DockerError(Error::internal("password=hunter2")).into_response();
        let body = response.into_body().collect().await.expect("body").to_bytes();
        assert!(!String::from_utf8_lossy(&body).contains("hunter2"));
    }

    #[tokio::test]
    async fn not_modified_has_no_body() {
        let response = DockerError(Error::NotModified).into_response();
        assert_eq!(response.status(), 304);
        assert!(response.into_body().collect().await.expect("body").to_bytes().is_empty());
    }
}
