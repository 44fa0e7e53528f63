//! The typed client between services. Every call carries the request's id and trace; an error body
//! becomes the `model::Error` it was; a part that does not answer is `Unavailable`.

use std::{future::Future, path::Path, time::Duration};

use anyhow::Context as _;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use model::{Error, Result};
use reqwest::{Response, Upgraded, Url};
use serde::{Serialize, de::DeserializeOwned};
use tokio_util::{
    codec::{FramedRead, LinesCodec, LinesCodecError},
    io::StreamReader,
};

use crate::{limits, request, tls};

/// One other service, or one host's agent. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Internal {
    base: Url,
    http: reqwest::Client,
    timeout: Duration,
}

impl Internal {
    /// A peer at `base` (`https://10.0.0.1:7443`), spoken to by a client of [`tls::client`].
    pub fn new(base: &str, http: reqwest::Client) -> anyhow::Result<Self> {
        let base: Url = base.parse().with_context(|| format!("`{base}` is not a URL"))?;
        anyhow::ensure!(base.has_host(), "`{base}` names no host");
        Ok(Self { base, http, timeout: limits::CALL })
    }

    /// A peer on a unix socket of this machine.
    pub fn unix(path: &Path) -> anyhow::Result<Self> {
        Self::new("http://localhost", tls::plain().unix_socket(path).build()?)
    }

    /// A peer over plain HTTP: for tests and loopback.
    pub fn plain(base: &str) -> anyhow::Result<Self> {
        Self::new(base, tls::plain().build()?)
    }

    /// The same peer with another time for a whole call, or for the head of a stream.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// `GET`, answered with JSON.
    pub async fn get<Resp: DeserializeOwned>(&self, path: &str) -> Result<Resp> {
        self.call(Method::GET, path, None::<&()>, None::<&()>).await
    }

    /// `GET` with a query.
    pub async fn get_with<Q: Serialize + Sync, Resp: DeserializeOwned>(&self, path: &str, query: &Q) -> Result<Resp> {
        self.call(Method::GET, path, Some(query), None::<&()>).await
    }

    /// `POST` of a document, answered with one (`()` for none).
    pub async fn post<Req: Serialize + Sync, Resp: DeserializeOwned>(&self, path: &str, body: &Req) -> Result<Resp> {
        self.call(Method::POST, path, None::<&()>, Some(body)).await
    }

    /// `PUT` of a document, answered with one (`()` for none).
    pub async fn put<Req: Serialize + Sync, Resp: DeserializeOwned>(&self, path: &str, body: &Req) -> Result<Resp> {
        self.call(Method::PUT, path, None::<&()>, Some(body)).await
    }

    /// `DELETE`, answered with a document (`()` for none).
    pub async fn delete<Resp: DeserializeOwned>(&self, path: &str) -> Result<Resp> {
        self.call(Method::DELETE, path, None::<&()>, None::<&()>).await
    }

    /// Any call with a JSON body and answer, within the call's time.
    pub async fn call<Q, Req, Resp>(
        &self,
        method: Method,
        path: &str,
        query: Option<&Q>,
        body: Option<&Req>,
    ) -> Result<Resp>
    where
        Q: Serialize + Sync + ?Sized,
        Req: Serialize + Sync + ?Sized,
        Resp: DeserializeOwned,
    {
        self.within(async {
            let response = self.send(method, path, query, body, HeaderMap::new()).await?;
            self.document(response, path).await
        })
        .await
    }

    async fn document<Resp: DeserializeOwned>(&self, response: Response, path: &str) -> Result<Resp> {
        let bytes = collect(response, limits::ANSWER_BYTES).await?;
        let bytes: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(bytes)
            .map_err(|e| Error::Internal(format!("{}{path} answered something else: {e}", self.base)))
    }

    /// A call whose answer is a stream: returns when its head is here and says success. The body may
    /// take as long as it likes. Dropping the response ends it.
    pub async fn stream<Q, Req>(
        &self,
        method: Method,
        path: &str,
        query: Option<&Q>,
        body: Option<&Req>,
    ) -> Result<Response>
    where
        Q: Serialize + Sync + ?Sized,
        Req: Serialize + Sync + ?Sized,
    {
        self.within(self.send(method, path, query, body, HeaderMap::new())).await
    }

    /// A call whose body is a stream, answered with a document (`()` for none). It may take as long as
    /// the body does.
    pub async fn upload<Q, S, E, Resp>(&self, method: Method, path: &str, query: &Q, body: S) -> Result<Resp>
    where
        Q: Serialize + Sync + ?Sized,
        S: Stream<Item = std::result::Result<bytes::Bytes, E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
        Resp: DeserializeOwned,
    {
        let url = self.base.join(path).map_err(|e| Error::invalid("path", &e.to_string()))?;
        let mut headers = HeaderMap::new();
        request::inject(&mut headers);
        let body = reqwest::Body::wrap_stream(body);
        let request = self.http.request(method, url).headers(headers).query(query).body(body);
        let response = request.send().await.map_err(|e| self.unavailable(&e))?;
        if !response.status().is_success() {
            return Err(decode(response).await);
        }
        self.document(response, path).await
    }

    /// Passes a request on, and answers with whatever comes back, refusals included. With a body it may
    /// take as long as the body does; without one the head must be here in time.
    pub async fn relay<Q, S, E>(
        &self,
        method: Method,
        path: &str,
        query: &Q,
        mut headers: HeaderMap,
        body: Option<S>,
    ) -> Result<Response>
    where
        Q: Serialize + Sync + ?Sized,
        S: Stream<Item = std::result::Result<bytes::Bytes, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let url = self.base.join(path).map_err(|e| Error::invalid("path", &e.to_string()))?;
        request::inject(&mut headers);
        let request = self.http.request(method, url).headers(headers).query(query);
        let send = |request: reqwest::RequestBuilder| async { request.send().await.map_err(|e| self.unavailable(&e)) };
        match body {
            Some(body) => send(request.body(reqwest::Body::wrap_stream(body))).await,
            None => self.within(send(request)).await,
        }
    }

    /// Asks for a byte stream in both directions: `Upgrade: <protocol>`, answered with 101.
    /// Shutting down the writing side ends that direction alone.
    pub async fn upgrade<Q, Req>(
        &self,
        path: &str,
        protocol: &str,
        query: Option<&Q>,
        body: Option<&Req>,
    ) -> Result<Upgraded>
    where
        Q: Serialize + Sync + ?Sized,
        Req: Serialize + Sync + ?Sized,
    {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_str(protocol).map_err(Error::internal)?);
        self.within(async {
            let response = self.send(Method::POST, path, query, body, headers).await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Err(Error::Internal(format!("{}{path} did not upgrade: {}", self.base, response.status())));
            }
            response.upgrade().await.map_err(|e| self.unavailable(&e))
        })
        .await
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(self.timeout, work).await.unwrap_or_else(|_| {
            Err(Error::Unavailable(format!("{} did not answer within {:?}", self.base, self.timeout)))
        })
    }

    async fn send<Q, Req>(
        &self,
        method: Method,
        path: &str,
        query: Option<&Q>,
        body: Option<&Req>,
        mut headers: HeaderMap,
    ) -> Result<Response>
    where
        Q: Serialize + Sync + ?Sized,
        Req: Serialize + Sync + ?Sized,
    {
        let url = self.base.join(path).map_err(|e| Error::invalid("path", &e.to_string()))?;
        request::inject(&mut headers);
        let mut request = self.http.request(method, url).headers(headers);
        if let Some(query) = query {
            request = request.query(query);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|e| self.unavailable(&e))?;
        if response.status().is_success() || response.status() == StatusCode::SWITCHING_PROTOCOLS {
            Ok(response)
        } else {
            Err(decode(response).await)
        }
    }

    fn unavailable(&self, error: &reqwest::Error) -> Error {
        tracing::debug!(peer = %self.base, error = error as &dyn std::error::Error, "call failed");
        let cause = if error.is_connect() { "cannot be reached" } else { "broke off" };
        Error::Unavailable(format!("{} {cause}: {}", self.base, root_cause(error)))
    }
}

/// The lines of an NDJSON answer. A line that is too long or malformed ends the stream with an error.
pub fn stream_lines<T: DeserializeOwned>(response: Response) -> impl Stream<Item = Result<T>> + Send + Unpin {
    let bytes = Box::pin(response.bytes_stream().map_err(std::io::Error::other));
    let lines = FramedRead::new(StreamReader::new(bytes), LinesCodec::new_with_max_length(limits::LINE_BYTES));
    Box::pin(lines.try_filter(|line| std::future::ready(!line.is_empty())).map(|line| match line {
        Ok(line) => serde_json::from_str(&line).map_err(|e| Error::Internal(format!("malformed line: {e}"))),
        Err(LinesCodecError::MaxLineLengthExceeded) => Err(Error::Internal("a line is too long".into())),
        Err(LinesCodecError::Io(e)) => Err(Error::Unavailable(format!("the stream broke off: {}", root_cause(&e)))),
    }))
}

/// The error that an answer carries.
async fn decode(response: Response) -> Error {
    let status = response.status();
    if status == StatusCode::NOT_MODIFIED {
        return Error::NotModified;
    }
    let body = match collect(response, limits::ERROR_BODY_BYTES).await {
        Ok(body) => body,
        Err(error) => return error,
    };
    serde_json::from_slice(&body).unwrap_or_else(|_| by_status(status, String::from_utf8_lossy(&body).into_owned()))
}

/// For answers that no handler of ours made: a missing route, a refused body.
fn by_status(status: StatusCode, text: String) -> Error {
    let text = if text.is_empty() { status.to_string() } else { text };
    match status.as_u16() {
        401 => Error::Unauthenticated(text),
        403 => Error::Forbidden(text),
        404 => Error::NotFound(text),
        409 => Error::Conflict(text),
        413 | 429 => Error::LimitExceeded(text),
        400..=499 => Error::InvalidArgument(text),
        501 => Error::NotImplemented(text),
        502..=504 => Error::Unavailable(text),
        _ => Error::Internal(format!("answered {status}: {text}")),
    }
}

async fn collect(response: Response, most: usize) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|e| Error::Unavailable(format!("the answer broke off: {}", root_cause(&e))))?;
        if body.len() + chunk.len() > most {
            return Err(Error::Internal(format!("an answer is longer than {most} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
