//! The headers every Docker API reply carries. They name the server's newest version, not the one
//! asked for. A reply marked [`Bare`] goes out without them, as dockerd's own exceptions do.

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::Response,
};

/// Our own version, as Docker clients see it.
pub(crate) const SERVER_VERSION: &str = env!("CARGO_PKG_VERSION");

const API_VERSION: HeaderName = HeaderName::from_static("api-version");
const OSTYPE: HeaderName = HeaderName::from_static("ostype");
const EXPERIMENTAL: HeaderName = HeaderName::from_static("docker-experimental");

/// Marks a response (in its extensions) that shall not carry the API's headers: the 404 of an
/// unknown page, and an attach.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bare;

/// Layer of every Docker route.
pub(crate) async fn layer(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if response.extensions().get::<Bare>().is_none() {
        add(&mut response);
    }
    response
}

/// Adds the four headers.
pub(crate) fn add(response: &mut Response) {
    add_without_experimental(response);
    response.headers_mut().insert(EXPERIMENTAL, HeaderValue::from_static("false"));
}

/// The three that a refused version carries too.
pub(crate) fn add_without_experimental(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(API_VERSION, HeaderValue::from_static("1.53"));
    headers.insert(OSTYPE, HeaderValue::from_static("linux"));
    headers.insert(header::SERVER, HeaderValue::from_static(concat!("Docker/", env!("CARGO_PKG_VERSION"), " (linux)")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advertised_version_is_the_newest_one_spoken() {
        let mut response = Response::new(axum::body::Body::empty());
        add(&mut response);
        assert_eq!(response.headers()[API_VERSION], super::super::version::MAX.to_string());
    }
}
