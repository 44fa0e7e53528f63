//! How errors leave an internal API: the serde form of `model::Error` with its status, so that the
//! client on the other side gets the same error back. A fault of ours is logged here, once, and its
//! text stays in the log.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use model::Error;

use crate::request;

/// What handlers of internal APIs return.
pub type Answer<T> = std::result::Result<T, Failure>;

/// A domain error on its way out of an internal API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct Failure(pub Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = status(&self.0);
        if self.0 == Error::NotModified {
            return status.into_response();
        }
        log_once(&self.0);
        (status, Json(&shown(self.0))).into_response()
    }
}

/// The HTTP status of an error.
#[must_use]
pub fn status(error: &Error) -> StatusCode {
    StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Logs a fault of ours with the request id. Called where an answer is rendered, and nowhere else.
pub fn log_once(error: &Error) {
    if let Error::Internal(cause) = error {
        let request_id = request::current_id();
        tracing::error!(cause, request_id = request_id.as_deref(), "internal error");
    }
}

fn shown(error: Error) -> Error {
    match error {
        Error::Internal(_) => Error::Internal(match request::current_id() {
            Some(id) => format!("another service failed; request id {id} finds the cause in its log"),
            None => "another service failed; its log has the cause".to_owned(),
        }),
        Error::NotFound(_)
        | Error::InvalidArgument(_)
        | Error::Conflict(_)
        | Error::NotModified
        | Error::Unauthenticated(_)
        | Error::Forbidden(_)
        | Error::LimitExceeded(_)
        | Error::NoCapacity(_)
        | Error::Unavailable(_)
        | Error::NotImplemented(_)
        | Error::Failed(_) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_internal_fault_is_not_told() {
        let response = Failure(Error::Internal("password is hunter2".into())).into_response();
        assert_eq!(response.status(), 500);
        let body = axum::body::to_bytes(response.into_body(), 4096).await.expect("body");
        assert!(!String::from_utf8_lossy(&body).contains("hunter2"));
        assert!(matches!(serde_json::from_slice(&body), Ok(Error::Internal(_))));
    }
}
