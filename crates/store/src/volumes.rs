//! Volumes of a project, and which containers use them. "In use" is decided by a foreign key: a
//! volume cannot be removed while a container uses it, whatever the code above believes.
//!
//! Lock order: containers, volumes (by id), hosts, projects. Whoever removes a container together
//! with its volumes therefore locks the volumes first ([`ProjectTx::lock_volumes`]).

use std::collections::BTreeMap;

use model::{ContainerId, Error, HostId, Result, VolumeBacking, VolumeId, VolumeName};
use sqlx::{PgConnection, types::Json};
use time::OffsetDateTime;

use crate::{ProjectTx, containers::HostAddress, on_constraint, store_error, stored::parsed};

/// A volume with everything needed to show it or to reach its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRecord {
    /// Its id: names its data on the host.
    pub id: VolumeId,
    /// Its name: unique in the project.
    pub name: VolumeName,
    /// As given; `None` if none were.
    pub labels: Option<BTreeMap<String, String>>,
    /// Driver options as given; `None` if none were.
    pub options: Option<BTreeMap<String, String>>,
    /// What the options mean.
    pub backing: VolumeBacking,
    /// Nobody named it.
    pub anonymous: bool,
    /// When it was created.
    pub created_at: OffsetDateTime,
    /// Where its data is, once a container that uses it was placed.
    pub host: Option<HostAddress>,
    /// The containers that use it, running or not.
    pub used_by: Vec<ContainerId>,
}

/// A volume about to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewVolume<'a> {
    /// Drawn by the caller.
    pub id: &'a VolumeId,
    /// Free in the project, or nothing is written.
    pub name: &'a VolumeName,
    /// As given.
    pub labels: Option<&'a BTreeMap<String, String>>,
    /// As given.
    pub options: Option<&'a BTreeMap<String, String>>,
    /// What the options mean.
    pub backing: &'a VolumeBacking,
    /// Nobody named it.
    pub anonymous: bool,
    /// Now.
    pub created_at: OffsetDateTime,
}

/// A volume that was removed just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedVolume {
    /// Its id.
    pub id: VolumeId,
    /// What it was called.
    pub name: VolumeName,
    /// The host that still has to delete its data.
    pub host: Option<HostId>,
}

impl ProjectTx {
    /// Writes a new volume. `false`: the name is taken (nothing was written, and the transaction goes on).
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn insert_volume(&mut self, new: NewVolume<'_>) -> Result<bool> {
        let written = sqlx::query!(
            "INSERT INTO volumes (id, project_id, name, labels, options, backing, anonymous, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (project_id, name) WHERE NOT removing DO NOTHING",
            new.id.as_str(),
            self.project.0,
            new.name.as_str(),
            new.labels.map(Json) as _,
            new.options.map(Json) as _,
            Json(new.backing) as _,
            new.anonymous,
            new.created_at,
        )
        .execute(self.connection())
        .await
        .map_err(store_error)?;
        Ok(written.rows_affected() == 1)
    }

    /// Every volume of the project, or the one of a name, by name.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn volumes(&mut self, name: Option<&str>) -> Result<Vec<VolumeRecord>> {
        let rows = sqlx::query!(
            r#"SELECT v.id, v.name, v.labels AS "labels: Json<BTreeMap<String, String>>",
                   v.options AS "options: Json<BTreeMap<String, String>>", v.backing AS "backing!: Json<VolumeBacking>",
                   v.anonymous, v.created_at, h.id AS "host_id?", host(h.address) AS "address?",
                   h.agent_port AS "agent_port?", h.last_seen_at AS "last_seen_at?",
                   ARRAY(SELECT u.container_id FROM container_volumes u WHERE u.volume_id = v.id
                         ORDER BY u.container_id) AS "used_by!: Vec<String>"
               FROM volumes v LEFT JOIN hosts h ON h.id = v.host_id
               WHERE v.project_id = $1 AND NOT v.removing AND ($2::text IS NULL OR v.name = $2) ORDER BY v.name"#,
            self.project.0,
            name,
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        rows.into_iter()
            .map(|row| {
                let host = match (row.host_id, row.address, row.agent_port) {
                    (Some(id), Some(address), Some(port)) => Some(HostAddress {
                        id: HostId(id),
                        address: parsed(&address)?,
                        agent_port: u16::try_from(port).map_err(Error::internal)?,
                        last_seen_at: row.last_seen_at,
                    }),
                    _ => None,
                };
                Ok(VolumeRecord {
                    id: parsed(&row.id)?,
                    name: parsed(&row.name)?,
                    labels: row.labels.map(|labels| labels.0),
                    options: row.options.map(|options| options.0),
                    backing: row.backing.0,
                    anonymous: row.anonymous,
                    created_at: row.created_at,
                    host,
                    used_by: row.used_by.iter().map(|id| parsed(id)).collect::<Result<_>>()?,
                })
            })
            .collect()
    }

    /// Has a container use volumes, from now until it is wanted gone.
    ///
    /// # Errors
    /// `Conflict` if one of them was removed meanwhile.
    pub async fn use_volumes(&mut self, container: &ContainerId, volumes: &[VolumeId]) -> Result<()> {
        let ids: Vec<String> = volumes.iter().map(|id| id.as_str().to_owned()).collect();
        let gone = || Error::Conflict("a volume was removed while the container was being created; try again".into());
        sqlx::query!(
            "INSERT INTO container_volumes (container_id, volume_id, project_id)
             SELECT $1, v.id, $2 FROM unnest($3::text[]) AS v (id) ORDER BY v.id ON CONFLICT DO NOTHING",
            container.as_str(),
            self.project.0,
            &ids,
        )
        .execute(self.connection())
        .await
        .map_err(on_constraint("container_volumes_use_fkey", gone))?;
        Ok(())
    }

    /// Holds volumes until the end of the transaction: nobody begins to use them in between.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn lock_volumes(&mut self, volumes: &[VolumeId]) -> Result<()> {
        lock_volumes(self.connection(), volumes).await
    }

    /// Removes those of the volumes that nothing uses, and says which those were.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn remove_unused_volumes(&mut self, volumes: &[VolumeId]) -> Result<Vec<RemovedVolume>> {
        remove_unused_volumes(self.connection(), volumes).await
    }
}

/// See [`ProjectTx::lock_volumes`].
pub(crate) async fn lock_volumes(connection: &mut PgConnection, volumes: &[VolumeId]) -> Result<()> {
    if volumes.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = volumes.iter().map(|id| id.as_str().to_owned()).collect();
    sqlx::query!("SELECT id FROM volumes WHERE id = ANY($1) ORDER BY id FOR UPDATE", &ids)
        .fetch_all(connection)
        .await
        .map_err(store_error)?;
    Ok(())
}

/// See [`ProjectTx::remove_unused_volumes`]. What is on no host is gone at once.
pub(crate) async fn remove_unused_volumes(
    connection: &mut PgConnection,
    volumes: &[VolumeId],
) -> Result<Vec<RemovedVolume>> {
    if volumes.is_empty() {
        return Ok(Vec::new());
    }
    // Looked at only once they are held: whoever was about to use one has committed by then, or waits.
    lock_volumes(connection, volumes).await?;
    let ids: Vec<String> = volumes.iter().map(|id| id.as_str().to_owned()).collect();
    let rows = sqlx::query!(
        r#"WITH unused AS (
               SELECT id FROM volumes v WHERE id = ANY($1) AND NOT removing
                   AND NOT EXISTS (SELECT FROM container_volumes u WHERE u.volume_id = v.id)),
           gone AS (
               DELETE FROM volumes v USING unused WHERE v.id = unused.id AND v.host_id IS NULL
               RETURNING v.id, v.name, v.host_id),
           going AS (
               UPDATE volumes v SET removing = true FROM unused WHERE v.id = unused.id AND v.host_id IS NOT NULL
               RETURNING v.id, v.name, v.host_id)
           SELECT id AS "id!", name AS "name!", host_id FROM gone
           UNION ALL SELECT id, name, host_id FROM going ORDER BY 2"#,
        &ids
    )
    .fetch_all(connection)
    .await
    .map_err(store_error)?;
    rows.into_iter()
        .map(|row| Ok(RemovedVolume { id: parsed(&row.id)?, name: parsed(&row.name)?, host: row.host_id.map(HostId) }))
        .collect()
}
