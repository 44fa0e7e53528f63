//! `POST /containers/{id}/rename`: another name, and nothing else happens to the container.

use axum::{
    extract::{Path, State},
    http::StatusCode,
};
use contract::wake::Topic;
use model::{ContainerName, Error};

use super::{create, recorded, start};
use crate::{
    Gateway,
    auth::Project,
    docker::{body::DockerResponse, error::empty, query::Query},
};

/// Renames a container.
#[utoipa::path(post, path = "/containers/{id}/rename", operation_id = "ContainerRename", tag = "Container",
    params(("id" = String, Path, description = "Id, name or unique id prefix"),
        ("name" = String, Query, description = "New name")),
    responses((status = 204, description = "Renamed"), (status = 400, description = "Not a name"),
        (status = 404, description = "No such container"), (status = 409, description = "The name is taken")))]
pub(crate) async fn rename(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    query: Query,
    Path(reference): Path<String>,
) -> DockerResponse {
    let Some(written) = query.text("name") else {
        return Err(Error::InvalidArgument("Neither old nor new names may be empty".into()).into());
    };
    let wrong = |e: Error| Error::InvalidArgument(format!("Error when allocating new name: {e}"));
    let name: ContainerName = written.parse().map_err(wrong)?;
    let mut tx = gateway.store.project_tx(&scope).await?;
    let mut container = tx.lock_container(&reference).await?;
    if container.name == name {
        return Err(Error::InvalidArgument("Renaming a container with the same name as its current name".into()).into());
    }
    if !tx.rename_container(&container.id, &name).await? {
        let conflict = create::name_conflict(&mut tx, &name).await?;
        return Err(Error::Conflict(format!("Error when allocating new name: {conflict}")).into());
    }
    let old_name = format!("/{}", std::mem::replace(&mut container.name, name));
    recorded::within(&gateway, &mut tx, &container, "rename", &[("oldName", &old_name)]).await?;
    tx.commit().await?;
    gateway.bus.publish(&Topic::Project(scope.project()));
    start::wake_host(&gateway, &container);
    Ok(empty(StatusCode::NO_CONTENT))
}
