//! One repository at one upstream, for the length of one pull or push.

use std::{sync::Mutex, time::Duration};

use bytes::Bytes;
use model::{Digest, DigestAlgorithm};
use reqwest::{
    Body, Method, Response, StatusCode, Url,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, LINK, RANGE},
};
use serde::Deserialize;

use super::{
    UpstreamError,
    auth::{Credentials, authorize},
    challenge,
    http::{Http, Outgoing, read_bounded},
    manifest::ACCEPTED,
};
use crate::{
    blob_store::{digest_by, digest_of},
    limits::{ERROR_BYTES_MAX, MANIFEST_BYTES_MAX, TAG_PAGES_MAX, TAGS_MAX},
};

/// A repository and what opens it.
pub(crate) struct Repository {
    http: Http,
    base: Url,
    operators: Option<String>,
    name: String,
    credentials: Option<Credentials>,
    authorization: Mutex<Option<HeaderValue>>,
    /// What a token is asked for.
    scopes: Mutex<Vec<String>>,
}

/// What is to be done in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    Pull,
    Push,
}

/// A document with what is known about it.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    pub(crate) media_type: String,
    pub(crate) body: Bytes,
    /// Of the body, computed here.
    pub(crate) digest: Digest,
}

#[derive(Deserialize)]
struct TagsReply {
    /// Null where there is none.
    #[serde(default)]
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct ErrorReply {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Repository {
    pub(super) fn new(
        http: Http,
        base: Url,
        operators: Option<String>,
        name: &str,
        credentials: Option<Credentials>,
        right: Right,
    ) -> Self {
        let actions = match right {
            Right::Pull => "pull",
            Right::Push => "pull,push",
        };
        let scopes = Mutex::new(vec![format!("repository:{name}:{actions}")]);
        let authorization = Mutex::new(credentials.as_ref().and_then(Credentials::ready_token));
        Self { http, base, operators, name: name.to_owned(), credentials, authorization, scopes }
    }

    /// Tokens are asked for that read another repository of the registry too.
    pub(crate) fn also_read(&self, repository: &str) {
        let scope = format!("repository:{repository}:pull");
        if let (Ok(mut scopes), Ok(mut held)) = (self.scopes.lock(), self.authorization.lock())
            && !scopes.contains(&scope)
        {
            scopes.push(scope);
            *held = self.credentials.as_ref().and_then(Credentials::ready_token);
        }
    }

    /// How long an upload may stand still.
    pub(super) fn idle(&self) -> Duration {
        self.http.idle
    }

    /// `scheme://host:port` of the upstream: where content of it may be said to come from.
    pub(crate) fn origin(&self) -> String {
        self.base.origin().ascii_serialization()
    }

    /// Tells apart downloads that may not be shared: repository, upstream and credentials.
    pub(crate) fn sharing_key(&self) -> (String, String, Option<[u8; 32]>) {
        (self.origin(), self.name.clone(), self.credentials.as_ref().map(Credentials::fingerprint))
    }

    /// A manifest or index, by tag or digest.
    pub(crate) async fn manifest(&self, tag_or_digest: &str) -> Result<Fetched, UpstreamError> {
        let mut headers = HeaderMap::new();
        for accepted in ACCEPTED {
            headers.append(ACCEPT, HeaderValue::from_static(accepted));
        }
        let response = self.send(Method::GET, &format!("manifests/{tag_or_digest}"), headers).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(response).await);
        }
        let media_type =
            header(&response, CONTENT_TYPE.as_str()).split(';').next().unwrap_or_default().trim().to_owned();
        let said = header(&response, "docker-content-digest").parse::<Digest>().ok();
        let body = read_bounded(response, MANIFEST_BYTES_MAX).await?;
        let wanted = tag_or_digest.parse::<Digest>().ok().or(said);
        let digest = digest_by(wanted.as_ref().map_or(DigestAlgorithm::Sha256, Digest::algorithm), &body);
        match wanted {
            Some(wanted) if wanted != digest => Err(UpstreamError::Invalid(format!(
                "manifest verification failed for digest {wanted}: expected {wanted}, got {digest}"
            ))),
            Some(_) | None => Ok(Fetched { media_type, body, digest }),
        }
    }

    /// A small blob, whole and verified.
    pub(crate) async fn document(&self, digest: &Digest, size_bytes: u64) -> Result<Bytes, UpstreamError> {
        let response = self.blob(digest, 0).await?;
        let body = read_bounded(response, size_bytes).await?;
        let got = digest_of(&body);
        if body.len() as u64 != size_bytes {
            let said = format!("blob {digest} has {} bytes where its descriptor says {size_bytes}", body.len());
            return Err(UpstreamError::Invalid(said));
        }
        if got != *digest {
            return Err(UpstreamError::Invalid(format!(
                "image config verification failed for digest {digest}: expected {digest}, got {got}"
            )));
        }
        Ok(body)
    }

    /// The answer that carries a blob, from `offset` on if the upstream can do that (206).
    pub(crate) async fn blob(&self, digest: &Digest, offset: u64) -> Result<Response, UpstreamError> {
        let mut headers = HeaderMap::new();
        if offset > 0
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={offset}-"))
        {
            headers.insert(RANGE, range);
        }
        let response = self.send(Method::GET, &format!("blobs/{digest}"), headers).await?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            StatusCode::NOT_FOUND => {
                Err(UpstreamError::Invalid(format!("blob {digest} is not in the repository: unknown blob")))
            }
            _ => Err(self.refusal(response).await),
        }
    }

    /// Whether this pull's credentials open a blob here.
    pub(crate) async fn has_blob(&self, digest: &Digest) -> Result<bool, UpstreamError> {
        let response = self.send(Method::HEAD, &format!("blobs/{digest}"), HeaderMap::new()).await?;
        Ok(response.status() == StatusCode::OK)
    }

    /// Whether the upstream knows the repository at all; asked only to word a failure.
    pub(crate) async fn exists(&self) -> bool {
        match self.send(Method::GET, "tags/list?n=1", HeaderMap::new()).await {
            Ok(response) => response.status() != StatusCode::NOT_FOUND,
            Err(_) => true,
        }
    }

    /// Every tag, page by page.
    pub(crate) async fn tags(&self) -> Result<Vec<String>, UpstreamError> {
        let (mut tags, mut page) = (Vec::new(), "n=1000".to_owned());
        for _ in 0..TAG_PAGES_MAX {
            let response = self.send(Method::GET, &format!("tags/list?{page}"), HeaderMap::new()).await?;
            if response.status() != StatusCode::OK {
                let refused = self.refusal(response).await;
                // Of a repository there is no manifest to miss.
                let unknown = matches!(refused, UpstreamError::ManifestUnknown);
                return Err(if unknown { UpstreamError::Denied } else { refused });
            }
            let next = next_page(header(&response, LINK.as_str()));
            let body = read_bounded(response, MANIFEST_BYTES_MAX).await?;
            let reply: TagsReply = serde_json::from_slice(&body)
                .map_err(|_| UpstreamError::Invalid("the registry sends no list of tags".into()))?;
            tags.extend(reply.tags.unwrap_or_default());
            if tags.len() > TAGS_MAX {
                break;
            }
            match next {
                Some(next) => page = next,
                None => return Ok(tags),
            }
        }
        Err(UpstreamError::Invalid(format!(
            "repository {} has more than {TAGS_MAX} tags; pull those you need by name",
            self.name
        )))
    }

    /// The address of something in the repository.
    pub(super) fn address(&self, path: &str) -> Result<Url, UpstreamError> {
        self.base
            .join(&format!("v2/{}/{path}", self.name))
            .map_err(|_| UpstreamError::Invalid(format!("{} is not the name of a repository", self.name)))
    }

    /// Sends content to an address that the registry chose. What came before has met its challenge.
    pub(super) async fn put(&self, url: Url, headers: HeaderMap, body: Body) -> Result<Response, UpstreamError> {
        let own = url.origin() == self.base.origin();
        let held = self.authorization.lock().map_or(None, |held| held.clone());
        let outgoing = Outgoing {
            method: Method::PUT,
            url,
            headers,
            authorization: held.filter(|_| own),
            form: None,
            body: Some(body),
            operators: self.operators.as_deref(),
        };
        self.http.send(outgoing).await
    }

    /// Sends, meeting a challenge once (or once more when a token has run out).
    pub(super) async fn send(&self, method: Method, path: &str, headers: HeaderMap) -> Result<Response, UpstreamError> {
        let url = self.address(path)?;
        let mut challenged = false;
        loop {
            let authorization = self.authorization.lock().map_or(None, |held| held.clone());
            let outgoing = Outgoing {
                method: method.clone(),
                url: url.clone(),
                headers: headers.clone(),
                authorization,
                form: None,
                body: None,
                operators: self.operators.as_deref(),
            };
            let response = self.http.send(outgoing).await?;
            // Only the registry itself may ask for credentials, not where it redirects to.
            let asked = response.status() == StatusCode::UNAUTHORIZED && response.url().origin() == self.base.origin();
            if !asked || challenged {
                return Ok(response);
            }
            challenged = true;
            let challenge = challenge::parse(response.headers()).ok_or(UpstreamError::Denied)?;
            let operators = self.operators.as_deref();
            let scopes = self.scopes.lock().map_or_else(|_| Vec::new(), |scopes| scopes.clone());
            let header =
                authorize(&self.http, &challenge, &self.base, operators, &scopes, self.credentials.as_ref()).await?;
            if let Ok(mut held) = self.authorization.lock() {
                *held = Some(header);
            }
        }
    }

    /// Reads what a registry says when it says no.
    pub(super) async fn refusal(&self, response: Response) -> UpstreamError {
        let status = response.status();
        let reply = match read_bounded(response, ERROR_BYTES_MAX).await {
            Ok(body) => serde_json::from_slice(&body).unwrap_or(ErrorReply { errors: Vec::new() }),
            Err(_) => ErrorReply { errors: Vec::new() },
        };
        let code = reply.errors.first().map_or("", |e| e.code.as_str());
        match (status, code) {
            (StatusCode::NOT_FOUND, "NAME_UNKNOWN") => UpstreamError::Denied,
            (StatusCode::NOT_FOUND, _) => UpstreamError::ManifestUnknown,
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => match &self.credentials {
                Some(_) if status == StatusCode::UNAUTHORIZED => {
                    UpstreamError::Unauthorized("authentication required".into())
                }
                Some(_) | None => UpstreamError::Denied,
            },
            (StatusCode::TOO_MANY_REQUESTS, _) => {
                let said = reply.errors.first().map_or("", |e| e.message.as_str());
                UpstreamError::RateLimited(
                    if said.is_empty() { "the registry's limit is reached" } else { said }.to_owned(),
                )
            }
            _ => UpstreamError::Unreachable(format!("received unexpected HTTP status: {status}")),
        }
    }
}

/// The query of the next page: of the address a registry gives only that is taken.
pub(super) fn next_page(link: &str) -> Option<String> {
    let (address, relation) = link.strip_prefix('<')?.split_once('>')?;
    let (_, query) = address.split_once('?')?;
    (relation.contains("next") && !query.is_empty()).then(|| query.split('#').next().unwrap_or_default().to_owned())
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}
