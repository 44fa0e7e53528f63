//! Words for a connection that did not come about. People know dockerd's, and search for them.

use std::{error::Error as _, io};

use reqwest::Url;

use super::UpstreamError;
use crate::egress::{Refused, authority};

/// Says why a request to `url` got no answer.
pub(crate) fn describe(base: &Url, url: &Url, error: &reqwest::Error) -> UpstreamError {
    let shown = if url.origin() == base.origin() { format!("{}v2/", base) } else { without_query(url) };
    let at = authority(url);
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        if let Some(refused) = source.downcast_ref::<Refused>() {
            return UpstreamError::Refused(refused.0.clone());
        }
        text = source.to_string();
        if let Some(io) = source.downcast_ref::<io::Error>()
            && let Some(known) = known_cause(io, &at)
        {
            return UpstreamError::Unreachable(format!("Get \"{shown}\": {known}"));
        }
        cause = source.source();
    }
    let why = if error.is_connect() && error.is_timeout() {
        format!("dial tcp {at}: i/o timeout")
    } else if error.is_timeout() {
        "net/http: request canceled (Client.Timeout exceeded while awaiting headers)".to_owned()
    } else if text.contains("failed to lookup address") || text.contains("Name or service not known") {
        format!("dial tcp: lookup {}: no such host", url.host_str().unwrap_or_default())
    } else if error.is_connect() {
        format!("dial tcp {at}: {text}")
    } else {
        text
    };
    UpstreamError::Unreachable(format!("Get \"{shown}\": {why}"))
}

fn known_cause(error: &io::Error, at: &str) -> Option<String> {
    let connect = |why: &str| Some(format!("dial tcp {at}: connect: {why}"));
    let is = |kind: io::ErrorKind| error.kind() == kind;
    if is(io::ErrorKind::ConnectionRefused) {
        connect("connection refused")
    } else if is(io::ErrorKind::NetworkUnreachable) {
        connect("network is unreachable")
    } else if is(io::ErrorKind::HostUnreachable) {
        connect("no route to host")
    } else if is(io::ErrorKind::ConnectionReset) {
        Some("read: connection reset by peer".to_owned())
    } else if is(io::ErrorKind::UnexpectedEof) {
        Some("EOF".to_owned())
    } else {
        None
    }
}

/// Signed download addresses carry their secret in the query.
fn without_query(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}
