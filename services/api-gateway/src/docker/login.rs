//! `POST /auth`: whether a registry takes somebody's credentials. image-svc asks registries outside;
//! the registry at this very address takes a project's token as the password, whatever the user name.
//! Nothing is kept: clients send what they logged in with along with every pull.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use chassis::ids;
use contract::image::{LOGINS, LoginReply, RegistryAuth};
use model::{Error, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use store::Principal;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    body::{DockerResponse, JsonBody, json as reply},
    containers::typed,
    error::{ErrorResponse, refused},
};
use crate::{Gateway, auth::Project, limits};

pub(crate) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(login))
}

/// What clients send.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AuthConfig {
    username: String,
    password: String,
    serveraddress: String,
    identitytoken: String,
    registrytoken: String,
}

/// Check credentials of a registry
#[utoipa::path(post, path = "/auth", operation_id = "SystemAuth", tag = "System", request_body = Object,
    responses((status = 200, description = "The registry takes them", body = Object),
        (status = 401, description = "It does not", body = ErrorResponse),
        (status = 403, description = "The registry is at an address this platform does not reach out to", body = ErrorResponse),
        (status = 503, description = "The registry does not answer", body = ErrorResponse)))]
async fn login(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Value>,
) -> DockerResponse {
    let config: AuthConfig = typed(body.unwrap_or_else(|| json!({})))?;
    let texts =
        [&config.username, &config.password, &config.serveraddress, &config.identitytoken, &config.registrytoken];
    if texts.iter().map(|text| text.len()).sum::<usize>() > limits::REGISTRY_AUTH_BYTES {
        return Err(Error::InvalidArgument("the credentials are too long".into()).into());
    }
    let ours = headers.get(header::HOST).and_then(|host| host.to_str().ok()).filter(|host| !host.is_empty());
    let why = match server(&config.serveraddress)? {
        host if ours.is_some_and(|ours| host.eq_ignore_ascii_case(ours)) => {
            own(&gateway, host, &config.password).await?
        }
        _ => {
            let auth = RegistryAuth {
                username: config.username,
                password: config.password,
                identity_token: config.identitytoken,
                registry_token: config.registrytoken,
                server_address: config.serveraddress.clone(),
            };
            let said: LoginReply = gateway.image.post(LOGINS, &auth).await?;
            said.refused
        }
    };
    tracing::info!(project = %scope.project(), registry = config.serveraddress, accepted = why.is_none(), "login");
    match why {
        None => reply(StatusCode::OK, &json!({"IdentityToken": "", "Status": "Login Succeeded"})),
        Some(why) => Ok(refusal(&why)),
    }
}

/// The registry's host, as dockerd reads it.
fn server(address: &str) -> Result<&str> {
    let host = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://")).unwrap_or(address);
    let host = host.split('/').next().unwrap_or_default();
    let hostile = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | '?' | '#' | '\\' | '%');
    if host.contains(hostile) || (host.is_empty() && !address.is_empty()) {
        return Err(Error::InvalidArgument(format!("unable to parse server address: {address:?}")));
    }
    Ok(host)
}

/// The hosted registry: the password is a token of a project.
async fn own(gateway: &Gateway, host: &str, password: &str) -> Result<Option<String>> {
    let fits = !password.is_empty() && password.len() <= limits::TOKEN_BYTES;
    let principal = match fits {
        true => gateway.store.authenticate("bearer", &ids::sha256(password.as_bytes())).await?,
        false => None,
    };
    let known = matches!(principal, Some(Principal::Project(_)));
    Ok((!known).then(|| format!("login attempt to https://{host}/v2/ failed with status: 401 Unauthorized")))
}

/// Of the registry's credentials, not of ours: no challenge goes with it.
fn refusal(why: &str) -> Response {
    refused(StatusCode::UNAUTHORIZED, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_read_as_host_or_as_address() {
        for (written, host) in [
            ("https://index.docker.io/v1/", "index.docker.io"),
            ("registry.example:5000", "registry.example:5000"),
            ("http://127.0.0.1:5000/v2/", "127.0.0.1:5000"),
            ("", ""),
        ] {
            assert_eq!(server(written), Ok(host), "{written}");
        }
        for bad in ["user:secret@registry.example", "https://", "a b", "registry\\.example", "a\u{0}b"] {
            assert!(server(bad).is_err(), "{bad}");
        }
    }
}
