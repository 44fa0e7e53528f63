//! A registry that does what an attacker's would: it lies, breaks off, hangs, redirects, and asks
//! for credentials. It remembers what it was asked.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::stream;

use crate::image::{INDEX, MANIFEST, TestImage, sha256};

/// What it does with a blob.
#[derive(Clone, Debug)]
pub(crate) enum Blob {
    /// Serves it, whole or by range.
    Honest(Vec<u8>),
    /// Serves other bytes of the same length.
    Lies(Vec<u8>),
    /// Breaks off after so many bytes of every answer.
    BreaksOff(Vec<u8>, usize),
    /// The same, and ignores `Range`.
    BreaksOffOnce(Vec<u8>, usize),
    /// Sends the head and then nothing.
    Hangs(usize),
    /// Goes on for ever.
    Endless,
    /// Sends the client elsewhere.
    Redirects(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) authorization: Option<String>,
    pub(crate) range: Option<String>,
}

#[derive(Default)]
struct Script {
    manifests: HashMap<String, (String, Vec<u8>)>,
    blobs: HashMap<String, Blob>,
    /// `WWW-Authenticate` of requests without `Authorization: Bearer good`.
    challenge: Option<String>,
    /// Pages of tags.
    tags: Vec<Vec<String>>,
    asked: Vec<Asked>,
}

#[derive(Clone)]
pub(crate) struct Hostile {
    script: Arc<Mutex<Script>>,
    pub(crate) address: String,
}

impl Hostile {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address").to_string();
        let hostile = Self { script: Arc::default(), address };
        let router = Router::new().fallback(answer).with_state(hostile.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        hostile
    }

    /// Holds an image honestly under every name.
    pub(crate) fn hold(&self, tag: &str, image: &TestImage) {
        let mut script = self.script.lock().expect("script");
        for blob in image.layers.iter().chain([&image.config]) {
            script.blobs.insert(sha256(blob), Blob::Honest(blob.clone()));
        }
        for name in [tag.to_owned(), sha256(&image.manifest)] {
            script.manifests.insert(name, (MANIFEST.to_owned(), image.manifest.clone()));
        }
    }

    pub(crate) fn hold_index(&self, tag: &str, index: Vec<u8>) {
        self.script.lock().expect("script").manifests.insert(tag.to_owned(), (INDEX.to_owned(), index));
    }

    pub(crate) fn set_blob(&self, digest: &str, blob: Blob) {
        self.script.lock().expect("script").blobs.insert(digest.to_owned(), blob);
    }

    pub(crate) fn drop_blob(&self, digest: &str) {
        self.script.lock().expect("script").blobs.remove(digest);
    }

    pub(crate) fn challenge(&self, header: &str) {
        self.script.lock().expect("script").challenge = Some(header.to_owned());
    }

    /// Lists these, a page after the other.
    pub(crate) fn list_tags(&self, pages: &[&[&str]]) {
        let pages = pages.iter().map(|page| page.iter().map(|&tag| tag.to_owned()).collect());
        self.script.lock().expect("script").tags = pages.collect();
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.script.lock().expect("script").asked.clone()
    }

    pub(crate) fn blob_gets(&self, digest: &str) -> usize {
        let path = format!("/blobs/{digest}");
        self.asked().iter().filter(|a| a.method == "GET" && a.path.ends_with(&path)).count()
    }
}

async fn answer(State(hostile): State<Hostile>, request: Request) -> Response {
    let headers = request.headers();
    let text = |name: header::HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let asked = Asked {
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        authorization: text(header::AUTHORIZATION),
        range: text(header::RANGE),
    };
    let mut script = hostile.script.lock().expect("script");
    script.asked.push(asked.clone());
    if asked.path == "/token" {
        let good = asked.authorization.as_deref() == Some("Basic YWxpY2U6czNjcmV0");
        let anonymous = asked.authorization.is_none();
        return match (good, anonymous) {
            (true, _) => axum::Json(serde_json::json!({"token": "good", "expires_in": 60})).into_response(),
            (false, true) => axum::Json(serde_json::json!({"token": "anonymous"})).into_response(),
            (false, false) => StatusCode::UNAUTHORIZED.into_response(),
        };
    }
    if let Some(challenge) = &script.challenge
        && asked.authorization.as_deref()
            != Some(if challenge.starts_with("Basic") { "Basic YWxpY2U6czNjcmV0" } else { "Bearer good" })
    {
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge.clone())]).into_response();
    }
    if asked.path == "/v2/" {
        return axum::Json(serde_json::json!({})).into_response();
    }
    if asked.path.ends_with("/tags/list") {
        return tags(&script.tags, &asked.query);
    }
    let name = asked.path.rsplit('/').next().unwrap_or_default().to_owned();
    if asked.path.contains("/manifests/") {
        return match script.manifests.get(&name) {
            Some((media_type, body)) => ([(header::CONTENT_TYPE, media_type.clone())], body.clone()).into_response(),
            None => unknown("MANIFEST_UNKNOWN"),
        };
    }
    let begun_before = script.asked.iter().filter(|a| a.path == asked.path).count() > 1;
    match script.blobs.get(&name) {
        Some(blob) if asked.path.contains("/blobs/") => serve(blob, asked.range.as_deref(), begun_before),
        Some(_) | None => unknown("BLOB_UNKNOWN"),
    }
}

fn serve(blob: &Blob, range: Option<&str>, begun_before: bool) -> Response {
    let from = range.and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()).unwrap_or(0);
    match blob {
        Blob::Honest(content) => part(content, from, content.len()),
        Blob::Lies(content) => part(&vec![b'x'; content.len()], from, content.len()),
        Blob::BreaksOff(content, after) => part(content, from, from + after),
        Blob::BreaksOffOnce(content, _) if begun_before => part(content, 0, content.len()),
        Blob::BreaksOffOnce(content, after) => part(content, 0, *after),
        Blob::Hangs(length) => (
            [(header::CONTENT_LENGTH, length.to_string())],
            Body::from_stream(stream::pending::<Result<Bytes, String>>()),
        )
            .into_response(),
        Blob::Endless => {
            Body::from_stream(stream::repeat_with(|| Ok::<_, String>(Bytes::from(vec![0; 65536])))).into_response()
        }
        Blob::Redirects(to) => (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to.clone())]).into_response(),
    }
}

/// `content[from..]` announced, `content[from..until]` sent.
fn part(content: &[u8], from: usize, until: usize) -> Response {
    let mut headers = HeaderMap::new();
    let length = content.len() - from;
    headers.insert(header::CONTENT_LENGTH, length.to_string().parse().expect("header"));
    let status = if from > 0 {
        let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
        headers.insert(header::CONTENT_RANGE, range.parse().expect("header"));
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    };
    let sent = Bytes::from(content[from..until.min(content.len())].to_vec());
    let mut pieces = vec![Ok(sent)];
    if until < content.len() {
        pieces.push(Err("broken off"));
    }
    // The yield lets the first piece out before the break closes the connection.
    let body = stream::unfold((pieces.into_iter(), false), |(mut pieces, later)| async move {
        if later {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        pieces.next().map(|piece| (piece, (pieces, true)))
    });
    (status, headers, Body::from_stream(body)).into_response()
}

/// The page of the query, and the way to the next: at an address nobody may be led to.
fn tags(pages: &[Vec<String>], query: &str) -> Response {
    let at = query.strip_prefix("page=").and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
    let Some(page) = pages.get(at) else { return unknown("NAME_UNKNOWN") };
    let body = axum::Json(serde_json::json!({"name": "app", "tags": page}));
    if at + 1 == pages.len() {
        return body.into_response();
    }
    let link = format!("<http://169.254.169.254/v2/app/tags/list?page={}>; rel=\"next\"", at + 1);
    ([(header::LINK, link)], body).into_response()
}

fn unknown(code: &str) -> Response {
    let body = serde_json::json!({"errors": [{"code": code, "message": "unknown"}]});
    (StatusCode::NOT_FOUND, axum::Json(body)).into_response()
}
