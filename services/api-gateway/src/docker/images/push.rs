//! Pushing: image-svc does it, its progress passes through here as that of a pull does.

use axum::{
    extract::Path,
    http::{HeaderMap, Method},
};
use chassis::client::stream_lines;
use contract::image::{PUSH, PushRequest};
use model::{ImageReference, Result};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::pull::{registry_auth, told};
use crate::{
    Gateway,
    docker::{
        body::DockerResponse,
        call::Call,
        error::{DockerError, ErrorResponse},
        platform,
    },
};

pub(crate) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(push))
}

/// Push an image
#[utoipa::path(post, path = "/images/{name}/push", operation_id = "ImagePush", tag = "Image",
    params(
        ("name" = String, Path, description = "Name of the image here, which says where to"),
        ("tag" = Option<String>, Query, description = "Tag; without one every tag of the name"),
        ("platform" = Option<String>, Query, description = "JSON of an OCI platform (1.46); the image must be of it"),
        ("X-Registry-Auth" = Option<String>, Header, description = "base64url of JSON; used for this push only. The hosted registry needs none: the caller's own credential counts"),
    ),
    responses((status = 200, description = "Progress, one JSON object after another", content_type = "application/json"),
        (status = 400, description = "No valid name", body = ErrorResponse),
        (status = 403, description = "The registry is at an address this platform does not reach out to", body = ErrorResponse)))]
async fn push(call: Call, Path(name): Path<String>, headers: HeaderMap) -> DockerResponse {
    let (reference, all_tags) = wanted(&name, call.query.text("tag"))?;
    let wanted = PushRequest {
        project: call.scope.project(),
        reference,
        all_tags,
        platform: platform::one(&call.query, call.version, 46)?,
        auth: headers.get("x-registry-auth").and_then(registry_auth),
    };
    let image = &call.gateway.image;
    let progress = image.stream(Method::POST, PUSH, None::<&()>, Some(&wanted)).await.map_err(DockerError)?;
    Ok(told(stream_lines(progress)))
}

/// The reference, and whether every tag of its name is meant.
fn wanted(name: &str, tag: Option<&str>) -> Result<(String, bool)> {
    let reference: ImageReference = name.parse()?;
    let tagged = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
    match tag {
        // A tag is checked as part of a whole reference.
        Some(tag) => reference.with_tag(tag).to_string().parse::<ImageReference>().map(|r| (r.to_string(), false)),
        None => Ok((reference.to_string(), !tagged)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_tag_every_tag_is_pushed() {
        assert_eq!(wanted("r.test:5000/a/b/c", Some("1")), Ok(("r.test:5000/a/b/c:1".into(), false)));
        assert_eq!(wanted("r.test:5000/a/b/c:1", None), Ok(("r.test:5000/a/b/c:1".into(), false)));
        assert_eq!(wanted("r.test:5000/a/b/c", None), Ok(("r.test:5000/a/b/c:latest".into(), true)));
        assert!(wanted("A", None).is_err() && wanted("a", Some("b c")).is_err());
    }
}
