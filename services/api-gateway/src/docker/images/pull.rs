//! Pulling: image-svc does it, its progress passes through here. A failure before the first line is
//! a real status; after it, a line of the stream.

use std::time::Duration;

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use chassis::client::stream_lines;
use contract::image::{PULL, PullProgress, PullRequest, RegistryAuth};
use futures::StreamExt as _;
use model::{ImageReference, Result};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::import;
use crate::{
    Gateway,
    docker::{
        body::DockerResponse,
        call::Call,
        error::{DockerError, ErrorResponse},
    },
    limits,
};

/// Time until image-svc has found the image upstream and begins to tell of progress.
const HEAD_PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(create))
}

/// Pull an image
#[utoipa::path(post, path = "/images/create", operation_id = "ImageCreate", tag = "Image",
    params(
        ("fromImage" = Option<String>, Query, description = "Reference to pull"),
        ("tag" = Option<String>, Query, description = "Tag or digest; with none here and none in the reference, every tag"),
        ("platform" = Option<String>, Query, description = "`os/arch[/variant]`"),
        ("fromSrc" = Option<String>, Query, description = "`-`: import the tar in the body instead"),
        ("repo" = Option<String>, Query, description = "Name of an imported image"),
        ("message" = Option<String>, Query, description = "For the history of an imported image"),
        ("changes" = Option<Vec<String>>, Query, description = "Instructions of a Dockerfile, for an imported image"),
        ("X-Registry-Auth" = Option<String>, Header, description = "base64url of JSON; used for this pull only"),
    ),
    responses((status = 200, description = "Progress, one JSON object after another", content_type = "application/json"),
        (status = 404, description = "No such image upstream", body = ErrorResponse),
        (status = 501, description = "Import from an address", body = ErrorResponse)))]
async fn create(call: Call, headers: HeaderMap, request: Request) -> DockerResponse {
    let query = &call.query;
    if query.text("fromImage").is_none() && query.text("fromSrc").is_some() {
        return import::import(&call, request.into_body()).await;
    }
    let (reference, all_tags) =
        wanted(query.get("fromImage").unwrap_or_default(), query.get("tag").unwrap_or_default())?;
    let wanted = PullRequest {
        project: call.scope.project(),
        reference,
        all_tags,
        platform: query.text("platform").map(str::to_owned),
        auth: headers.get("x-registry-auth").and_then(registry_auth),
    };
    let patient = call.gateway.image.with_timeout(HEAD_PATIENCE);
    let progress = patient.stream(Method::POST, PULL, None::<&()>, Some(&wanted)).await.map_err(DockerError)?;
    Ok(told(stream_lines(progress)))
}

/// Progress as Docker's clients read it.
pub(super) fn told(lines: impl futures::Stream<Item = Result<PullProgress>> + Send + 'static) -> Response {
    streamed(Body::from_stream(lines.map(|line| Ok::<_, std::convert::Infallible>(rendered(line)))))
}

/// A stream of objects.
pub(super) fn streamed(body: Body) -> Response {
    let mut response = (StatusCode::OK, body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// One object of the stream, as dockerd separates them.
fn rendered(line: Result<PullProgress>) -> Bytes {
    let line = line.unwrap_or_else(|error| {
        let message = error.public_message();
        tracing::warn!(%error, "a pull or push broke off");
        let detail = [("message".to_owned(), message.clone())];
        PullProgress { error: Some(message), error_detail: Some(detail.into()), ..PullProgress::default() }
    });
    let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
    bytes.extend_from_slice(b"\r\n");
    bytes.into()
}

/// The reference of a pull, and whether it means every tag: the tag may be in the name or beside it,
/// and may be a digest; with none at all it is `docker pull -a`.
fn wanted(from_image: &str, tag: &str) -> Result<(String, bool)> {
    // `pull -a` leaves a colon behind.
    let name = from_image.strip_suffix(':').unwrap_or(from_image);
    let reference: ImageReference = name.parse()?;
    let written = match tag {
        "" => {
            let tagged = name.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
            return Ok((name.to_owned(), !tagged));
        }
        digest if digest.contains(':') => format!("{}@{digest}", reference.full_name()),
        tag => format!("{}:{tag}", reference.full_name()),
    };
    let reference: ImageReference = written.parse()?;
    Ok((reference.to_string(), false))
}

/// Credentials for the upstream. What cannot be read is nobody's, as with dockerd.
pub(crate) fn registry_auth(value: &HeaderValue) -> Option<RegistryAuth> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::URL_SAFE,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    if value.len() > limits::REGISTRY_AUTH_BYTES {
        return None;
    }
    let auth: RegistryAuth = serde_json::from_slice(&LENIENT.decode(value).ok()?).ok()?;
    let named = !auth.username.is_empty() || !auth.identity_token.is_empty() || !auth.registry_token.is_empty();
    named.then_some(auth)
}

#[cfg(test)]
mod tests {
    use model::Error;

    use super::*;

    #[test]
    fn a_tag_may_be_in_the_name_or_beside_it_and_may_be_a_digest() {
        let one = |text: &str| Ok((text.to_owned(), false));
        assert_eq!(wanted("busybox", "1.36"), one("busybox:1.36"));
        assert_eq!(wanted("busybox:1.35", "1.36"), one("busybox:1.36"));
        assert_eq!(wanted("busybox:1.36", ""), one("busybox:1.36"));
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(wanted("r.example/a", &digest), one(&format!("r.example/a@{digest}")));
        assert_eq!(wanted(&format!("r.example/a@{digest}"), ""), one(&format!("r.example/a@{digest}")));
        for every in ["busybox", "busybox:", "r.example:5000/a"] {
            assert_eq!(wanted(every, ""), Ok((every.trim_end_matches(':').to_owned(), true)), "every tag");
        }
        assert!(wanted("", "").is_err() && wanted("A", "").is_err() && wanted("a", "b c").is_err());
    }

    #[test]
    fn undecodable_credentials_are_nobodys() {
        let of = |text: &'static str| registry_auth(&HeaderValue::from_static(text));
        // {"username":"u","password":"p"}
        let auth = of("eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifQ==").expect("credentials");
        assert_eq!((auth.username.as_str(), auth.password.as_str()), ("u", "p"));
        assert!(of("eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifQ").is_some(), "without padding");
        assert!(of("e30=").is_none() && of("%%%").is_none() && of("").is_none());
    }

    #[test]
    fn a_stream_that_breaks_off_says_so_in_its_last_object() {
        let last = rendered(Err(Error::Unavailable("the stream broke off".into())));
        let text = std::str::from_utf8(&last).expect("text");
        assert!(text.ends_with("\r\n"));
        let object: serde_json::Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(object["errorDetail"]["message"], "the stream broke off");
    }
}
