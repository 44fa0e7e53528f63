//! Volumes of a project. A removal is a wish as durable as any: name and data are gone for the tenant
//! when it is answered, and gone from the host's disk once that has heard of it. Where a volume is
//! does not show: its mount point is what dockerd would say.

mod create;
mod options;
mod prune;
mod usage;

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use contract::wake::Topic;
use model::{Error, EventKind, Result, VolumeName};
use regex::Regex;
use serde_json::{Value, json};
use store::{ProjectScope, ProjectTx, RemovedVolume, VolumeRecord};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(crate) use create::{WantedVolume, find_or_make, no_such_driver};
pub(crate) use options::backing;
pub(crate) use usage::sizes;

use super::{
    body::{DockerResponse, json as reply},
    containers::patterns,
    error::{ErrorResponse, empty, refused},
    filters::Filters,
    query::Query,
};
use crate::{Gateway, auth::Project};

pub(crate) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default()
        .routes(routes!(list))
        .routes(routes!(create::create))
        .routes(routes!(prune::prune))
        .routes(routes!(inspect, update, remove))
}

/// Where dockerd would have it. Nothing is there on any host.
pub(crate) fn mountpoint(name: &VolumeName) -> String {
    format!("/var/lib/docker/volumes/{name}/_data")
}

/// A volume as Docker shows it.
pub(crate) fn document(volume: &VolumeRecord) -> Value {
    shown(&volume.name, volume.created_at, volume.labels.as_ref(), volume.options.as_ref())
}

fn shown(
    name: &VolumeName,
    created_at: OffsetDateTime,
    labels: Option<&BTreeMap<String, String>>,
    options: Option<&BTreeMap<String, String>>,
) -> Value {
    let created_at = created_at.replace_nanosecond(0).unwrap_or(created_at);
    json!({
        "CreatedAt": created_at.format(&Rfc3339).unwrap_or_default(),
        "Driver": "local",
        "Labels": labels,
        "Mountpoint": mountpoint(name),
        "Name": name,
        "Options": options,
        "Scope": "local",
    })
}

/// dockerd's text.
fn no_such_volume(name: &str) -> Error {
    Error::NotFound(format!("get {name}: no such volume"))
}

/// List volumes
#[utoipa::path(get, path = "/volumes", operation_id = "VolumeList", tag = "Volume",
    params(("filters" = Option<String>, Query, description = "JSON: dangling, driver, label, name")),
    responses((status = 200, description = "Volumes, as Docker describes them", body = Object),
        (status = 400, description = "A filter is wrong", body = ErrorResponse)))]
async fn list(State(gateway): State<Gateway>, Project(scope): Project, query: Query) -> DockerResponse {
    let filters = Filters::parse(query.text("filters"), &["dangling", "driver", "label", "label!", "name"])?;
    let dangling = filters.boolean("dangling")?;
    let names = patterns(filters.values("name"))?;
    let fits = |volume: &&VolumeRecord| {
        dangling.is_none_or(|dangling| dangling == volume.used_by.is_empty())
            && filters.any("driver", |driver| driver == "local")
            && filters.labels(volume.labels.as_ref().unwrap_or(&BTreeMap::new()))
            && (names.is_empty() || names.iter().any(|name: &Regex| name.is_match(volume.name.as_str())))
    };
    let volumes = gateway.store.project_tx(&scope).await?.volumes(None).await?;
    let shown: Vec<Value> = volumes.iter().filter(fits).map(document).collect();
    reply(StatusCode::OK, &json!({"Volumes": shown, "Warnings": null}))
}

async fn find(tx: &mut ProjectTx, name: &str) -> Result<VolumeRecord> {
    // What cannot be stored names nothing.
    let name = if name.contains('\0') { "" } else { name };
    tx.volumes(Some(name)).await?.pop().ok_or_else(|| no_such_volume(name))
}

/// Inspect a volume
#[utoipa::path(get, path = "/volumes/{name}", operation_id = "VolumeInspect", tag = "Volume",
    params(("name" = String, Path, description = "Name")),
    responses((status = 200, description = "The volume, as Docker describes it", body = Object),
        (status = 404, description = "No such volume", body = ErrorResponse)))]
async fn inspect(State(gateway): State<Gateway>, Project(scope): Project, Path(name): Path<String>) -> DockerResponse {
    let volume = find(&mut gateway.store.project_tx(&scope).await?, &name).await?;
    reply(StatusCode::OK, &document(&volume))
}

/// Update a cluster volume
#[utoipa::path(put, path = "/volumes/{name}", operation_id = "VolumeUpdate", tag = "Volume",
    params(("name" = String, Path, description = "Name"),
        ("version" = Option<i64>, Query, description = "Of the volume that is updated")),
    responses((status = 503, description = "There are no cluster volumes without a swarm", body = ErrorResponse)))]
async fn update(_project: Project, _name: Path<String>) -> Response {
    let text = "volume update only valid for cluster volumes, but swarm is unavailable";
    refused(StatusCode::SERVICE_UNAVAILABLE, text)
}

/// Remove a volume
#[utoipa::path(delete, path = "/volumes/{name}", operation_id = "VolumeDelete", tag = "Volume",
    params(("name" = String, Path, description = "Name"),
        ("force" = Option<bool>, Query, description = "No error if there is none")),
    responses((status = 204, description = "It is gone"),
        (status = 404, description = "No such volume", body = ErrorResponse),
        (status = 409, description = "A container uses it", body = ErrorResponse)))]
async fn remove(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    query: Query,
    Path(name): Path<String>,
) -> DockerResponse {
    let mut tx = gateway.store.project_tx(&scope).await?;
    let volume = match find(&mut tx, &name).await {
        Err(Error::NotFound(_)) if query.flag("force") => return Ok(empty(StatusCode::NO_CONTENT)),
        found => found?,
    };
    let removed = tx.remove_unused_volumes(std::slice::from_ref(&volume.id)).await?;
    if removed.is_empty() {
        // Somebody uses it, or somebody else removed it meanwhile.
        let volume = find(&mut tx, &name).await?;
        let users: Vec<&str> = volume.used_by.iter().map(|id| id.as_str()).collect();
        let text = format!("remove {name}: volume is in use - [{}]", users.join(", "));
        return Err(Error::Conflict(text).into());
    }
    destroyed(&gateway, &mut tx, &removed).await?;
    tx.commit().await?;
    announce(&gateway, &scope, &removed);
    Ok(empty(StatusCode::NO_CONTENT).into_response())
}

/// Tells the history of volumes that were removed; do it last in the transaction.
pub(crate) async fn destroyed(gateway: &Gateway, tx: &mut ProjectTx, removed: &[RemovedVolume]) -> Result<()> {
    for volume in removed {
        record(gateway, tx, &volume.name, "destroy").await?;
    }
    Ok(())
}

async fn record(gateway: &Gateway, tx: &mut ProjectTx, name: &VolumeName, action: &str) -> Result<()> {
    let attributes = BTreeMap::from([("driver".to_owned(), "local".to_owned())]);
    tx.append_event(EventKind::Volume, action, name.as_str(), &attributes, gateway.clock.now()).await?;
    Ok(())
}

/// Wakes who listens to the project, and the hosts that have data to delete.
pub(crate) fn announce(gateway: &Gateway, scope: &ProjectScope, removed: &[RemovedVolume]) {
    gateway.bus.publish(&Topic::Project(scope.project()));
    let hosts: BTreeSet<_> = removed.iter().filter_map(|volume| volume.host).collect();
    for host in hosts {
        gateway.bus.publish(&Topic::Host(host));
    }
}
