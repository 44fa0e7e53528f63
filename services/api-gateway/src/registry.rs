//! The OCI distribution face, `/v2/…`: not built yet, and says so in that face's own error shape.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};

const BODY: &str = "{\"errors\":[{\"code\":\"UNSUPPORTED\",\"message\":\"the hosted registry is not built yet\"}]}\n";

/// The same answer to everything below `/v2/`, with or without a credential.
pub(crate) fn answer() -> Response {
    let mut response = (StatusCode::NOT_IMPLEMENTED, Body::from(BODY)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_body_is_an_oci_error() {
        let body: serde_json::Value = serde_json::from_str(super::BODY).expect("JSON");
        assert_eq!(body["errors"][0]["code"], "UNSUPPORTED");
    }
}
