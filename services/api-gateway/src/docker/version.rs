//! Negotiation of the API version: what is in the path, whether it is served, and the shape a reply
//! then takes. A reply always advertises [`MAX`]; handlers ask [`RequestedVersion`] what to leave out.

use std::{convert::Infallible, fmt};

use axum::{
    body::Body,
    extract::FromRequestParts,
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};

use super::{error::refused, headers};

/// A version of the Docker API; compared by number, so that 1.9 is before 1.10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ApiVersion {
    pub(crate) major: u16,
    pub(crate) minor: u16,
}

/// The newest version spoken, and the one an unversioned path means.
pub(crate) const MAX: ApiVersion = ApiVersion::one(53);
/// The oldest version served.
pub(crate) const MIN: ApiVersion = ApiVersion::one(24);

impl ApiVersion {
    /// `1.minor`.
    pub(crate) const fn one(minor: u16) -> Self {
        Self { major: 1, minor }
    }

    /// `1.43` or `1`; nothing else.
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        let number = |s: &str| if s.bytes().all(|b| b.is_ascii_digit()) { s.parse::<u16>().ok() } else { None };
        Some(Self { major: number(major)?, minor: number(minor)? })
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The version the client asked for, in `/v1.NN/…`; [`MAX`] without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RequestedVersion(pub(crate) ApiVersion);

impl RequestedVersion {
    /// Whether the client asked for `1.minor` or newer.
    pub(crate) fn at_least(self, minor: u16) -> bool {
        self.0 >= ApiVersion::one(minor)
    }
}

impl<S: Sync> FromRequestParts<S> for RequestedVersion {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or(Self(MAX)))
    }
}

/// What a path says about the version.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PathVersion<'a> {
    /// Served; the rest of the path begins with `/`.
    Served(ApiVersion, &'a str),
    /// Outside [`MIN`]..=[`MAX`].
    Refused(ApiVersion),
    /// It looks like a version and is none.
    Malformed,
}

/// Splits `/v1.43/containers/json` into version and `/containers/json`.
pub(crate) fn split(path: &str) -> PathVersion<'_> {
    let Some((written, rest)) = path.strip_prefix("/v").and_then(|after| {
        let end = after.find('/')?;
        let (written, rest) = after.split_at(end);
        let versionlike = !written.is_empty() && written.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        versionlike.then_some((written, rest))
    }) else {
        return PathVersion::Served(MAX, path);
    };
    match ApiVersion::parse(written) {
        None => PathVersion::Malformed,
        Some(version) if version > MAX || version < MIN => PathVersion::Refused(version),
        Some(version) => PathVersion::Served(version, rest),
    }
}

/// dockerd's answer to a version it does not serve. Clients as old as 1.23 expect plain text.
pub(crate) fn refuse(version: ApiVersion) -> Response {
    let text = if version > MAX {
        format!("client version {version} is too new. Maximum supported API version is {MAX}")
    } else {
        format!(
            "client version {version} is too old. Minimum supported API version is {MIN}, \
             please upgrade your client to a newer version"
        )
    };
    let mut response = if version < ApiVersion::one(24) {
        let mut plain = (StatusCode::BAD_REQUEST, Body::from(format!("{text}\n"))).into_response();
        plain.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        plain.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        plain
    } else {
        refused(StatusCode::BAD_REQUEST, &text)
    };
    headers::add_without_experimental(&mut response);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(ApiVersion::one(9) < ApiVersion::one(10));
    }

    #[test]
    fn a_prefix_is_split_off_and_its_absence_means_the_newest() {
        assert_eq!(split("/v1.43/containers/json"), PathVersion::Served(ApiVersion::one(43), "/containers/json"));
        assert_eq!(split("/containers/json"), PathVersion::Served(MAX, "/containers/json"));
        assert_eq!(split("/version"), PathVersion::Served(MAX, "/version"));
        assert_eq!(split("/volumes/v1"), PathVersion::Served(MAX, "/volumes/v1"));
    }

    #[test]
    fn versions_outside_the_range_are_refused() {
        assert_eq!(split("/v1.99/info"), PathVersion::Refused(ApiVersion::one(99)));
        assert_eq!(split("/v99.9/info"), PathVersion::Refused(ApiVersion { major: 99, minor: 9 }));
        assert_eq!(split("/v1.23/info"), PathVersion::Refused(ApiVersion::one(23)));
        assert_eq!(split("/v1..2/info"), PathVersion::Malformed);
        assert_eq!(split("/v99999999999.1/info"), PathVersion::Malformed);
    }
}
