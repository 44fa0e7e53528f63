//! Every limit of the public face, in one place, each with a test that reaches it. How often a project
//! may ask is [`rates`]'s.

mod rates;

use axum::http::{HeaderMap, StatusCode, Uri};

pub(crate) use rates::{RateLimit, Rates};

/// Most a file system in memory may hold (`/dev/shm`, tmpfs, volumes of memory): it counts as memory, and
/// no host has more to spare.
pub(crate) const MEMORY_FILE_SYSTEM_BYTES: u64 = 16 << 30;
/// Largest JSON request body.
pub(crate) const JSON_BODY_BYTES: usize = 4 * 1024 * 1024;
/// Most keys of one JSON object.
pub(crate) const JSON_KEYS: usize = 50_000;
/// Longest path.
pub(crate) const PATH_BYTES: usize = 8 * 1024;
/// Longest query string.
pub(crate) const QUERY_BYTES: usize = 32 * 1024;
/// Bytes of all header names and values together.
pub(crate) const HEADER_BYTES: usize = 48 * 1024;
/// Header lines.
pub(crate) const HEADERS: usize = 96;
/// Longest credential.
pub(crate) const TOKEN_BYTES: usize = 1024;
/// Execs that an inspect of a container names.
pub(crate) const SHOWN_EXECS: i64 = 1_000;
/// Longest message of a WebSocket.
pub(crate) const WEBSOCKET_MESSAGE_BYTES: usize = 1024 * 1024;
/// Longest token of the registry's own token service.
pub(crate) const REGISTRY_TOKEN_BYTES: usize = 8 * 1024;
/// Longest form that asks for one.
pub(crate) const TOKEN_FORM_BYTES: usize = 16 * 1024;
/// Manifests of the hosted registry that are kept in memory, all together.
pub(crate) const MANIFESTS_READ_BYTES: u64 = 64 * 1024 * 1024;
/// What keeping one costs besides its bytes.
pub(crate) const MANIFEST_OVERHEAD_BYTES: u64 = 512;
/// Longest `X-Registry-Auth`.
pub(crate) const REGISTRY_AUTH_BYTES: usize = 16 * 1024;

/// Refuses what is too large before anything else looks at it.
pub(crate) fn check(uri: &Uri, headers: &HeaderMap) -> std::result::Result<(), (StatusCode, &'static str)> {
    if uri.path().len() > PATH_BYTES {
        return Err((StatusCode::URI_TOO_LONG, "the path is too long"));
    }
    if uri.query().is_some_and(|query| query.len() > QUERY_BYTES) {
        return Err((StatusCode::URI_TOO_LONG, "the query is too long"));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() > HEADERS || bytes > HEADER_BYTES {
        return Err((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the request headers are too large"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn what_is_too_large_is_refused_before_anything_else() {
        let none = HeaderMap::new();
        let refused = |uri: &str, headers: &HeaderMap| {
            check(&uri.parse().expect("a URI"), headers).err().map(|(status, _)| status.as_u16())
        };
        assert_eq!(refused("/containers/json", &none), None);
        assert_eq!(refused(&format!("/{}", "a".repeat(PATH_BYTES)), &none), Some(414));
        assert_eq!(refused(&format!("/x?{}", "a".repeat(QUERY_BYTES + 1)), &none), Some(414));
        let long = HeaderMap::from_iter([(
            HeaderName::from_static("x-a"),
            HeaderValue::from_str(&"a".repeat(HEADER_BYTES)).expect("a value"),
        )]);
        assert_eq!(refused("/x", &long), Some(431));
        let mut many = HeaderMap::new();
        for n in 0..=HEADERS {
            many.append("x-a", HeaderValue::from(n));
        }
        assert_eq!(refused("/x", &many), Some(431));
    }
}
