//! `POST /containers/{id}/update`: other limits or another restart policy for a container, while it runs
//! or later. What is wanted is written first, so that its host has it at the latest with the next
//! start; then the host is asked at once, and if the kernel says no, the change is taken back.

use axum::{
    extract::{Path, State},
    http::StatusCode,
};
use contract::{
    agent::{CONTAINERS, LimitsReply, LimitsRequest},
    wake::Topic,
};
use model::{Desired, Error, Phase, Resources, Result};
use serde_json::{Value, json};
use store::{ChangedLimits, ContainerRecord, ProjectScope};

use super::{
    body::typed,
    host_config::{self, HostConfig},
    recorded, start, state,
    translate::{self, Updated},
};
use crate::{
    Gateway,
    agents::tenant_error,
    auth::Project,
    docker::body::{DockerResponse, JsonBody, json},
};

/// Changes limits and restart policy.
#[utoipa::path(post, path = "/containers/{id}/update", operation_id = "ContainerUpdate", tag = "Container",
    params(("id" = String, Path, description = "Id, name or unique id prefix")),
    request_body = HostConfig,
    responses((status = 200, description = "Changed; warnings", body = Object), (status = 400, description = "A value is wrong"),
        (status = 403, description = "A field asks beyond the platform's policy"),
        (status = 404, description = "No such container"), (status = 409, description = "It does not fit what is set already"),
        (status = 500, description = "The kernel does not take it"), (status = 503, description = "Its host has not that much")))]
pub(crate) async fn update(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    Path(reference): Path<String>,
    JsonBody(body): JsonBody<Value>,
) -> DockerResponse {
    let asked: HostConfig = typed(body.unwrap_or_else(|| json!({})))?;
    // On its own, so that a client that leaves does not leave half of it.
    let work = chassis::request::spawn(async move { change(&gateway, scope, &reference, &asked).await });
    let warnings = work.await.map_err(Error::internal)??;
    json(StatusCode::OK, &json!({"Warnings": if warnings.is_empty() { Value::Null } else { json!(warnings) }}))
}

async fn change(gateway: &Gateway, scope: ProjectScope, reference: &str, asked: &HostConfig) -> Result<Vec<String>> {
    let mut tx = gateway.store.project_tx(&scope).await?;
    let container = tx.lock_container(reference).await?;
    let cannot = |error: Error| {
        let text = format!("Cannot update container {}: {error}", container.id);
        if let Error::Conflict(_) = error {
            Error::Conflict(text)
        } else if let Error::Failed(_) = error {
            Error::Failed(text)
        } else {
            error
        }
    };
    let mut updated = translate::update(&known(&container), asked).map_err(cannot)?;
    write(&mut tx, &container, &updated).await?;
    let over = container.observed.progress.phase == Phase::Exited;
    let resting = over && state::of(&container) != state::State::Restarting;
    if resting
        && updated.restart != container.spec.restart
        && let Desired::Running { .. } = container.desired
    {
        // A run that is over stays over: the new policy is for the next one.
        tx.want_stopped(&container.id, "SIGTERM", 0).await?;
    }
    recorded::within(gateway, &mut tx, &container, "update", &[]).await?;
    tx.commit().await?;
    gateway.bus.publish(&Topic::Project(scope.project()));
    start::wake_host(gateway, &container);
    if container.observed.progress.phase != Phase::Running || updated.resources == container.spec.resources {
        return Ok(updated.warnings);
    }
    match ask(gateway, &container, &updated.resources).await {
        Ok(warnings) => updated.warnings.extend(warnings),
        Err(Error::Unavailable(why)) => updated.warnings.push(format!("{why}; it gets its new limits with its plan")),
        // It has ended or gone meanwhile.
        Err(Error::NotFound(_)) => {}
        Err(error) => {
            take_back(gateway, scope, &container, &updated).await?;
            return Err(cannot(error));
        }
    }
    Ok(updated.warnings)
}

/// What the client asked for when it was created, and since.
fn known(container: &ContainerRecord) -> HostConfig {
    let shown = container.spec.shown.get("HostConfig").cloned();
    shown.and_then(|shown| serde_json::from_value(shown).ok()).unwrap_or_default()
}

async fn write(tx: &mut store::ProjectTx, container: &ContainerRecord, updated: &Updated) -> Result<()> {
    let shown = serde_json::to_value(&updated.host_config).map_err(Error::internal)?;
    let host_config = &host_config::without_defaults(shown);
    let changed = ChangedLimits { resources: &updated.resources, restart: updated.restart, host_config };
    tx.change_limits(&container.id, &changed).await
}

async fn ask(gateway: &Gateway, container: &ContainerRecord, resources: &Resources) -> Result<Vec<String>> {
    let path = format!("{CONTAINERS}/{}/limits", container.id);
    let asked = LimitsRequest { resources: resources.clone() };
    let reply: LimitsReply = gateway.agents.of(container)?.post(&path, &asked).await.map_err(tenant_error)?;
    Ok(reply.warnings)
}

/// Writes what was there before, unless somebody has changed it again.
async fn take_back(gateway: &Gateway, scope: ProjectScope, before: &ContainerRecord, refused: &Updated) -> Result<()> {
    let mut tx = gateway.store.project_tx(&scope).await?;
    let now = match tx.lock_container(before.id.as_str()).await {
        Err(Error::NotFound(_)) => return Ok(()),
        other => other?,
    };
    if now.spec.resources != refused.resources {
        return Ok(());
    }
    let (host_config, nothing) = (known(before), Vec::new());
    let resources = before.spec.resources.clone();
    let former = Updated { host_config, resources, restart: before.spec.restart, warnings: nothing };
    write(&mut tx, &now, &former).await?;
    tx.commit().await?;
    start::wake_host(gateway, &now);
    Ok(())
}
