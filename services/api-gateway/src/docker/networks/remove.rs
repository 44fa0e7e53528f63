//! `DELETE /networks/{id}`, and prune. Containers that do not run do not keep a network, as with dockerd.

use axum::{
    extract::{Path, State},
    http::StatusCode,
};
use contract::wake::Topic;
use model::{Error, Result};
use serde_json::json;
use store::{NetworkRecord, ProjectScope};
use time::OffsetDateTime;

use super::{all, find, record};
use crate::{
    Gateway,
    auth::Project,
    docker::{
        body::{DockerResponse, json as reply},
        error::{ErrorResponse, empty},
        filters::Filters,
        instant,
        query::Query,
    },
};

/// Remove a network
#[utoipa::path(delete, path = "/networks/{id}", operation_id = "NetworkDelete", tag = "Network",
    params(("id" = String, Path, description = "Id, name, or unique prefix of an id")),
    responses((status = 204, description = "It is gone"),
        (status = 403, description = "It is predefined, or containers run on it", body = ErrorResponse),
        (status = 404, description = "No such network", body = ErrorResponse)))]
pub(crate) async fn remove(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    Path(id): Path<String>,
) -> DockerResponse {
    let mut tx = gateway.store.project_tx(&scope).await?;
    let network = find(all(&mut tx).await?, &id, None)?;
    let name = network.name.clone();
    let Some(record) = network.record.filter(|record| record.named) else {
        return Err(Error::Forbidden(format!("{name} is a pre-defined network and cannot be removed")).into());
    };
    drop(tx);
    delete(&gateway, &scope, &record).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

async fn delete(gateway: &Gateway, scope: &ProjectScope, network: &NetworkRecord) -> Result<()> {
    let mut tx = gateway.store.project_tx(scope).await?;
    tx.delete_network(network).await?;
    record(gateway, &mut tx, network, "destroy", None).await?;
    tx.commit().await?;
    gateway.bus.publish(&Topic::Project(scope.project()));
    Ok(())
}

/// Remove networks no container runs on
#[utoipa::path(post, path = "/networks/prune", operation_id = "NetworkPrune", tag = "Network",
    params(("filters" = Option<String>, Query, description = "JSON: label, label!, until")),
    responses((status = 200, description = "What was removed", body = Object),
        (status = 400, description = "A filter is wrong", body = ErrorResponse)))]
pub(crate) async fn prune(State(gateway): State<Gateway>, Project(scope): Project, query: Query) -> DockerResponse {
    let filters = Filters::parse(query.text("filters"), &["label", "label!", "until"])?;
    let now = gateway.clock.now();
    let until: Option<OffsetDateTime> = match filters.values("until") {
        [] => None,
        [one] => Some(instant::parse("until", one, now)?),
        _ => return Err(Error::InvalidArgument("more than one until filter specified".into()).into()),
    };
    let networks = gateway.store.project_tx(&scope).await?.networks().await?;
    let goes = |network: &&NetworkRecord| {
        network.named
            && !network.in_use
            && filters.labels(&network.labels)
            && until.is_none_or(|until| network.created_at < until)
    };
    let mut deleted = Vec::new();
    for network in networks.iter().filter(goes) {
        match delete(&gateway, &scope, network).await {
            Ok(()) => deleted.push(network.name.clone()),
            // In use since.
            Err(Error::Forbidden(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let deleted = if deleted.is_empty() { json!(null) } else { json!(deleted) };
    reply(StatusCode::OK, &json!({ "NetworksDeleted": deleted }))
}
