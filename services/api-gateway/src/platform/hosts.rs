//! Hosts of the fleet, for operators only: no tenant ever learns a host's name or address.

use std::net::IpAddr;

use axum::{Json, http::StatusCode};
use chassis::{Problems, ids};
use contract::{host::HostRuntime, wake::Topic};
use model::{Error, HostCapacity, HostCondition, HostId, HostState, MemoryBytes, NanoCpus};
use serde::{Deserialize, Serialize};
use store::HostRecord;
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Answer,
    caller::{Administration, Id},
    input::{Body, List},
};
use crate::Gateway;

/// How long a join token is good, unless said otherwise, and at most.
const JOIN_SECONDS: u32 = 3_600;
const JOIN_SECONDS_MAX: u32 = 30 * 24 * 3_600;

pub(crate) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(change)).routes(routes!(create_join_token))
}

/// A host.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Host {
    /// Id.
    id: HostId,
    /// For people.
    name: String,
    /// Where the control plane reaches it.
    #[schema(value_type = String)]
    address: IpAddr,
    /// Whether it shall take new containers.
    state: HostState,
    /// Whether it is heard from.
    condition: HostCondition,
    /// What it can give.
    capacity: HostCapacity,
    /// OCI runtimes it has, and why one that is installed is not offered.
    runtimes: Vec<HostRuntime>,
    /// What its containers were promised.
    reserved: Reserved,
    /// Containers that run on it.
    containers: u32,
    /// When it first joined.
    #[serde(with = "time::serde::rfc3339")]
    joined_at: OffsetDateTime,
    /// When it last reported.
    #[serde(with = "time::serde::rfc3339::option")]
    last_seen_at: Option<OffsetDateTime>,
}

/// What a host's containers were promised.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Reserved {
    /// CPU time.
    nano_cpus: NanoCpus,
    /// Memory.
    memory_bytes: MemoryBytes,
    /// Places, running or not.
    containers: u32,
}

impl From<HostRecord> for Host {
    fn from(host: HostRecord) -> Self {
        Self {
            id: host.id,
            name: host.name,
            address: host.address,
            state: host.state,
            condition: host.condition,
            capacity: host.capacity,
            runtimes: host.runtimes,
            reserved: Reserved {
                nano_cpus: host.reserved_nano_cpus,
                memory_bytes: host.reserved_memory_bytes,
                containers: host.containers,
            },
            containers: host.running,
            joined_at: host.joined_at,
            last_seen_at: host.last_seen_at,
        }
    }
}

/// List the hosts by name
#[utoipa::path(get, path = "/api/v1/hosts", operation_id = "HostList", tag = "Host",
    responses((status = 200, description = "Every host", body = List<Host>), Problems))]
async fn list(call: Administration) -> Answer<Json<List<Host>>> {
    let items = call.gateway.store.hosts().await?.into_iter().map(Host::from).collect();
    Ok(Json(List { items, next: None }))
}

/// What shall change of a host.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HostChange {
    /// `paused` takes no new containers; those it has run on.
    state: HostState,
}

/// Let a host take new containers, or not
#[utoipa::path(patch, path = "/api/v1/hosts/{host}", operation_id = "HostChange", tag = "Host",
    params(("host" = HostId, Path, description = "Its id")),
    request_body = HostChange, responses((status = 200, description = "The host now", body = Host), Problems))]
async fn change(call: Administration, Id(host): Id<HostId>, Body(change): Body<HostChange>) -> Answer<Json<Host>> {
    let mut tx = call.tx().await?;
    tx.set_host_state(host, change.state).await?;
    tx.commit().await?;
    call.gateway.bus.publish(&Topic::Unplaced);
    tracing::info!(%host, state = ?change.state, operator = %call.operator.token(), "host state changed");
    let hosts = call.gateway.store.hosts().await?;
    let now = hosts.into_iter().find(|record| record.id == host);
    Ok(Json(now.map(Host::from).ok_or_else(|| Error::NotFound(format!("no such host: {host}")))?))
}

/// A join token to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JoinTokenRequest {
    /// How long it is good.
    #[serde(default)]
    valid_seconds: Option<u32>,
}

/// A join token; shown once.
#[derive(Serialize, ToSchema)]
pub(crate) struct JoinToken {
    /// For `join_token` of the host's node-agent.
    secret: String,
    /// When it is good no more.
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
}

/// Make a token that one host may join with
#[utoipa::path(post, path = "/api/v1/host-join-tokens", operation_id = "HostJoinTokenCreate", tag = "Host",
    request_body = JoinTokenRequest, responses((status = 201, description = "Made", body = JoinToken), Problems))]
async fn create_join_token(
    call: Administration,
    Body(wanted): Body<JoinTokenRequest>,
) -> Answer<(StatusCode, Json<JoinToken>)> {
    let seconds = wanted.valid_seconds.unwrap_or(JOIN_SECONDS);
    if !(1..=JOIN_SECONDS_MAX).contains(&seconds) {
        return Err(Error::invalid("valid_seconds", "is not 1 second to 30 days").into());
    }
    let secret = ids::random_token();
    let expires_at = call.gateway.clock.now() + Duration::seconds(i64::from(seconds));
    let mut tx = call.tx().await?;
    tx.create_join_token(&ids::sha256(secret.as_bytes()), expires_at).await?;
    tx.commit().await?;
    tracing::info!(operator = %call.operator.token(), "host join token made");
    Ok((StatusCode::CREATED, Json(JoinToken { secret, expires_at })))
}
