//! Who asks the registry: the holder of one of Wharfage's own credentials, with every right in their
//! project; the holder of a registry token made from one, with the rights written in it, as long as the
//! credential it was made from is good; or somebody unknown with a token for what is public.

use std::sync::Arc;

use axum::http::{HeaderValue, header, request::Parts};
use contract::registry::{Code, Refusal};
use model::{Error, ProjectId, RepositoryName, Result};
use store::{Principal, ProjectScope};

use super::{
    Refused,
    call::{Action, Call, Target},
    signing::{Access, Claims, SERVICE},
};
use crate::{Gateway, auth, limits};

/// Set on requests that came over TLS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OverTls;

/// Somebody, and what they may.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    scope: Option<ProjectScope>,
    /// What a registry token says; none for a credential, which has all rights.
    token: Option<Arc<Claims>>,
}

impl Holder {
    /// Their project; none for somebody unknown.
    pub(super) fn project(&self) -> Option<ProjectId> {
        self.scope.as_ref().map(ProjectScope::project)
    }

    /// Whether they hold a credential itself, and not a token with some of its rights.
    pub(super) fn is_whole(&self) -> bool {
        self.token.is_none()
    }

    /// Whether the rights they came with are enough. Whose the repository is, is another question.
    pub(super) fn may(&self, name: &RepositoryName, action: Action) -> bool {
        let name = name.to_string();
        self.granted(|access| access.allows("repository", &name, action.as_str()))
    }

    /// Whether they may list repositories.
    pub(super) fn may_list(&self) -> bool {
        self.granted(|access| access.allows("registry", "catalog", "*"))
    }

    fn granted(&self, is_it: impl Fn(&Access) -> bool) -> bool {
        self.token.as_ref().is_none_or(|claims| claims.access.iter().any(is_it))
    }

    /// The holder of a registry token, of whose credential Postgres says what it opens.
    pub(super) fn of_token(claims: Arc<Claims>, scope: Option<ProjectScope>) -> Self {
        Self { scope, token: Some(claims) }
    }
}

pub(super) fn unauthorized() -> Refused {
    Refusal::new(Code::Unauthorized, "authentication required").into()
}

/// What the registry token of a request says, if it shows one.
pub(super) async fn claims(gateway: &Gateway, parts: &Parts) -> std::result::Result<Option<Arc<Claims>>, Refused> {
    let Some(signed) = signed(parts) else { return Ok(None) };
    let claims = gateway.registry_keys.verify(&gateway.store, signed, gateway.clock.now()).await?;
    claims.ok_or_else(unauthorized).map(Some)
}

/// Who sends a request that is about no repository, or shows a credential itself.
pub(super) async fn identify(
    gateway: &Gateway,
    parts: &Parts,
    claims: Option<Arc<Claims>>,
) -> std::result::Result<Holder, Refused> {
    let Some(claims) = claims else {
        let scope = project_of(auth::authenticate(gateway, parts).await)?;
        return Ok(Holder { scope: Some(scope), token: None });
    };
    let scope = match claims.made_from() {
        None => None,
        Some(token) => match gateway.store.authenticate_again(token).await? {
            Some(Principal::Project(scope)) => Some(scope),
            Some(Principal::Operator(_) | Principal::Container(..)) | None => return Err(unauthorized()),
        },
    };
    Ok(Holder::of_token(claims, scope))
}

/// The project a credential opens; what is wrong with it in the registry's words.
pub(super) fn project_of(found: Result<Principal>) -> std::result::Result<ProjectScope, Refused> {
    match found {
        Ok(Principal::Project(scope)) => Ok(scope),
        Ok(Principal::Operator(_)) => {
            Err(Refusal::new(Code::Denied, "an operator's credential opens no project, and no repository").into())
        }
        Ok(Principal::Container(..)) => {
            Err(Refusal::new(Code::Denied, "a container opens the Docker API and nothing else").into())
        }
        Err(Error::Unauthenticated(_)) => Err(unauthorized()),
        Err(other) => Err(other.into()),
    }
}

/// A registry token: three parts, where a credential of Wharfage has one.
fn signed(parts: &Parts) -> Option<&str> {
    let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    let is_one = scheme.eq_ignore_ascii_case("bearer")
        && token.len() <= limits::REGISTRY_TOKEN_BYTES
        && token.bytes().filter(|b| *b == b'.').count() == 2
        && !token.starts_with(chassis::ids::TOKEN_PREFIX);
    is_one.then_some(token)
}

/// `WWW-Authenticate`: where to get a token, and for what.
#[derive(Clone, Debug)]
pub(super) struct Challenge {
    realm: String,
    scope: Option<String>,
}

impl Challenge {
    /// The challenge that would let this call through.
    pub(super) fn of(gateway: &Gateway, parts: &Parts, call: Option<&Call>) -> Self {
        let scope = match call {
            Some(Call::In(name, target)) if name.parse::<RepositoryName>().is_ok() => {
                Some(format!("repository:{name}:{}", wanted(target, parts)))
            }
            Some(Call::Catalog) => Some("registry:catalog:*".to_owned()),
            _ => None,
        };
        Self { realm: format!("{}/v2/token", base(gateway, parts)), scope }
    }

    fn header(&self, error: Option<&str>) -> Option<HeaderValue> {
        let mut text = format!("Bearer realm=\"{}\",service=\"{SERVICE}\"", self.realm);
        if let Some(scope) = &self.scope {
            text.push_str(&format!(",scope=\"{scope}\""));
        }
        if let Some(error) = error {
            text.push_str(&format!(",error=\"{error}\""));
        }
        HeaderValue::from_str(&text).ok()
    }

    /// Adds it to a refusal that a token would help against.
    pub(super) fn attach(&self, refused: Refused) -> Refused {
        if refused.refusal.code == Code::Unauthorized {
            Refused { challenge: self.header(None), ..refused }
        } else {
            refused
        }
    }

    /// Say who you are.
    pub(super) fn unauthorized(&self) -> Refused {
        self.attach(unauthorized())
    }

    /// The token is good, and not for this.
    pub(super) fn insufficient(&self) -> Refused {
        Refused { challenge: self.header(Some("insufficient_scope")), ..unauthorized() }
    }
}

/// Whoever pushes reads as well: what is there already, and what of an upload is.
fn wanted(target: &Target, parts: &Parts) -> &'static str {
    match target.action(&parts.method) {
        Some(Action::Push) => "pull,push",
        Some(Action::Delete) => "delete",
        Some(Action::Pull) | None => "pull",
    }
}

/// The address the client reached us by, unless the operator says how we are called.
fn base(gateway: &Gateway, parts: &Parts) -> String {
    if let Some(url) = &gateway.config.registry.public_url {
        return url.trim_end_matches('/').to_owned();
    }
    let host = parts.headers.get(header::HOST).and_then(|v| v.to_str().ok());
    let host = host.or_else(|| parts.uri.authority().map(|authority| authority.as_str())).unwrap_or("localhost");
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '_' | '[' | ']');
    let host = if host.chars().all(plain) { host } else { "localhost" };
    let scheme = if parts.extensions.get::<OverTls>().is_some() { "https" } else { "http" };
    format!("{scheme}://{host}")
}
