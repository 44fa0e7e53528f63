//! `DELETE /containers/{id}`, and prune. A removal is a wish as durable as any: the name is free at
//! once, address and ports when the host has cleared up.

use std::time::Duration;

use axum::{
    extract::{Path, State},
    http::StatusCode,
};
use contract::wake::Topic;
use model::{Error, Result};
use serde_json::json;
use store::{ContainerRecord, ProjectScope};

use super::{links, recorded, sizes::Sizes, start, state, volumes, waiting::Watch};
use crate::{
    Gateway,
    auth::Project,
    docker::{
        body::{DockerResponse, json},
        error::empty,
        filters::Filters,
        instant,
        query::Query,
        volumes::destroyed,
    },
};

/// How long a removal is waited for; it goes on by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// Removes a container.
#[utoipa::path(delete, path = "/containers/{id}", operation_id = "ContainerDelete", tag = "Container",
    params(("id" = String, Path, description = "Id, name or unique id prefix"),
        ("force" = Option<bool>, Query, description = "Kill it first if it runs"),
        ("v" = Option<bool>, Query, description = "Remove anonymous volumes too"),
        ("link" = Option<bool>, Query, description = "Remove a link: `id` is the container that has it, a slash, and its alias")),
    responses((status = 204, description = "It is gone"), (status = 404, description = "No such container"),
        (status = 409, description = "It runs")))]
pub(crate) async fn remove(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    query: Query,
    Path(reference): Path<String>,
) -> DockerResponse {
    let mut tx = gateway.store.project_tx(&scope).await?;
    if query.flag("link") {
        let container = links::remove(&mut tx, &reference).await?;
        tx.commit().await?;
        start::wake_host(&gateway, &container);
        return Ok(empty(StatusCode::NO_CONTENT));
    }
    let container = tx.lock_container(&reference).await?;
    let running = start::is_started(&container);
    if running && !query.flag("force") {
        let why = match state::of(&container) {
            state::State::Paused => "paused and must be unpaused first",
            state::State::Restarting => "restarting: stop the container before removing or force remove",
            state::State::Created | state::State::Running | state::State::Exited | state::State::Removing => {
                "running: stop the container before removing or force remove"
            }
        };
        let text = format!("cannot remove container \"/{}\": container is {why}", container.name);
        return Err(Error::Conflict(text).into());
    }
    let watch = Watch::new(&gateway, scope, &container.id);
    let wanted = query.flag("v") || container.spec.auto_remove;
    let volumes = if wanted { volumes::anonymous(&container) } else { Vec::new() };
    tx.lock_volumes(&volumes).await?;
    let gone = tx.want_removed(&container.id, wanted).await?;
    // On a host it has them until that has cleared up, which is told first.
    let removed = if gone { tx.remove_unused_volumes(&volumes).await? } else { Vec::new() };
    if running {
        recorded::within(&gateway, &mut tx, &container, "kill", &[("signal", "9")]).await?;
    }
    if gone {
        recorded::within(&gateway, &mut tx, &container, "destroy", &[]).await?;
    }
    destroyed(&gateway, &mut tx, &removed).await?;
    tx.commit().await?;
    announce(&gateway, &scope, &container);
    if !gone {
        cleared(watch).await?;
    }
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Removes a container that does not run, without waiting until its host has cleared up.
pub(super) async fn discard(gateway: &Gateway, scope: ProjectScope, reference: &str) -> Result<()> {
    let mut tx = gateway.store.project_tx(&scope).await?;
    let container = tx.lock_container(reference).await?;
    if start::is_started(&container) {
        return Ok(());
    }
    let volumes = if container.spec.auto_remove { volumes::anonymous(&container) } else { Vec::new() };
    tx.lock_volumes(&volumes).await?;
    let gone = tx.want_removed(&container.id, container.spec.auto_remove).await?;
    let removed = if gone { tx.remove_unused_volumes(&volumes).await? } else { Vec::new() };
    if gone {
        recorded::within(gateway, &mut tx, &container, "destroy", &[]).await?;
    }
    destroyed(gateway, &mut tx, &removed).await?;
    tx.commit().await?;
    announce(gateway, &scope, &container);
    Ok(())
}

fn announce(gateway: &Gateway, scope: &ProjectScope, container: &ContainerRecord) {
    gateway.bus.publish(&Topic::Project(scope.project()));
    gateway.bus.publish(&Topic::Container(container.id.clone()));
    start::wake_host(gateway, container);
}

/// Waits until its host has cleared up. A host that is away will do it when it is back: for the
/// user the container is gone already.
async fn cleared(mut watch: Watch) -> Result<()> {
    let waited = watch
        .until(Some(PATIENCE), |progress, host_is_away| {
            (progress.is_none_or(|p| p.removed) || host_is_away).then_some(())
        })
        .await;
    match waited {
        Err(Error::Unavailable(_)) => Ok(()),
        other => other,
    }
}

/// Removes every container that does not run.
#[utoipa::path(post, path = "/containers/prune", operation_id = "ContainerPrune", tag = "Container",
    params(("filters" = Option<String>, Query, description = "JSON: until, label, label!")),
    responses((status = 200, description = "What was removed", body = Object)))]
pub(crate) async fn prune(State(gateway): State<Gateway>, Project(scope): Project, query: Query) -> DockerResponse {
    let filters = Filters::parse(query.get("filters"), &["until", "label", "label!"])?;
    let now = gateway.clock.now();
    let until = filters.values("until").first().map(|text| instant::parse("until", text, now)).transpose()?;
    let old_enough = |c: &ContainerRecord| until.is_none_or(|until| c.created_at < until);
    let mut candidates: Vec<ContainerRecord> = gateway
        .store
        .project_tx(&scope)
        .await?
        .list_containers(true)
        .await?
        .into_iter()
        .filter(|c| old_enough(c) && filters.labels(&c.spec.labels) && !start::is_started(c))
        .collect();
    // Afterwards there is nothing left to measure.
    let sizes = Sizes::ask(&gateway, &candidates.iter().collect::<Vec<_>>()).await;
    let mut tx = gateway.store.project_tx(&scope).await?;
    // All containers by id, then hosts, then the project: the order in which everybody locks.
    candidates.sort_by(|a, b| a.id.cmp(&b.id));
    let mut removed = Vec::new();
    for candidate in candidates {
        // It may have been started or removed since it was listed.
        match tx.lock_container(candidate.id.as_str()).await {
            Ok(container) if !start::is_started(&container) => removed.push(container),
            Ok(_) | Err(Error::NotFound(_)) => {}
            Err(other) => return Err(other.into()),
        }
    }
    let mut gone = Vec::new();
    for container in &removed {
        if tx.want_removed(&container.id, false).await? {
            gone.push(container);
        }
    }
    for container in gone {
        recorded::within(&gateway, &mut tx, container, "destroy", &[]).await?;
    }
    let at = gateway.clock.now();
    let reclaimed = sizes.rw_bytes(removed.iter().map(|c| &c.id));
    let attributes = [("reclaimed".to_owned(), reclaimed.to_string())].into();
    tx.append_event(model::EventKind::Container, "prune", "", &attributes, at).await?;
    tx.commit().await?;
    for container in &removed {
        announce(&gateway, &scope, container);
    }
    gateway.bus.publish(&Topic::Project(scope.project()));
    let ids: Vec<&str> = removed.iter().map(|c| c.id.as_str()).collect();
    let deleted = if ids.is_empty() { serde_json::Value::Null } else { json!(ids) };
    json(StatusCode::OK, &json!({"ContainersDeleted": deleted, "SpaceReclaimed": reclaimed}))
}
