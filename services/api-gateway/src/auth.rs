//! Who is asking. A credential is a bearer token, the same token as a Basic password (any user), or
//! a client certificate's fingerprint; containers with the Docker socket come by [`crate::inside`]. Every request is checked against Postgres: a revoked token
//! opens nothing from the next request on. The answer to a bad credential never varies.
//!
//! The layers below put the scope into the request; handlers take it out by [`Project`],
//! [`Operator`] or [`Caller`]. A handler behind no layer gets 401, never a scope.

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderValue, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chassis::{Peer, Problem, ids};
use model::{Error, Result};
use store::{OperatorScope, Principal, ProjectScope};

use crate::{Gateway, docker::error::DockerError, inside::Admitted, limits};

/// Lets a browser ask its user for a token.
pub(crate) const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"wharfage\", charset=\"UTF-8\"");

fn unauthenticated() -> Error {
    Error::Unauthenticated(
        "authentication required: a bearer token, a token as Basic password, or a client certificate".into(),
    )
}

/// The caller's project. Every Docker handler takes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Project(pub(crate) ProjectScope);

/// An operator.
#[derive(Clone, Debug)]
pub(crate) struct Operator(pub(crate) OperatorScope);

/// Either.
#[derive(Clone, Debug)]
pub(crate) struct Caller(pub(crate) Principal);

impl<S: Sync> FromRequestParts<S> for Project {
    type Rejection = DockerError;
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> std::result::Result<Self, DockerError> {
        parts.extensions.get::<Self>().copied().ok_or_else(|| DockerError(unauthenticated()))
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Response;
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> std::result::Result<Self, Response> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| platform_refusal(unauthenticated()))
    }
}

impl<S: Sync> FromRequestParts<S> for Operator {
    type Rejection = Response;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> std::result::Result<Self, Response> {
        match Caller::from_request_parts(parts, state).await?.0 {
            Principal::Operator(scope) => Ok(Self(scope)),
            Principal::Project(_) | Principal::Container(..) => {
                Err(platform_refusal(Error::Forbidden("this needs an operator's credential, not a project's".into())))
            }
        }
    }
}

/// Layer of every Docker route but `/_ping`: a project's credential, and its rate.
pub(crate) async fn require_project(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    match admit_project(&gateway, request).await {
        Ok(request) => next.run(request).await,
        Err(error) => DockerError(error).into_response(),
    }
}

async fn admit_project(gateway: &Gateway, request: Request) -> Result<Request> {
    let (mut parts, body) = request.into_parts();
    match authenticate(gateway, &parts).await? {
        Principal::Project(scope) | Principal::Container(scope, _) => {
            gateway.rates.take(scope.project(), gateway.clock.now()).await?;
            parts.headers.remove(header::AUTHORIZATION);
            parts.extensions.insert(Project(scope));
            Ok(Request::from_parts(parts, body))
        }
        Principal::Operator(_) => Err(Error::Forbidden(
            "an operator's credential opens the platform API, not a project; use one of the project's tokens".into(),
        )),
    }
}

/// Layer of every platform route: any credential; handlers say which.
pub(crate) async fn require_principal(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    match admit_principal(&gateway, request).await {
        Ok(request) => next.run(request).await,
        Err(error) => platform_refusal(error),
    }
}

async fn admit_principal(gateway: &Gateway, request: Request) -> Result<Request> {
    let (mut parts, body) = request.into_parts();
    let principal = authenticate(gateway, &parts).await?;
    if let Principal::Project(scope) | Principal::Container(scope, _) = &principal {
        gateway.rates.take(scope.project(), gateway.clock.now()).await?;
    }
    parts.headers.remove(header::AUTHORIZATION);
    parts.extensions.insert(Caller(principal));
    Ok(Request::from_parts(parts, body))
}

/// A refusal in the platform's shape, with a challenge browsers understand.
fn platform_refusal(error: Error) -> Response {
    let challenge = matches!(error, Error::Unauthenticated(_));
    let mut response = Problem::from(error).into_response();
    if challenge {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
    }
    response
}

/// Which principal a request's credential names; a container's was found at the hosts' door.
pub(crate) async fn authenticate(gateway: &Gateway, request: &Parts) -> Result<Principal> {
    if let Some(Admitted(principal)) = request.extensions.get() {
        return Ok(principal.clone());
    }
    let certificate = request.extensions.get::<Peer>().and_then(|peer| peer.certificate.as_deref());
    let key = match (presented(&request.headers)?, certificate) {
        (Some(token), _) => ("bearer", ids::sha256(token.as_bytes())),
        (None, Some(shown)) => ("certificate", ids::sha256(&shown.der)),
        (None, None) => return Err(unauthenticated()),
    };
    let found = gateway.credentials.ask(key, |_| gateway.store.authenticate(key.0, &key.1)).await?;
    found.ok_or_else(unauthenticated)
}

/// Which principal a secret names that came by another way than a header.
pub(crate) async fn authenticate_secret(gateway: &Gateway, secret: &str) -> Result<Principal> {
    if secret.is_empty() || secret.len() > limits::TOKEN_BYTES {
        return Err(unauthenticated());
    }
    gateway.store.authenticate("bearer", &ids::sha256(secret.as_bytes())).await?.ok_or_else(unauthenticated)
}

/// The token in the one `Authorization` header; none if there is no such header.
pub(crate) fn presented(headers: &HeaderMap) -> Result<Option<String>> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() || value.len() > 2 * limits::TOKEN_BYTES {
        return Err(unauthenticated());
    }
    let (scheme, credential) = value.to_str().ok().and_then(|v| v.split_once(' ')).ok_or_else(unauthenticated)?;
    let token = if scheme.eq_ignore_ascii_case("bearer") {
        credential.trim().to_owned()
    } else if scheme.eq_ignore_ascii_case("basic") {
        basic_password(credential.trim()).ok_or_else(unauthenticated)?
    } else {
        return Err(unauthenticated());
    };
    if token.is_empty() || token.len() > limits::TOKEN_BYTES {
        return Err(unauthenticated());
    }
    Ok(Some(token))
}

fn basic_password(encoded: &str) -> Option<String> {
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    decoded.split_once(':').map(|(_, password)| password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).expect("a header value"));
        }
        headers
    }

    fn token(value: &str) -> Option<String> {
        presented(&headers(&[value])).expect("accepted")
    }

    #[test]
    fn a_token_comes_as_bearer_or_as_basic_password() {
        assert_eq!(token("Bearer whf_x").as_deref(), Some("whf_x"));
        assert_eq!(token("bearer whf_x").as_deref(), Some("whf_x"));
        let basic = format!("Basic {}", STANDARD.encode("anyone:whf_x:y"));
        assert_eq!(token(&basic).as_deref(), Some("whf_x:y"));
    }

    #[test]
    fn two_authorization_headers_are_none() {
        assert!(presented(&headers(&["Bearer a", "Bearer a"])).is_err());
    }

    #[test]
    fn a_credential_over_the_limit_or_of_another_scheme_is_refused() {
        for bad in [
            format!("Bearer {}", "a".repeat(limits::TOKEN_BYTES + 1)),
            format!("Bearer {}", "a".repeat(1024 * 1024)),
            "Bearer ".to_owned(),
            "Bearer".to_owned(),
            "Negotiate abc".to_owned(),
            "Basic %%%".to_owned(),
            format!("Basic {}", STANDARD.encode("nocolon")),
        ] {
            assert!(presented(&headers(&[&bad])).is_err(), "{}", &bad[..bad.len().min(20)]);
        }
        assert!(presented(&headers(&[&format!("Bearer {}", "a".repeat(limits::TOKEN_BYTES))])).is_ok());
    }

    #[test]
    fn every_refusal_reads_the_same() {
        let texts: Vec<_> = [vec!["Bearer a", "Bearer a"], vec!["Negotiate x"], vec!["Basic %"]]
            .iter()
            .map(|values| presented(&headers(values)).expect_err("refused").to_string())
            .collect();
        assert!(texts.iter().all(|text| *text == unauthenticated().to_string()));
    }
}
