//! The OCI distribution face, `/v2/…`: who asks, what they may, and on to image-svc. Whether something
//! is there, and for whom, is asked of Postgres on each request; what another project holds is unknown
//! in the words that are used for what never was.

mod call;
mod document;
mod holder;
mod look;
mod read;
mod relay;
mod signing;
mod token;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware,
    response::{IntoResponse as _, Response},
    routing::any,
};
use contract::registry::{Code, Refusal};
use model::{Error, ProjectId, RepositoryName};
use serde_json::json;
use store::RepositoryAccess;

pub(crate) use document::documented;
pub(crate) use holder::OverTls;
pub(crate) use look::Question;
pub(crate) use read::ManifestsRead;
pub(crate) use signing::Keys;

use crate::{Gateway, edge};
use call::{Action, Call};
use holder::{Challenge, Holder};

/// Requests of nobody in particular are counted together, apart from every project's own.
const NOBODY: ProjectId = ProjectId(uuid::Uuid::nil());

/// The face, ready to serve.
pub(crate) fn router(gateway: &Gateway) -> Router {
    Router::new()
        .route("/v2", any(enter))
        .route("/v2/", any(enter))
        .route("/v2/{*path}", any(enter))
        .route_layer(middleware::from_fn(edge::tell_route))
        .with_state(gateway.clone())
}

/// An error as registries write it.
pub(crate) fn refuse(status: StatusCode, message: &str) -> Response {
    let code = match status {
        StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Code::SizeInvalid,
        _ => Code::NameInvalid,
    };
    let mut response = Refused::from(Refusal::new(code, message)).into_response();
    *response.status_mut() = status;
    response
}

/// A no on its way out.
#[derive(Debug)]
struct Refused {
    refusal: Refusal,
    challenge: Option<HeaderValue>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, challenge: None }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        chassis::error::log_once(&error);
        Refusal::from(&error).into()
    }
}

impl Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.refusal.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, self.refusal.body()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(challenge) = self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

type Answer = Result<Response, Refused>;

async fn enter(State(gateway): State<Gateway>, request: Request) -> Response {
    let mut response = match answer(&gateway, request).await {
        Ok(response) => response,
        Err(refused) => refused.into_response(),
    };
    response.headers_mut().insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    response
}

async fn answer(gateway: &Gateway, request: Request) -> Answer {
    let call = Call::parse(request.uri().path());
    if let Some(Call::Token) = call {
        return token::answer(gateway, request).await;
    }
    let (parts, body) = request.into_parts();
    let challenge = Challenge::of(gateway, &parts, call.as_ref());
    // What is asked of Postgres before anything is answered: one question with a registry token, which says
    // all of it; two with a credential itself, or without a repository. Those who ask at once share an answer.
    let (holder, look) =
        look::known(gateway, &parts, call.as_ref()).await.map_err(|refused| challenge.attach(refused))?;
    let bucket = holder.project().unwrap_or(NOBODY);
    gateway.rates.take(bucket, gateway.clock.now()).await?;
    let unsupported = || Refusal::new(Code::Unsupported, "the registry does not know this operation");
    match call.ok_or_else(unsupported)? {
        Call::Token => Err(unsupported().into()),
        Call::Root if matches!(parts.method, Method::GET | Method::HEAD) => {
            Ok(([(header::CONTENT_TYPE, "application/json")], "{}").into_response())
        }
        Call::Root => Err(unsupported().into()),
        Call::Catalog if matches!(parts.method, Method::GET) => {
            let Some(project) = holder.project() else { return Err(challenge.unauthorized()) };
            if !holder.may_list() {
                return Err(challenge.insufficient());
            }
            relay::catalog(gateway, project, &parts).await
        }
        Call::Catalog => Err(unsupported().into()),
        Call::In(name, target) => {
            let action = target.action(&parts.method).ok_or_else(unsupported)?;
            let name = name.parse::<RepositoryName>().map_err(|error| {
                if let Error::InvalidArgument(text) = error {
                    Refusal::new(Code::NameInvalid, text)
                } else {
                    Refusal::name_unknown()
                }
            });
            let name = match name {
                Ok(name) => name,
                // A stranger is told nothing of names but to say who they are.
                Err(_) if holder.project().is_none() => return Err(challenge.unauthorized()),
                Err(refusal) => return Err(refusal.into()),
            };
            let known = match look {
                Some(look) => look,
                None => look::Known::of(gateway.store.registry_repository(&name, holder.project()).await?),
            };
            let access = authorize(&holder, &challenge, &name, action, known.access)?;
            if let Some(looked) = known.looked
                && let Some(answer) = read::answer(gateway, &access, &name, looked, &parts).await?
            {
                return Ok(answer);
            }
            relay::repository(gateway, &holder, &name, &access, &target, parts, body).await
        }
    }
}

/// What the holder may know of a name, if they may do with it what they want to.
fn authorize(
    holder: &Holder,
    challenge: &Challenge,
    name: &RepositoryName,
    action: Action,
    access: Option<RepositoryAccess>,
) -> Result<RepositoryAccess, Refused> {
    let Some(access) = access else {
        return Err(match holder.project() {
            None => challenge.unauthorized(),
            Some(_) => Refusal::name_unknown().into(),
        });
    };
    if !access.owned && action != Action::Pull {
        return Err(match holder.project() {
            None => challenge.unauthorized(),
            Some(_) => Refusal::new(Code::Denied, "requested access to the resource is denied").into(),
        });
    }
    if !holder.may(name, action) {
        return Err(challenge.insufficient());
    }
    Ok(access)
}

/// What the registry's own documents are sent as.
fn json_answer(body: &serde_json::Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], json!(body).to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_refusal_at_the_door_is_an_oci_error_too() {
        let response = refuse(StatusCode::URI_TOO_LONG, "the path is too long");
        assert_eq!(response.status(), 414);
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["errors"][0]["code"], "SIZE_INVALID");
    }
}
