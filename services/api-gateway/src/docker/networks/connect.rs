//! `POST /networks/{id}/connect` and `/disconnect`: of containers that run, too. What is wanted is
//! written first; then the host is asked at once, and if it cannot, a connection is taken back.

use axum::{
    extract::{Path, State},
    http::StatusCode,
};
use contract::{
    agent::{CONTAINERS, NetworksRequest},
    wake::Topic,
};
use model::{Error, NETWORKS_PER_CONTAINER, NetworkId, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{ContainerRecord, NetworkRecord, ProjectScope};
use utoipa::ToSchema;

use super::{record, resolve};
use crate::{
    Gateway,
    agents::tenant_error,
    auth::Project,
    docker::{
        body::{DockerResponse, JsonBody},
        containers::{
            attachments,
            body::{EndpointConfig, typed},
            start, state,
        },
        error::{ErrorResponse, empty},
    },
};

/// What connect takes.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ConnectBody {
    container: String,
    endpoint_config: EndpointConfig,
}

/// What disconnect takes.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct DisconnectBody {
    container: String,
    /// Nothing has to be forced here: a host that is away learns of it when it is back.
    force: bool,
}

/// Connect a container to a network
#[utoipa::path(post, path = "/networks/{id}/connect", operation_id = "NetworkConnect", tag = "Network",
    params(("id" = String, Path, description = "Id, name, or unique prefix of an id")),
    request_body = ConnectBody,
    responses((status = 200, description = "It is on it"), (status = 400, description = "A field is wrong", body = ErrorResponse),
        (status = 403, description = "It is on it already, or cannot be", body = ErrorResponse),
        (status = 404, description = "No such network or container", body = ErrorResponse),
        (status = 500, description = "Its host could not do it", body = ErrorResponse)))]
pub(crate) async fn connect(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<Value>,
) -> DockerResponse {
    let body: ConnectBody = typed(body.unwrap_or_else(|| json!({})))?;
    // On its own, so that a client that leaves does not leave half of it.
    let work = chassis::request::spawn(async move { plug(&gateway, scope, &id, &body).await });
    work.await.map_err(Error::internal)??;
    Ok(empty(StatusCode::OK))
}

async fn plug(gateway: &Gateway, scope: ProjectScope, id: &str, body: &ConnectBody) -> Result<()> {
    let mut tx = gateway.store.project_tx(&scope).await?;
    let network = resolve(&mut tx, id).await?;
    let container = tx.lock_container(&body.container).await?;
    if container.spec.network_of.is_some() {
        return Err(attachments::shared());
    }
    if container.spec.network_none {
        return Err(Error::InvalidArgument(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode".into(),
        ));
    }
    if container.endpoints.iter().any(|e| e.network == network.id) {
        return Err(Error::Forbidden(format!(
            "endpoint with name {} already exists in network {}",
            container.name, network.name
        )));
    }
    let interface = (0..NETWORKS_PER_CONTAINER).find(|n| container.endpoints.iter().all(|e| e.interface != *n));
    let interface = interface
        .ok_or_else(|| Error::LimitExceeded(format!("a container may be on {NETWORKS_PER_CONTAINER} networks")))?;
    attachments::check(&network.name, &body.endpoint_config)?;
    attachments::attach(&mut tx, &container.id, &network, &body.endpoint_config, interface).await?;
    let generation = tx.networks_changed(&container.id).await?;
    let runs = state::of(&container).is_alive();
    if runs {
        record(gateway, &mut tx, &network, "connect", Some(&container.id)).await?;
    }
    tx.commit().await?;
    told(gateway, scope, &container);
    if !runs {
        return Ok(());
    }
    match settle(gateway, &container, generation).await {
        Err(error @ Error::Failed(_)) => {
            unplug(gateway, scope, &container, &network).await?;
            Err(error)
        }
        done => done,
    }
}

/// Disconnect a container from a network
#[utoipa::path(post, path = "/networks/{id}/disconnect", operation_id = "NetworkDisconnect", tag = "Network",
    params(("id" = String, Path, description = "Id, name, or unique prefix of an id")),
    request_body = DisconnectBody,
    responses((status = 200, description = "It is not on it any more"),
        (status = 404, description = "No such network or container", body = ErrorResponse),
        (status = 500, description = "It was not on it", body = ErrorResponse)))]
pub(crate) async fn disconnect(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<Value>,
) -> DockerResponse {
    let body: DisconnectBody = typed(body.unwrap_or_else(|| json!({})))?;
    let work = chassis::request::spawn(async move {
        let mut tx = gateway.store.project_tx(&scope).await?;
        let network = resolve(&mut tx, &id).await?;
        let container = tx.find_container(&body.container).await?;
        drop(tx);
        let generation = unplug(&gateway, scope, &container, &network).await?;
        if state::of(&container).is_alive() { settle(&gateway, &container, generation).await } else { Ok(()) }
    });
    work.await.map_err(Error::internal)??;
    Ok(empty(StatusCode::OK))
}

/// Takes a container off a network, in the plan. Returns the generation in which its host knows.
async fn unplug(
    gateway: &Gateway,
    scope: ProjectScope,
    container: &ContainerRecord,
    network: &NetworkRecord,
) -> Result<i64> {
    let mut tx = gateway.store.project_tx(&scope).await?;
    let container = tx.lock_container(container.id.as_str()).await?;
    if !is_on(&container, &network.id) {
        return Err(Error::Failed(format!("container {} is not connected to network {}", container.id, network.name)));
    }
    let generation = tx.networks_changed(&container.id).await?;
    tx.free_endpoint(&container.id, &network.id).await?;
    record(gateway, &mut tx, network, "disconnect", Some(&container.id)).await?;
    tx.commit().await?;
    told(gateway, scope, &container);
    Ok(generation)
}

fn is_on(container: &ContainerRecord, network: &NetworkId) -> bool {
    container.endpoints.iter().any(|e| e.network == *network)
}

fn told(gateway: &Gateway, scope: ProjectScope, container: &ContainerRecord) {
    gateway.bus.publish(&Topic::Project(scope.project()));
    gateway.bus.publish(&Topic::Networks);
    start::wake_host(gateway, container);
}

/// Waits until the container's host has done it.
async fn settle(gateway: &Gateway, container: &ContainerRecord, generation: i64) -> Result<()> {
    let path = format!("{CONTAINERS}/{}/networks", container.id);
    match gateway
        .agents
        .of(container)?
        .post::<_, ()>(&path, &NetworksRequest { generation })
        .await
        .map_err(tenant_error)
    {
        // It has ended or gone meanwhile, or its host is away and does it with its plan.
        Err(Error::NotFound(_) | Error::Unavailable(_)) => Ok(()),
        done => done,
    }
}
