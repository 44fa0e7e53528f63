//! A host becomes one: it shows a token an operator made, and gets a certificate with an identity
//! the scheduler decides. Nothing in the request but its key ends up in the certificate.

use std::time::Instant;

use axum::{
    Json,
    extract::{State as Shared, rejection::JsonRejection},
};
use chassis::{error::Answer, ids};
use contract::{
    host::{JoinReply, JoinRequest},
    wake::Topic,
};
use model::{Error, HostId, Slug};
use store::JoiningHost;

use crate::{State, api};

/// Long, because a host gets a new one only by joining again.
const CERTIFICATE_DAYS: i64 = 3_650;

/// Joins the fleet, or joins it again.
#[utoipa::path(
    post, path = contract::host::JOIN, tag = "hosts", request_body = JoinRequest,
    responses(
        (status = 200, description = "The host's identity", body = JoinReply),
        (status = 400, description = "The request is malformed"),
        (status = 401, description = "The token is unknown or expired"),
        (status = 403, description = "The token is another host's"),
    )
)]
pub(crate) async fn join(
    Shared(state): Shared<State>,
    request: Result<Json<JoinRequest>, JsonRejection>,
) -> Answer<Json<JoinReply>> {
    let began = Instant::now();
    let request = api::body(request)?;
    let name: Slug = request.name.parse()?;
    if request.agent_port == 0 {
        return Err(Error::invalid("agent_port", "is not a port").into());
    }
    if request.address.is_unspecified() || request.address.is_multicast() {
        return Err(Error::invalid("address", "is not one host's").into());
    }
    let host = JoiningHost {
        new_id: HostId(ids::uuid_v7()),
        name: name.as_str(),
        address: request.address,
        agent_port: request.agent_port,
        capacity: request.capacity,
    };
    // The request must be good before the token is used up.
    let refused = |error: chassis::pki::PkiError| Error::invalid("csr_pem", &error.to_string());
    state.authority.sign_csr(&request.csr_pem, "host:check", 1).map_err(refused)?;
    let id = state.store.join_host(&ids::sha256(request.token.as_bytes()), &host).await?;
    let certificate_pem =
        state.authority.sign_csr(&request.csr_pem, &format!("host:{id}"), CERTIFICATE_DAYS).map_err(refused)?;
    state.bus.publish(&Topic::Unplaced);
    tracing::info!(host = %id, name = %name, address = %request.address, took_ms = began.elapsed().as_millis(), "a host joined");
    Ok(Json(JoinReply { host: id, certificate_pem, ca_pem: state.authority.cert_pem().to_owned() }))
}
