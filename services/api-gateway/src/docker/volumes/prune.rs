//! `POST /volumes/prune`: volumes nothing uses. From 1.42 on only those nobody named, unless asked for all.

use axum::{extract::State, http::StatusCode};
use model::{EventKind, VolumeId};
use serde_json::json;
use store::VolumeRecord;

use super::{announce, destroyed, sizes};
use crate::{
    Gateway,
    auth::Project,
    docker::{
        body::{DockerResponse, json as reply},
        error::ErrorResponse,
        filters::Filters,
        query::Query,
        version::RequestedVersion,
    },
};

/// Remove volumes nothing uses
#[utoipa::path(post, path = "/volumes/prune", operation_id = "VolumePrune", tag = "Volume",
    params(("filters" = Option<String>, Query, description = "JSON: label, label!, all (named ones too; always before 1.42)")),
    responses((status = 200, description = "What was removed", body = Object),
        (status = 400, description = "A filter is wrong", body = ErrorResponse)))]
pub(crate) async fn prune(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    version: RequestedVersion,
    query: Query,
) -> DockerResponse {
    let filters = Filters::parse(query.text("filters"), &["label", "label!", "all"])?;
    let all = filters.boolean("all")?.unwrap_or(false) || !version.at_least(42);
    let mut tx = gateway.store.project_tx(&scope).await?;
    let no_labels = std::collections::BTreeMap::new();
    let candidates: Vec<VolumeRecord> = tx
        .volumes(None)
        .await?
        .into_iter()
        .filter(|v| v.used_by.is_empty() && (all || v.anonymous))
        .filter(|v| filters.labels(v.labels.as_ref().unwrap_or(&no_labels)))
        .collect();
    drop(tx);
    // Measured while they are there, without holding anything meanwhile.
    let sizes = sizes(&gateway, &scope, &candidates).await;
    let ids: Vec<VolumeId> = candidates.into_iter().map(|volume| volume.id).collect();
    let mut tx = gateway.store.project_tx(&scope).await?;
    let removed = tx.remove_unused_volumes(&ids).await?;
    let reclaimed: u64 = removed.iter().filter_map(|volume| sizes.get(&volume.id)).sum();
    destroyed(&gateway, &mut tx, &removed).await?;
    let attributes = [("reclaimed".to_owned(), reclaimed.to_string())].into();
    tx.append_event(EventKind::Volume, "prune", "", &attributes, gateway.clock.now()).await?;
    tx.commit().await?;
    announce(&gateway, &scope, &removed);
    let names: Vec<&str> = removed.iter().map(|volume| volume.name.as_str()).collect();
    let deleted = if names.is_empty() { serde_json::Value::Null } else { json!(names) };
    reply(StatusCode::OK, &json!({"VolumesDeleted": deleted, "SpaceReclaimed": reclaimed}))
}
