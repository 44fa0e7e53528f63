//! Meeting a registry's challenge: the token flow of the distribution project, or Basic.
//! Credentials live as long as the pull they came with, and appear in no text.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use contract::image::RegistryAuth;
use model::DEFAULT_REGISTRY;
use reqwest::{
    Method, StatusCode, Url,
    header::{HeaderMap, HeaderValue},
};
use ring::digest::{SHA256, digest};
use serde::Deserialize;

use super::{
    UpstreamError,
    challenge::Challenge,
    http::{Http, Outgoing, read_bounded},
};
use crate::limits::TOKEN_BYTES_MAX;

/// A tenant's credentials for one registry.
#[derive(Clone)]
pub(crate) struct Credentials(RegistryAuth);

#[derive(Deserialize)]
struct TokenReply {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Credentials {
    /// The credentials, if there are any and they are for this registry.
    pub(crate) fn for_registry(auth: &RegistryAuth, registry: &str) -> Option<Self> {
        let empty = auth.username.is_empty() && auth.identity_token.is_empty() && auth.registry_token.is_empty();
        let meant = server_name(&auth.server_address);
        (!empty && (meant.is_empty() || meant == registry)).then(|| Self(auth.clone()))
    }

    /// A bearer token the client brought along.
    pub(crate) fn ready_token(&self) -> Option<HeaderValue> {
        if self.0.registry_token.is_empty() { None } else { bearer(&self.0.registry_token) }
    }

    /// Equal for equal credentials, and tells nothing about them.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let RegistryAuth { username, password, identity_token, registry_token, .. } = &self.0;
        let text = [username, password, identity_token, registry_token].map(|part| format!("{}:{part}", part.len()));
        let mut sum = [0; 32];
        sum.copy_from_slice(digest(&SHA256, text.concat().as_bytes()).as_ref());
        sum
    }

    fn basic(&self) -> Option<HeaderValue> {
        if self.0.username.is_empty() {
            return None;
        }
        let text = format!("Basic {}", STANDARD.encode(format!("{}:{}", self.0.username, self.0.password)));
        secret(&text)
    }
}

/// Docker's clients write a registry as a host or as the address of its v1 API.
pub(super) fn server_name(address: &str) -> &str {
    let host = address.trim_start_matches("https://").trim_start_matches("http://");
    match host.split('/').next().unwrap_or_default() {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY,
        name => name,
    }
}

/// Answers a challenge with the header that satisfies it, for some scopes or for nothing.
pub(crate) async fn authorize(
    http: &Http,
    challenge: &Challenge,
    base: &Url,
    operators: Option<&str>,
    scopes: &[String],
    credentials: Option<&Credentials>,
) -> Result<HeaderValue, UpstreamError> {
    match challenge {
        Challenge::Basic => credentials.and_then(Credentials::basic).ok_or(UpstreamError::Denied),
        Challenge::Bearer { realm, service } => {
            let realm: Url = realm
                .parse()
                .map_err(|_| UpstreamError::Invalid("the registry names no valid token service".into()))?;
            if credentials.is_some() && base.scheme() == "https" && realm.scheme() != "https" {
                return Err(UpstreamError::Refused("the token service of the registry does not use TLS".into()));
            }
            let request = token_request(realm, service.as_deref(), scopes, credentials, operators);
            fetch_token(http, request).await
        }
    }
}

fn token_request<'a>(
    mut realm: Url,
    service: Option<&str>,
    scopes: &[String],
    credentials: Option<&Credentials>,
    operators: Option<&'a str>,
) -> Outgoing<'a> {
    let refresh = credentials.map(|c| c.0.identity_token.as_str()).filter(|t| !t.is_empty());
    if let Some(refresh) = refresh {
        let mut form = realm.clone();
        form.query_pairs_mut()
            .clear()
            .append_pair("grant_type", "refresh_token")
            .append_pair("client_id", "wharfage")
            .append_pair("service", service.unwrap_or_default())
            .append_pair("refresh_token", refresh);
        if !scopes.is_empty() {
            form.query_pairs_mut().append_pair("scope", &scopes.join(" "));
        }
        let form = form.query().map(str::to_owned);
        return Outgoing {
            method: Method::POST,
            url: realm,
            headers: HeaderMap::new(),
            authorization: None,
            form,
            body: None,
            operators,
        };
    }
    {
        let mut query = realm.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        for scope in scopes {
            query.append_pair("scope", scope);
        }
        if let Some(credentials) = credentials {
            query.append_pair("account", &credentials.0.username);
        }
    }
    let authorization = credentials.and_then(Credentials::basic);
    Outgoing {
        method: Method::GET,
        url: realm,
        headers: HeaderMap::new(),
        authorization,
        form: None,
        body: None,
        operators,
    }
}

async fn fetch_token(http: &Http, request: Outgoing<'_>) -> Result<HeaderValue, UpstreamError> {
    let response = http.send(request).await?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Err(UpstreamError::Unauthorized("incorrect username or password".into()));
        }
        StatusCode::TOO_MANY_REQUESTS => return Err(UpstreamError::RateLimited("the token service is busy".into())),
        other => return Err(UpstreamError::Unreachable(format!("the token service answers {other}"))),
    }
    let body = read_bounded(response, TOKEN_BYTES_MAX).await?;
    let bad = || UpstreamError::Invalid("the token service of the registry sends no token".into());
    let reply: TokenReply = serde_json::from_slice(&body).map_err(|_| bad())?;
    let token = if reply.token.is_empty() { reply.access_token } else { reply.token };
    if token.is_empty() {
        return Err(bad());
    }
    bearer(&token).ok_or_else(bad)
}

fn bearer(token: &str) -> Option<HeaderValue> {
    secret(&format!("Bearer {token}"))
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(server: &str) -> RegistryAuth {
        RegistryAuth {
            username: "u".into(),
            password: "p".into(),
            server_address: server.into(),
            ..RegistryAuth::default()
        }
    }

    #[test]
    fn credentials_go_to_the_registry_they_are_for_and_no_other() {
        assert!(Credentials::for_registry(&auth("https://index.docker.io/v1/"), "docker.io").is_some());
        assert!(Credentials::for_registry(&auth("registry.example:5000"), "registry.example:5000").is_some());
        assert!(Credentials::for_registry(&auth(""), "anything.example").is_some());
        assert!(Credentials::for_registry(&auth("https://index.docker.io/v1/"), "evil.example").is_none());
        assert!(Credentials::for_registry(&RegistryAuth::default(), "docker.io").is_none());
    }

    #[test]
    fn a_token_is_asked_for_with_all_scopes_in_either_form() {
        let scopes = ["repository:a/b:pull,push".to_owned(), "repository:c/d:pull".to_owned()];
        let realm: Url = "https://auth.example/token".parse().expect("a URL");
        let asked = token_request(realm.clone(), Some("s"), &scopes, None, None);
        let query = asked.url.query().expect("a query");
        assert_eq!(query, "service=s&scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=repository%3Ac%2Fd%3Apull");
        let refresh = RegistryAuth { identity_token: "t".into(), ..RegistryAuth::default() };
        let credentials = Credentials::for_registry(&refresh, "r").expect("credentials");
        let form = token_request(realm, None, &scopes, Some(&credentials), None).form.expect("a form");
        assert!(form.ends_with("scope=repository%3Aa%2Fb%3Apull%2Cpush+repository%3Ac%2Fd%3Apull"), "{form}");
    }

    #[test]
    fn different_credentials_have_different_fingerprints() {
        let of = |u: &str, p: &str| {
            let auth = RegistryAuth { username: u.into(), password: p.into(), ..RegistryAuth::default() };
            Credentials::for_registry(&auth, "r").expect("credentials").fingerprint()
        };
        assert_eq!(of("a", "b"), of("a", "b"));
        assert_ne!(of("ab", "c"), of("a", "bc"));
    }
}
