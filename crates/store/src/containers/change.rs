//! What the gateway wants of containers: inserted, started, stopped, renamed, removed. Each change
//! goes to a row the same transaction has locked, so that it is decided on what is true.

use model::{ContainerId, ContainerName, ContainerSpec, Digest, Error, Resources, RestartPolicy, Result};
use sqlx::types::Json;
use time::OffsetDateTime;

use super::unsigned;
use crate::{ProjectTx, store_error};

/// A container about to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewContainer<'a> {
    /// Drawn by the caller.
    pub id: &'a ContainerId,
    /// Free in the project, or the insert is refused.
    pub name: &'a ContainerName,
    /// Image the spec was merged with.
    pub image_id: &'a Digest,
    /// Everything else.
    pub spec: &'a ContainerSpec,
    /// Now.
    pub created_at: OffsetDateTime,
}

/// What `docker update` changes.
#[derive(Clone, Copy, Debug)]
pub struct ChangedLimits<'a> {
    /// All limits, the unchanged ones too.
    pub resources: &'a Resources,
    /// The restart policy.
    pub restart: RestartPolicy,
    /// The client's `HostConfig` with the change in it.
    pub host_config: &'a serde_json::Value,
}

impl ProjectTx {
    /// Writes a new container. `false`: the name is taken (nothing was written, and the transaction goes on).
    /// Its image is held until the end of the transaction.
    ///
    /// # Errors
    /// `NotFound` in dockerd's words if the image has just been removed.
    pub async fn insert_container(&mut self, new: NewContainer<'_>) -> Result<bool> {
        let written = sqlx::query!(
            "INSERT INTO containers (id, project_id, name, image_id, spec, created_at) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (project_id, name) WHERE desired_state <> 'removed' DO NOTHING",
            new.id.as_str(),
            self.project.0,
            new.name.as_str(),
            new.image_id.as_str(),
            Json(new.spec) as _,
            new.created_at,
        )
        .execute(self.connection())
        .await
        .map_err(crate::on_constraint("containers_image", || crate::images::no_such_image(&new.spec.image)))?;
        Ok(written.rows_affected() == 1)
    }

    /// Who has this name now.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn container_named(&mut self, name: &ContainerName) -> Result<Option<ContainerId>> {
        sqlx::query_scalar!(
            "SELECT id FROM containers WHERE project_id = $1 AND name = $2 AND desired_state <> 'removed'",
            self.project.0,
            name.as_str(),
        )
        .fetch_optional(self.connection())
        .await
        .map_err(store_error)?
        .map(|id| id.parse().map_err(Error::internal))
        .transpose()
    }

    /// Undoes a create nobody could place: the row and its address. `false`: it was placed after all.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn discard_unplaced(&mut self, id: &ContainerId) -> Result<bool> {
        let deleted = sqlx::query!(
            "DELETE FROM containers WHERE project_id = $1 AND id = $2 AND host_id IS NULL",
            self.project.0,
            id.as_str(),
        )
        .execute(self.connection())
        .await
        .map_err(store_error)?;
        Ok(deleted.rows_affected() == 1)
    }

    /// Wants one more run. Returns its number.
    ///
    /// # Errors
    /// Postgres does not answer, or the container was removed meanwhile.
    pub async fn want_running(&mut self, id: &ContainerId) -> Result<u32> {
        let run = sqlx::query_scalar!(
            "UPDATE containers SET desired_state = 'running', run = run + 1
             WHERE project_id = $1 AND id = $2 AND desired_state <> 'removed' RETURNING run",
            self.project.0,
            id.as_str(),
        )
        .fetch_one(self.connection())
        .await
        .map_err(store_error)?;
        unsigned(run)
    }

    /// Wants the current run ended.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn want_stopped(&mut self, id: &ContainerId, signal: &str, timeout_s: i64) -> Result<()> {
        sqlx::query!(
            "UPDATE containers SET desired_state = 'stopped', stop_signal = $3, stop_timeout_s = $4
             WHERE project_id = $1 AND id = $2 AND desired_state <> 'removed'",
            self.project.0,
            id.as_str(),
            signal,
            timeout_s,
        )
        .execute(self.connection())
        .await
        .map_err(store_error)?;
        Ok(())
    }

    /// Wants it gone, with everything it owns. One that is on no host is gone at once: then `true`.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn want_removed(&mut self, id: &ContainerId, with_volumes: bool) -> Result<bool> {
        let gone = sqlx::query_scalar!(
            r#"UPDATE containers SET desired_state = 'removed', drops_volumes = drops_volumes OR $3,
                   removed_at = CASE WHEN host_id IS NULL THEN now() ELSE removed_at END
             WHERE project_id = $1 AND id = $2 RETURNING host_id IS NULL AS "gone!""#,
            self.project.0,
            id.as_str(),
            with_volumes,
        )
        .fetch_one(self.connection())
        .await
        .map_err(store_error)?;
        if gone {
            sqlx::query!(
                "DELETE FROM endpoints WHERE project_id = $1 AND container_id = $2",
                self.project.0,
                id.as_str()
            )
            .execute(self.connection())
            .await
            .map_err(store_error)?;
        }
        Ok(gone)
    }

    /// Changes what may change of a spec after create: limits, restart policy, and the client's document
    /// that inspect shows. Its host is told. Do it first in a transaction: it orders plans.
    ///
    /// # Errors
    /// `NoCapacity` if its host has not so much left.
    pub async fn change_limits(&mut self, id: &ContainerId, limits: &ChangedLimits<'_>) -> Result<()> {
        sqlx::query!(
            "UPDATE containers SET spec = spec
                 || jsonb_build_object('resources', $3::jsonb, 'restart', $4::jsonb)
                 || jsonb_build_object('shown', coalesce(spec->'shown', '{}')
                        || jsonb_build_object('HostConfig', $5::jsonb))
             WHERE project_id = $1 AND id = $2",
            self.project.0,
            id.as_str(),
            Json(limits.resources) as _,
            Json(limits.restart) as _,
            limits.host_config,
        )
        .execute(self.connection())
        .await
        .map_err(crate::on_constraint("hosts_capacity", || {
            Error::NoCapacity("the host of this container has not that much left".into())
        }))?;
        Ok(())
    }

    /// Takes its link of that alias away; its host is told.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn remove_link(&mut self, id: &ContainerId, alias: &str) -> Result<()> {
        sqlx::query!(
            "UPDATE containers SET spec = spec || jsonb_build_object('links',
                 (SELECT coalesce(jsonb_agg(l), '[]') FROM jsonb_array_elements(spec->'links') AS l WHERE l->>'alias' <> $3))
             WHERE project_id = $1 AND id = $2",
            self.project.0,
            id.as_str(),
            alias,
        )
        .execute(self.connection())
        .await
        .map_err(store_error)?;
        Ok(())
    }

    /// Gives it another name; its host is told, nothing else happens to it. `false`: the name is taken.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn rename_container(&mut self, id: &ContainerId, name: &ContainerName) -> Result<bool> {
        // The index decides; looking first keeps the transaction alive in the common case, and a
        // race that slips through is an ordinary conflict.
        if self.container_named(name).await?.is_some() {
            return Ok(false);
        }
        let result = sqlx::query!(
            "UPDATE containers SET name = $3 WHERE project_id = $1 AND id = $2",
            self.project.0,
            id.as_str(),
            name.as_str(),
        )
        .execute(self.connection())
        .await;
        match result {
            Ok(_) => Ok(true),
            Err(error) => Err(crate::on_constraint("containers_project_name_key", || {
                Error::Conflict(format!(
                    "Error when allocating new name: Conflict. The container name \"/{name}\" is already in use."
                ))
            })(error)),
        }
    }
}
