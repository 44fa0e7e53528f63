//! How much a project may keep in its repositories. Uploads reserve before their bytes come; whatever else
//! links asks for room in the transaction that links. Both take turns, project by project, so that two
//! never get the same room; a project without a limit waits for nobody.
//!
//! Nothing has to be given back: a reservation is a column of the upload's row, and what is used follows
//! from the links by triggers.

use model::{Error, Result, UploadId};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{ProjectTx, Store, store_error, stored::number};

/// What a project keeps in its repositories, in bytes of links: the same content in two of them counts twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct RegistryQuota {
    /// The most it may keep; absent if there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_max: Option<i64>,
    /// What it keeps.
    pub used_bytes: i64,
    /// What uploads under way have reserved.
    pub reserved_bytes: i64,
}

impl RegistryQuota {
    fn room_for(&self, wanted: u64) -> Result<()> {
        let taken = self.used_bytes.saturating_add(self.reserved_bytes);
        let wanted = i64::try_from(wanted).unwrap_or(i64::MAX);
        match self.bytes_max {
            Some(most) if taken.saturating_add(wanted) > most => Err(Error::Forbidden(format!(
                "the project may keep {most} bytes in its repositories: {} are used, {} are reserved by uploads under \
                 way, {wanted} more are wanted. Delete images, or ask your operator",
                self.used_bytes, self.reserved_bytes
            ))),
            Some(_) | None => Ok(()),
        }
    }
}

impl ProjectTx {
    /// What the project keeps and may keep.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn registry_quota(&mut self) -> Result<RegistryQuota> {
        let project = self.project.0;
        let row = sqlx::query!(
            r#"SELECT bytes_max, used_bytes AS "used_bytes!", reserved_bytes AS "reserved_bytes!" FROM registry_quota($1)"#,
            project
        )
        .fetch_optional(self.connection())
        .await
        .map_err(store_error)?;
        Ok(row.map_or_else(RegistryQuota::default, |row| RegistryQuota {
            bytes_max: row.bytes_max,
            used_bytes: row.used_bytes,
            reserved_bytes: row.reserved_bytes,
        }))
    }

    /// Takes room for links that are about to be made without an upload, until the transaction ends.
    ///
    /// # Errors
    /// `Forbidden` if there is not so much room.
    pub async fn claim_registry_bytes(&mut self, wanted: u64) -> Result<()> {
        if !self.registry_is_limited().await? {
            return Ok(());
        }
        self.take_turn().await?;
        self.registry_quota().await?.room_for(wanted)
    }

    /// Reserves that many bytes for an upload as a whole, in a project that is limited. What it has reserved already stays reserved if
    /// there is no room for more.
    ///
    /// # Errors
    /// `Forbidden` if there is not so much room.
    pub async fn reserve_registry_bytes(&mut self, upload: UploadId, wanted: u64) -> Result<()> {
        self.take_turn().await?;
        let reserved = sqlx::query_scalar!(
            "SELECT reserved_bytes FROM repository_uploads WHERE project_id = $1 AND id = $2",
            self.project.0,
            upload.0
        )
        .fetch_optional(self.connection())
        .await
        .map_err(store_error)?;
        // Whoever goes on with an upload that is over is told so in its own turn.
        let Some(reserved) = reserved.map(number).transpose()? else { return Ok(()) };
        if wanted <= reserved {
            return Ok(());
        }
        self.registry_quota().await?.room_for(wanted - reserved)?;
        sqlx::query!(
            "UPDATE repository_uploads SET reserved_bytes = $3 WHERE project_id = $1 AND id = $2",
            self.project.0,
            upload.0,
            i64::try_from(wanted).unwrap_or(i64::MAX)
        )
        .execute(self.connection())
        .await
        .map_err(store_error)?;
        Ok(())
    }

    async fn registry_is_limited(&mut self) -> Result<bool> {
        let limited = sqlx::query_scalar!(
            r#"SELECT registry_bytes_max IS NOT NULL AS "limited!" FROM projects WHERE id = $1"#,
            self.project.0
        )
        .fetch_optional(self.connection())
        .await
        .map_err(store_error)?;
        Ok(limited.unwrap_or_default())
    }

    /// Waits for whoever is taking room in this project. What is read afterwards has seen them.
    async fn take_turn(&mut self) -> Result<()> {
        sqlx::query!(
            "SELECT pg_advisory_xact_lock(hashtextextended('registry bytes of ' || $1, 0))",
            self.project.to_string()
        )
        .execute(self.connection())
        .await
        .map_err(store_error)?;
        Ok(())
    }
}

impl Store {
    /// Adds up what has accumulated of changes to what projects keep.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn add_up_registry_usage(&self, rows_kept: i32) -> Result<()> {
        sqlx::query!("SELECT 1 AS one FROM add_up_registry_usage($1)", rows_kept)
            .fetch_all(self.pool())
            .await
            .map_err(store_error)?;
        Ok(())
    }
}
