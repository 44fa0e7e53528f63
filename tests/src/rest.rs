//! Plain REST against the gateway, as any language would do it.

use std::time::Duration;

use reqwest::{Method, blocking::Client, header};
use serde_json::Value;

/// A client with one credential, or none.
#[derive(Clone, Debug)]
pub struct Rest {
    base: String,
    token: Option<String>,
    http: Client,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: header::HeaderMap,
    /// Body as text.
    pub body: String,
}

impl Rest {
    /// A client of any Docker endpoint.
    ///
    /// # Panics
    /// Never: a client without TLS needs nothing that could be missing.
    #[must_use]
    pub fn to(base: &str, token: Option<&str>) -> Self {
        // reqwest is built without a TLS provider of its own; a second installation changes nothing.
        rustls::crypto::ring::default_provider().install_default().ok();
        let http = Client::builder().timeout(Duration::from_secs(30)).build().expect("a client without TLS");
        Self { base: base.to_owned(), token: token.map(str::to_owned), http }
    }

    /// Sends a request; a body makes it JSON.
    ///
    /// # Panics
    /// When the gateway does not answer.
    #[must_use]
    pub fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Reply {
        self.try_send(method, path, body).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// The same, for when the gateway may be away.
    ///
    /// # Errors
    /// The gateway does not answer.
    pub fn try_send(&self, method: &str, path: &str, body: Option<&Value>) -> reqwest::Result<Reply> {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let response = request.send()?;
        Ok(Reply { status: response.status().as_u16(), headers: response.headers().clone(), body: response.text()? })
    }

    /// `GET`.
    #[must_use]
    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, None)
    }

    /// `POST` with a JSON body.
    #[must_use]
    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, Some(body))
    }
}

impl Reply {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {self:?}"))
    }
}
