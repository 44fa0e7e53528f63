//! `/v2/token`: the token service of the registry, as docker and the other clients use it: GET with
//! Basic, POST with a form (OAuth2). The password, and the refresh token, is a token of Wharfage. Who
//! shows nothing gets a token for what is public. A scope that is not the caller's to have is left out,
//! whether or not there is such a repository.

use axum::{
    body::to_bytes,
    extract::Request,
    http::{HeaderValue, Method, header, request::Parts},
    response::Response,
};
use chassis::Peer;
use contract::registry::{Code, Refusal};
use model::{ProjectId, RepositoryName};
use serde_json::json;
use store::ProjectScope;
use time::format_description::well_known::Rfc3339;

use super::{
    Answer, NOBODY, Refused,
    call::Action,
    holder::project_of,
    json_answer,
    signing::{Access, Claims, SERVICE, TOKEN_SECONDS},
};
use crate::{Gateway, auth, limits};

/// Scopes of one request.
const SCOPES_MAX: usize = 16;
/// How a token may be had.
const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"wharfage\", charset=\"UTF-8\"");

/// What a request says, in its query or its form.
#[derive(Default)]
struct Wanted {
    grant_type: Option<String>,
    service: Option<String>,
    scopes: Vec<String>,
    password: Option<String>,
    refresh_token: Option<String>,
    offline: bool,
}

impl Wanted {
    fn read(text: &[u8]) -> Self {
        let mut wanted = Self::default();
        for (key, value) in form_urlencoded::parse(text) {
            let value = value.into_owned();
            match &*key {
                "grant_type" => wanted.grant_type = Some(value),
                "service" => wanted.service = Some(value),
                "scope" => wanted.scopes.extend(value.split_whitespace().map(str::to_owned)),
                "password" => wanted.password = Some(value),
                "refresh_token" => wanted.refresh_token = Some(value),
                "offline_token" => wanted.offline = value == "true",
                "access_type" => wanted.offline = value == "offline",
                // `account`, `client_id`, `username`: who it is, the secret alone says.
                _ => {}
            }
        }
        wanted
    }
}

pub(super) async fn answer(gateway: &Gateway, request: Request) -> Answer {
    give(gateway, request).await.map_err(|refused| {
        let asks = matches!(refused.refusal.code, Code::Unauthorized);
        if asks { Refused { challenge: Some(BASIC), ..refused } } else { refused }
    })
}

async fn give(gateway: &Gateway, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let (wanted, scope, secret) = match parts.method {
        Method::GET => {
            let wanted = Wanted::read(parts.uri.query().unwrap_or_default().as_bytes());
            let secret = auth::presented(&parts.headers).ok().flatten();
            (wanted, shown(gateway, &parts).await?, secret)
        }
        Method::POST => {
            let body = to_bytes(body, limits::TOKEN_FORM_BYTES).await;
            let body = body.map_err(|_| Refusal::new(Code::SizeInvalid, "the form is too long"))?;
            let wanted = Wanted::read(&body);
            let secret = match wanted.grant_type.as_deref() {
                Some("password") => wanted.password.clone(),
                Some("refresh_token") => wanted.refresh_token.clone(),
                _ => return refused("grant_type is neither password nor refresh_token"),
            };
            let secret = secret.unwrap_or_default();
            let scope = project_of(auth::authenticate_secret(gateway, &secret).await)?;
            (wanted, Some(scope), Some(secret))
        }
        _ => return refused("the token service answers GET and POST"),
    };
    if wanted.service.as_deref().is_some_and(|service| service != SERVICE) {
        return refused("service is not this registry");
    }
    if wanted.scopes.len() > SCOPES_MAX {
        return refused("too many scopes");
    }
    let project = scope.as_ref().map(ProjectScope::project);
    gateway.rates.take(project.unwrap_or(NOBODY), gateway.clock.now()).await?;
    let mut access = Vec::new();
    for scope in &wanted.scopes {
        access.extend(granted(gateway, project, scope).await?);
    }
    let now = gateway.clock.now();
    let claims = Claims::new(scope.and_then(|scope| scope.token()), access, now);
    let token = gateway.registry_keys.sign(&gateway.store, &claims).await?;
    let mut answer = json!({
        "token": token, "access_token": token, "expires_in": TOKEN_SECONDS,
        "issued_at": now.format(&Rfc3339).unwrap_or_default(),
    });
    if wanted.offline
        && let Some(secret) = secret
    {
        answer["refresh_token"] = secret.into();
    }
    Ok(unstored(json_answer(&answer)))
}

/// The project of the credential that a GET shows; none if it shows none.
async fn shown(gateway: &Gateway, parts: &Parts) -> Result<Option<ProjectScope>, Refused> {
    let certificate = parts.extensions.get::<Peer>().is_some_and(|peer| peer.certificate.is_some());
    if !parts.headers.contains_key(header::AUTHORIZATION) && !certificate {
        return Ok(None);
    }
    project_of(auth::authenticate(gateway, parts).await).map(Some)
}

/// What of a scope the caller may have.
async fn granted(gateway: &Gateway, project: Option<ProjectId>, scope: &str) -> Result<Option<Access>, Refused> {
    let parts = scope
        .split_once(':')
        .and_then(|(kind, rest)| rest.rsplit_once(':').map(|(name, actions)| (kind, name, actions)));
    let Some((kind, name, actions)) = parts else { return Ok(None) };
    let asked = |action: &str| actions.split(',').any(|wanted| wanted == action || wanted == "*");
    let actions: Vec<String> = match kind {
        "registry" if name == "catalog" && project.is_some() && asked("*") => vec!["*".to_owned()],
        "repository" => {
            let Ok(name) = name.parse::<RepositoryName>() else { return Ok(None) };
            match gateway.store.registry_repository(&name, project).await? {
                Some(found) => Action::ALL
                    .into_iter()
                    .filter(|action| (found.owned || *action == Action::Pull) && asked(action.as_str()))
                    .map(|action| action.as_str().to_owned())
                    .collect(),
                None => Vec::new(),
            }
        }
        _ => Vec::new(),
    };
    let access = Access { kind: kind.to_owned(), name: name.to_owned(), actions };
    Ok(Some(access).filter(|access| !access.actions.is_empty()))
}

fn refused(text: &str) -> Answer {
    let mut response = Refused::from(Refusal::new(Code::Unsupported, text)).into_response();
    *response.status_mut() = axum::http::StatusCode::BAD_REQUEST;
    Ok(response)
}

/// A secret is no cache's to keep.
fn unstored(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
