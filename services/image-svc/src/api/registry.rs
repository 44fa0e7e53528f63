//! The registry's routes, for the gateway alone. Paths of the distribution spec are taken apart there;
//! here a repository is an id, and every answer is final.

mod access;
mod blobs;
mod lists;
mod manifests;
mod uploads;

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use contract::registry::{Code, Refusal};
use model::Digest;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::AppState;
use crate::registry::Failure;

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::default()
        .routes(routes!(blobs::read_blob, blobs::delete_blob))
        .routes(routes!(uploads::begin_upload))
        .routes(routes!(uploads::upload_status, uploads::append_upload, uploads::finish_upload, uploads::cancel_upload))
        .routes(routes!(manifests::read_manifest, manifests::put_manifest, manifests::delete_manifest))
        .routes(routes!(lists::list_tags))
        .routes(routes!(lists::list_referrers))
        .routes(routes!(lists::list_repositories))
}

/// An answer, or a refusal in the spec's shape.
type Answer = Result<Response, Refused>;

/// A failure on its way out.
pub(crate) struct Refused(Failure);

impl<E: Into<Failure>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let refusal = match self.0 {
            Failure::Refused(refusal) => refusal,
            Failure::OutOfOrder { offset } => {
                let text = format!("the upload goes on at {offset}");
                Refusal::new(Code::RangeInvalid, text)
            }
            Failure::Broken(error) => {
                chassis::error::log_once(&error);
                Refusal::from(&error)
            }
        };
        let status = StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(header::CONTENT_TYPE, "application/json")], refusal.body()).into_response()
    }
}

fn digest(text: &str) -> Result<Digest, Refused> {
    text.parse().map_err(|_| Refusal::new(Code::DigestInvalid, "invalid digest").into())
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // Names and digests have no character that a header cannot carry.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
