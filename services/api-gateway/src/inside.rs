//! Requests from inside containers: what a container says over its `/var/run/docker.sock` comes in here,
//! passed on by its host, on a listener that only hosts' certificates open. There is no token: the host
//! names the run of the container it asks for, and Postgres says, for each request, whether that
//! runs there and may. What it gets is the project's Docker API and nothing else.

use axum::{
    extract::{Request, State},
    http::header,
    response::{IntoResponse as _, Response},
};
use chassis::Peer;
use contract::socket::{CLAIM, Claim};
use model::{Error, Result};
use store::Principal;

use crate::{
    Gateway,
    docker::error::DockerError,
    edge::{self, Faces},
};

/// Who was let in at the hosts' door. In a request's extensions only where this door put it.
#[derive(Clone, Debug)]
pub(crate) struct Admitted(pub(crate) Principal);

/// Everything that reaches the hosts' listener.
pub(crate) async fn enter(State(faces): State<Faces>, mut request: Request) -> Response {
    match admit(&faces.gateway, &mut request).await {
        Ok(principal) => {
            request.extensions_mut().insert(Admitted(principal));
            edge::enter_docker_only(faces, request).await
        }
        Err(error) => DockerError(error).into_response(),
    }
}

async fn admit(gateway: &Gateway, request: &mut Request) -> Result<Principal> {
    let host = request.extensions().get::<Peer>().cloned().unwrap_or_default().require_host()?;
    let said = request.headers_mut().remove(CLAIM);
    // A container has no credential but the one it runs by.
    request.headers_mut().remove(header::AUTHORIZATION);
    let nobody = || Error::Unauthenticated("this container does not run any more".into());
    let claim: Claim = said.as_ref().and_then(|value| value.to_str().ok()?.parse().ok()).ok_or_else(nobody)?;
    let principal = gateway.store.authenticate_container(host, &claim).await?.ok_or_else(nobody)?;
    tracing::debug!(container = %claim.container, "a container asks");
    Ok(principal)
}
