//! `/system/df`: what the project's images, containers and volumes weigh. A container's own layer is on a
//! host, which is asked for its size; one that does not answer in time leaves it out.

use std::collections::{BTreeMap, HashSet};

use axum::{extract::State, http::StatusCode};
use model::{Error, Result};
use serde_json::{Value, json};
use store::{ContainerRecord, ProjectScope, VolumeRecord};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    body::{DockerResponse, json as reply},
    containers::{Line, Sizes},
    error::ErrorResponse,
    images::{Described, uses},
    query::Query,
    version::RequestedVersion,
    volumes::{document, sizes},
};
use crate::{Gateway, auth::Project};

pub(crate) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(disk_usage))
}

/// The kinds of things a client may ask about.
const KINDS: [&str; 4] = ["container", "image", "volume", "build-cache"];

/// Show what the project's images and volumes weigh
#[utoipa::path(get, path = "/system/df", operation_id = "SystemDataUsage", tag = "System",
    params(("type" = Option<Vec<String>>, Query, description = "container, image, volume, build-cache; all of them"),
        ("verbose" = Option<bool>, Query, description = "From 1.52 on: list the things too")),
    responses((status = 200, description = "Sizes, as Docker describes them", body = Object),
        (status = 400, description = "An unknown type", body = ErrorResponse)))]
async fn disk_usage(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    version: RequestedVersion,
    query: Query,
) -> DockerResponse {
    let asked = kinds(&query)?;
    let mut tx = gateway.store.project_tx(&scope).await?;
    let (images, containers) = (tx.list_images().await?, tx.list_containers(true).await?);
    let counts = uses(&mut tx).await?;
    let volumes = tx.volumes(None).await?;
    drop(tx);
    let volumes = if asked.contains("volume") { volume_usage(&gateway, &scope, &volumes).await } else { json!({}) };
    let now = gateway.clock.now();
    let layers: BTreeMap<_, _> =
        images.iter().flat_map(|i| &i.layers).map(|l| (l.digest.clone(), l.size_bytes)).collect();
    let in_use: HashSet<_> = images
        .iter()
        .filter(|image| counts.contains_key(image.id.as_str()))
        .flat_map(|image| &image.layers)
        .map(|layer| layer.digest.clone())
        .collect();
    let reclaimable: u64 = layers.iter().filter(|(digest, _)| !in_use.contains(*digest)).map(|(_, size)| size).sum();
    let total: u64 = layers.values().sum();
    let is_running = |c: &ContainerRecord| c.observed.progress.phase == model::Phase::Running;
    let running = containers.iter().filter(|c| is_running(c)).count();
    let asked_for: Vec<&ContainerRecord> = containers.iter().filter(|_| asked.contains("container")).collect();
    let sizes = Sizes::ask(&gateway, &asked_for).await;
    let (own_total, own_reclaimable) = (
        sizes.rw_bytes(containers.iter().map(|c| &c.id)),
        sizes.rw_bytes(containers.iter().filter(|c| !is_running(c)).map(|c| &c.id)),
    );
    let line = |c| json!(Line::of(c, version, now).with_size(sizes.of(&c.id)));
    let containers: Vec<Value> = containers.iter().map(line).collect();
    let count = |id: &str| counts.get(id).copied().unwrap_or(0);
    let active = images.iter().filter(|image| count(image.id.as_str()) > 0).count();
    let images = images.into_iter().map(|image| {
        let containers = count(image.id.as_str());
        let mut summary = json!(Described::new(image)?.summary(version, containers));
        summary["Containers"] = json!(containers);
        Ok(summary)
    });
    let images: Vec<Value> = images.collect::<Result<_>>()?;
    let usage =
        |active: usize, items: &[Value]| json!({ "ActiveCount": active, "Items": items, "TotalCount": items.len() });
    let (mut image_usage, mut build_usage) = (usage(active, &images), usage(0, &[]));
    (image_usage["TotalSize"], image_usage["Reclaimable"]) = (json!(total), json!(reclaimable));
    (build_usage["TotalSize"], build_usage["Reclaimable"]) = (json!(0), json!(0));
    let mut container_usage = usage(running, &containers);
    for (key, bytes) in [("TotalSize", own_total), ("Reclaimable", own_reclaimable)] {
        // As Go leaves out what is zero.
        if bytes > 0 {
            container_usage[key] = json!(bytes);
        }
    }
    let parts = [
        ("image", "Images", "ImageUsage", image_usage),
        ("container", "Containers", "ContainerUsage", container_usage),
        ("volume", "Volumes", "VolumeUsage", volumes),
        ("build-cache", "BuildCache", "BuildCacheUsage", build_usage),
    ];
    let parts = parts.into_iter().filter(|(kind, ..)| asked.contains(*kind));
    reply(StatusCode::OK, &shaped(parts, total, version, query.flag("verbose")))
}

/// A volume whose host does not answer has the size -1, as one that dockerd cannot measure.
async fn volume_usage(gateway: &Gateway, scope: &ProjectScope, volumes: &[VolumeRecord]) -> Value {
    let sizes = sizes(gateway, scope, volumes).await;
    let size = |volume: &VolumeRecord| sizes.get(&volume.id).copied();
    let items: Vec<Value> = volumes
        .iter()
        .map(|volume| {
            let mut item = document(volume);
            let measured = size(volume).and_then(|n| i64::try_from(n).ok()).unwrap_or(-1);
            item["UsageData"] = json!({"RefCount": volume.used_by.len(), "Size": measured});
            item
        })
        .collect();
    let total: u64 = volumes.iter().filter_map(size).sum();
    let reclaimable: u64 = volumes.iter().filter(|volume| volume.used_by.is_empty()).filter_map(size).sum();
    json!({
        "ActiveCount": volumes.iter().filter(|volume| !volume.used_by.is_empty()).count(),
        "Items": items,
        "TotalCount": volumes.len(),
        "TotalSize": total,
        "Reclaimable": reclaimable,
    })
}

fn kinds(query: &Query) -> Result<HashSet<&str>> {
    let asked: HashSet<&str> = query.all("type").collect();
    match asked.iter().find(|kind| !KINDS.contains(kind)) {
        Some(unknown) => Err(Error::InvalidArgument(format!("unknown object type: {unknown}"))),
        None if asked.is_empty() => Ok(KINDS.into()),
        None => Ok(asked),
    }
}

/// Lists before 1.52; from then on sums beside them, and with `verbose` sums with the lists inside.
fn shaped(
    parts: impl Iterator<Item = (&'static str, &'static str, &'static str, Value)>,
    total: u64,
    version: RequestedVersion,
    verbose: bool,
) -> Value {
    let (lists, sums) = (!verbose || !version.at_least(52), version.at_least(52));
    let mut shown = serde_json::Map::new();
    for (kind, list_name, sum_name, mut usage) in parts {
        if lists {
            if kind == "image" {
                shown.insert("LayersSize".into(), json!(total));
            }
            shown.insert(list_name.into(), usage["Items"].clone());
        }
        if sums {
            if let Some(usage) = usage.as_object_mut().filter(|_| !verbose) {
                usage.remove("Items");
            }
            shown.insert(sum_name.into(), usage);
        }
    }
    Value::Object(shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::version::ApiVersion;

    fn keys(minor: u16, verbose: bool) -> Vec<String> {
        let part = ("image", "Images", "ImageUsage", json!({ "Items": [1], "TotalCount": 1 }));
        let shown = shaped([part].into_iter(), 5, RequestedVersion(ApiVersion::one(minor)), verbose);
        shown.as_object().expect("an object").keys().cloned().collect()
    }

    #[test]
    fn lists_before_1_52_and_sums_after() {
        assert_eq!(keys(51, true), ["LayersSize", "Images"]);
        assert_eq!(keys(52, false), ["LayersSize", "Images", "ImageUsage"]);
        assert_eq!(keys(52, true), ["ImageUsage"]);
    }

    #[test]
    fn an_unknown_type_is_refused_and_types_may_repeat() {
        assert!(kinds(&Query::parse("type=image&type=foo")).is_err());
        assert_eq!(kinds(&Query::parse("type=image&type=volume")).expect("known").len(), 2);
        assert_eq!(kinds(&Query::parse("")).expect("all").len(), 4);
    }
}
