//! The OCI distribution face, `/v2/…`: not built yet, and says so in that face's own error shape.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::json;

/// The same answer to everything below `/v2/`, with or without a credential.
pub(crate) fn answer() -> Response {
    refuse(StatusCode::NOT_IMPLEMENTED, "the hosted registry is not built yet")
}

/// An error as registries write it.
pub(crate) fn refuse(status: StatusCode, message: &str) -> Response {
    let body = json!({ "errors": [{ "code": "UNSUPPORTED", "message": message }] });
    let mut response = (status, Body::from(format!("{body}\n"))).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn the_body_is_an_oci_error() {
        let response = super::answer();
        assert_eq!(response.status(), 501);
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["errors"][0]["code"], "UNSUPPORTED");
    }
}
