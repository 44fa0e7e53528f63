//! The one door. On the canonical path, once, it decides which face a request is for, and writes
//! the path so that the router matches it: the version taken off, a slash inside a name (image
//! `a/b:1`) escaped. Authorization happens behind it, on the path that is then routed.

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{Method, StatusCode, Uri, header, request::Parts, uri::PathAndQuery},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use chassis::Problem;
use model::Error;
use tower::ServiceExt as _;

use crate::{
    Gateway, auth,
    docker::{
        self,
        error::{DockerError, page_not_found, refused},
        headers,
        version::{self, PathVersion, RequestedVersion},
    },
    limits, registry,
};

/// The faces behind the door.
#[derive(Clone)]
pub(crate) struct Faces {
    pub(crate) gateway: Gateway,
    pub(crate) docker: Router,
    pub(crate) platform: Router,
    pub(crate) registry: Router,
}

/// Everything that reaches the public listeners.
pub(crate) async fn enter(State(faces): State<Faces>, request: Request) -> Response {
    let face = face(request.uri().path());
    if let Err((status, message)) = limits::check(request.uri(), request.headers()) {
        return face.refuse(status, message);
    }
    if !is_canonical(request.uri().path()) {
        return face.refuse(StatusCode::BAD_REQUEST, "malformed path");
    }
    match face {
        Face::Registry => through(faces.registry, request).await,
        Face::Platform => through(faces.platform, request).await,
        Face::Docker => enter_docker(faces, request).await,
    }
}

/// The Docker face alone, for whoever was authenticated before.
pub(crate) async fn enter_docker_only(faces: Faces, request: Request) -> Response {
    if let Err((status, message)) = limits::check(request.uri(), request.headers()) {
        return refused(status, message);
    }
    if !is_canonical(request.uri().path()) {
        return refused(StatusCode::BAD_REQUEST, "malformed path");
    }
    match face(request.uri().path()) {
        Face::Docker => enter_docker(faces, request).await,
        Face::Platform | Face::Registry => {
            refused(StatusCode::FORBIDDEN, "the Docker socket of a container opens the Docker API and nothing else")
        }
    }
}

/// Layer of every route: leaves its path on the response, for metrics and traces outside.
pub(crate) async fn tell_route(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Face {
    Docker,
    Platform,
    Registry,
}

impl Face {
    /// A refusal at the door, in the face's own shape.
    fn refuse(self, status: StatusCode, message: &str) -> Response {
        match self {
            Self::Docker => refused(status, message),
            Self::Platform => {
                let problem = Problem::from(Error::InvalidArgument(message.to_owned()));
                Problem { status: status.as_u16(), ..problem }.into_response()
            }
            Self::Registry => registry::refuse(status, message),
        }
    }
}

fn face(path: &str) -> Face {
    let under = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if under("/api") || under("/docs") || path == "/openapi.json" {
        Face::Platform
    } else if under("/v2") {
        Face::Registry
    } else {
        Face::Docker
    }
}

async fn enter_docker(faces: Faces, mut request: Request) -> Response {
    let (version, path) = match version::split(request.uri().path()) {
        PathVersion::Refused(version) => return version::refuse(version),
        PathVersion::Malformed => return page_not_found(),
        PathVersion::Served(version, path) => (version, docker::paths::routable(request.method(), path)),
    };
    match *request.method() {
        Method::OPTIONS => return options(&faces.gateway, &request.into_parts().0).await,
        // The router would answer HEAD wherever it answers GET; dockerd does so on two paths only.
        Method::HEAD if path != "/_ping" && !path.ends_with("/archive") => return page_not_found(),
        _ => {}
    }
    let Some(uri) = rewritten(request.uri(), &path) else {
        return refused(StatusCode::BAD_REQUEST, "malformed path");
    };
    *request.uri_mut() = uri;
    request.extensions_mut().insert(RequestedVersion(version));
    let mut response = through(faces.docker, request).await;
    if response.status() == StatusCode::NOT_FOUND {
        // The router's hint on a wrong method; dockerd's 404 has none.
        response.headers_mut().remove(header::ALLOW);
    }
    response
}

/// dockerd answers OPTIONS on every path, with nothing.
async fn options(gateway: &Gateway, request: &Parts) -> Response {
    let mut response = match auth::authenticate(gateway, request).await {
        Ok(_) => StatusCode::OK.into_response(),
        Err(error) => DockerError(error).into_response(),
    };
    headers::add(&mut response);
    response
}

async fn through(face: Router, request: Request) -> Response {
    match face.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn rewritten(uri: &Uri, path: &str) -> Option<Uri> {
    let text = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    Some(Uri::from(PathAndQuery::try_from(text).ok()?))
}

/// One spelling per path: no empty or dot segment, no escaped slash, backslash, dot segment or
/// control character, and valid UTF-8 once unescaped.
fn is_canonical(path: &str) -> bool {
    let Some(relative) = path.strip_prefix('/') else {
        return false;
    };
    let count = relative.split('/').count();
    relative.split('/').enumerate().all(|(at, segment)| {
        let last = at + 1 == count;
        let Ok(plain) = percent_encoding::percent_decode_str(segment).decode_utf8() else {
            return false;
        };
        let filled = last || !plain.is_empty();
        let hostile = |c: char| c.is_control() || matches!(c, '/' | '\\');
        filled && plain != "." && plain != ".." && !plain.contains(hostile)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_spelling_of_a_path_gets_in() {
        for good in ["/", "/_ping", "/networks/", "/v1.43/images/a/b:1/json", "/containers/%C3%A9/json", "/a%20b"] {
            assert!(is_canonical(good), "{good}");
        }
        for bad in [
            "//",
            "//containers/json",
            "/containers//json",
            "/./_ping",
            "/containers/../info",
            "/a/%2e%2e/info",
            "/a/.%2E",
            "/images/a%2Fb/json",
            "/images/a%2fb/json",
            "/a%5cb",
            "/a%00",
            "/a%0a",
            "/%ff",
            "*",
            "",
        ] {
            assert!(!is_canonical(bad), "{bad}");
        }
    }

    #[test]
    fn a_face_owns_whole_segments() {
        assert_eq!(face("/api/v1/hosts"), Face::Platform);
        assert_eq!(face("/apiary"), Face::Docker);
        assert_eq!(face("/v2/"), Face::Registry);
        assert_eq!(face("/v2/a/manifests/1"), Face::Registry);
        assert_eq!(face("/v1.43/info"), Face::Docker);
        assert_eq!(face("/docs/index.html"), Face::Platform);
    }
}
