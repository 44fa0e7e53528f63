//! Pause and unpause: the host freezes or thaws the processes at once; answered when its report of it
//! is stored, so that whoever asks next sees it.

use std::time::Duration;

use axum::{
    extract::{Path, State},
    http::StatusCode,
};
use contract::agent::{CONTAINERS, FreezeRequest};
use model::{Error, Phase, Result};
use store::{ContainerRecord, ProjectScope};

use super::{state, waiting::Watch};
use crate::{
    Gateway,
    agents::tenant_error,
    auth::Project,
    docker::{body::DockerResponse, error::empty},
};

/// How long a report may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Freezes a container's processes.
#[utoipa::path(post, path = "/containers/{id}/pause", operation_id = "ContainerPause", tag = "Container",
    params(("id" = String, Path, description = "Id, name or unique id prefix")),
    responses((status = 204, description = "Nothing in it runs"), (status = 404, description = "No such container"),
        (status = 409, description = "It does not run, or is paused already")))]
pub(crate) async fn pause(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    Path(reference): Path<String>,
) -> DockerResponse {
    set(&gateway, scope, &reference, true).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Lets a paused container run on.
#[utoipa::path(post, path = "/containers/{id}/unpause", operation_id = "ContainerUnpause", tag = "Container",
    params(("id" = String, Path, description = "Id, name or unique id prefix")),
    responses((status = 204, description = "It runs on"), (status = 404, description = "No such container"),
        (status = 500, description = "It is not paused")))]
pub(crate) async fn unpause(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    Path(reference): Path<String>,
) -> DockerResponse {
    set(&gateway, scope, &reference, false).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Freezes or thaws it.
pub(super) async fn set(gateway: &Gateway, scope: ProjectScope, reference: &str, frozen: bool) -> Result<()> {
    let container = gateway.store.project_tx(&scope).await?.find_container(reference).await?;
    check(&container, frozen)?;
    let mut watch = Watch::new(gateway, scope, &container.id);
    let path = format!("{CONTAINERS}/{}/freeze", container.id);
    let asked = FreezeRequest { frozen };
    gateway.agents.of(&container)?.post::<_, ()>(&path, &asked).await.map_err(tenant_error)?;
    let of = container.observed.progress;
    watch
        .until(Some(PATIENCE), |progress, host_is_away| {
            // Ended or removed since: what was asked for has happened all the same.
            let told = progress.is_none_or(|p| p.observed.paused == frozen || p.observed.progress > of);
            (told || host_is_away).then_some(())
        })
        .await
}

/// What needs no host to be refused, in dockerd's words.
fn check(container: &ContainerRecord, frozen: bool) -> Result<()> {
    let id = &container.id;
    match (state::of(container), frozen) {
        (state::State::Restarting, true) => Err(state::restarting(container)),
        (_, true) if container.observed.progress.phase != Phase::Running => {
            Err(Error::Conflict(format!("container {id} is not running")))
        }
        (state::State::Paused, true) => Err(Error::Conflict(format!("Container {id} is already paused"))),
        (_, true) | (state::State::Paused, false) => Ok(()),
        (_, false) => Err(Error::Failed(format!("Container {id} is not paused"))),
    }
}
