//! Uploads under way. The offset here is what is durable; it moves after the bytes are.

use std::time::Duration;

use model::{Digest, Error, RepositoryId, Result, UploadId};

use crate::{ProjectTx, Store, on_constraint, store_error, stored::number};

/// Uploads a project may have open.
pub const UPLOADS_PER_PROJECT: i64 = 1_000;

/// An upload under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenUpload {
    /// How much of it is durable.
    pub offset_bytes: u64,
    /// The project may keep only so much: what comes is reserved first.
    pub is_limited: bool,
}

impl ProjectTx {
    /// Begins an upload of so many bytes, as far as is known, and reserves them.
    ///
    /// # Errors
    /// `LimitExceeded` for one too many, `Forbidden` if the project may not keep so much.
    pub async fn begin_upload(&mut self, id: UploadId, repository: RepositoryId, reserved: u64) -> Result<()> {
        // A project without a limit has room: one trip.
        if self.insert_upload(id, repository, reserved, true).await? {
            return Ok(());
        }
        // Where nothing more fits, nothing begins.
        self.claim_registry_bytes(reserved.max(1)).await?;
        if !self.insert_upload(id, repository, reserved, false).await? {
            let text = format!("the project has {UPLOADS_PER_PROJECT} uploads open; finish or cancel some");
            return Err(Error::LimitExceeded(text));
        }
        Ok(())
    }

    /// `false`: it would be one too many, or the project has a limit where it must have none.
    async fn insert_upload(
        &mut self,
        id: UploadId,
        repository: RepositoryId,
        reserved: u64,
        without_limit: bool,
    ) -> Result<bool> {
        let written = sqlx::query!(
            "INSERT INTO repository_uploads (id, repository_id, project_id, reserved_bytes) SELECT $1, $2, $3, $5
             WHERE (SELECT count(*) FROM repository_uploads WHERE project_id = $3) < $4
               AND (NOT $6 OR (SELECT registry_bytes_max IS NULL FROM projects WHERE id = $3))",
            id.0,
            repository.0,
            self.project.0,
            UPLOADS_PER_PROJECT,
            i64::try_from(reserved).unwrap_or(i64::MAX),
            without_limit
        )
        .execute(self.connection())
        .await
        .map_err(store_error)?;
        Ok(written.rows_affected() > 0)
    }

    /// Where an upload stands; `None` if there is no such upload to this repository.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn upload(&mut self, id: UploadId, repository: RepositoryId) -> Result<Option<OpenUpload>> {
        let found = sqlx::query!(
            r#"SELECT u.offset_bytes, p.registry_bytes_max IS NOT NULL AS "is_limited!"
               FROM repository_uploads u JOIN projects p ON p.id = u.project_id
               WHERE u.project_id = $1 AND u.repository_id = $2 AND u.id = $3"#,
            self.project.0,
            repository.0,
            id.0
        )
        .fetch_optional(self.connection())
        .await
        .map_err(store_error)?;
        let open = |offset, is_limited| number(offset).map(|offset_bytes| OpenUpload { offset_bytes, is_limited });
        found.map(|row| open(row.offset_bytes, row.is_limited)).transpose()
    }

    /// Notes that so many bytes are durable. `false`: the upload is over.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn advance_upload(&mut self, id: UploadId, offset_bytes: u64) -> Result<bool> {
        let moved = sqlx::query!(
            "UPDATE repository_uploads SET offset_bytes = $3, touched_at = now() WHERE project_id = $1 AND id = $2",
            self.project.0,
            id.0,
            i64::try_from(offset_bytes).unwrap_or(i64::MAX)
        )
        .execute(self.connection())
        .await
        .map_err(store_error)?;
        Ok(moved.rows_affected() > 0)
    }

    /// Ends an upload and links what it was, whose bytes will be in their place before this is committed, and
    /// will not be collected: that is for the caller to see to. `false`: it was over.
    ///
    /// # Errors
    /// `NotFound` if the repository is gone.
    pub async fn finish_upload(
        &mut self,
        id: UploadId,
        repository: RepositoryId,
        digest: &Digest,
        size_bytes: u64,
    ) -> Result<bool> {
        self.finish(id, repository, digest, size_bytes, false).await
    }

    /// [`ProjectTx::finish_upload`] of one that is as it was begun, with room reserved for all of it where the
    /// project's is limited. `false`: it is not so.
    ///
    /// # Errors
    /// `NotFound` if the repository is gone.
    pub async fn finish_untouched_upload(
        &mut self,
        id: UploadId,
        repository: RepositoryId,
        digest: &Digest,
        size_bytes: u64,
    ) -> Result<bool> {
        self.finish(id, repository, digest, size_bytes, true).await
    }

    /// One statement, one trip; what [`ProjectTx::end_upload`] and [`ProjectTx::link_blob`] do.
    async fn finish(
        &mut self,
        id: UploadId,
        repository: RepositoryId,
        digest: &Digest,
        size_bytes: u64,
        untouched: bool,
    ) -> Result<bool> {
        let project = self.project.0;
        let linked = sqlx::query_scalar!(
            r#"WITH ended AS (
                   DELETE FROM repository_uploads u USING projects p
                   WHERE u.project_id = $1 AND u.repository_id = $2 AND u.id = $3 AND p.id = u.project_id
                     AND (NOT $6 OR u.offset_bytes = 0 AND (p.registry_bytes_max IS NULL OR u.reserved_bytes >= $5))
                   RETURNING u.id),
               stored AS (
                   INSERT INTO blobs (digest, size_bytes) SELECT $4, $5 FROM ended
                   ON CONFLICT (digest) DO UPDATE SET touched_at = now()),
               linked AS (
                   INSERT INTO repository_blobs (repository_id, project_id, digest, size_bytes)
                   SELECT $2, $1, $4, $5 FROM ended
                   ON CONFLICT (repository_id, digest) DO UPDATE SET linked_at = now())
               SELECT count(*) AS "count!" FROM ended"#,
            project,
            repository.0,
            id.0,
            digest.as_str(),
            i64::try_from(size_bytes).unwrap_or(i64::MAX),
            untouched
        )
        .fetch_one(self.connection())
        .await
        .map_err(on_constraint("repository_blobs_repository_id_project_id_fkey", || {
            Error::NotFound("repository name not known to registry".into())
        }))?;
        Ok(linked > 0)
    }

    /// Ends an upload, finished or cancelled. `false`: it was over.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn end_upload(&mut self, id: UploadId) -> Result<bool> {
        let ended =
            sqlx::query!("DELETE FROM repository_uploads WHERE project_id = $1 AND id = $2", self.project.0, id.0)
                .execute(self.connection())
                .await
                .map_err(store_error)?;
        Ok(ended.rows_affected() > 0)
    }
}

impl Store {
    /// Ends uploads of any project that nobody went on with for so long; answers which.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn end_idle_uploads(&self, idle: Duration, most: i32) -> Result<Vec<UploadId>> {
        let ended = sqlx::query_scalar!(r#"SELECT end_idle_uploads($1, $2) AS "id!""#, idle.as_secs_f64(), most)
            .fetch_all(self.pool())
            .await
            .map_err(store_error)?;
        Ok(ended.into_iter().map(UploadId).collect())
    }

    /// Which of these uploads are not over.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn uploads_alive(&self, asked: &[UploadId]) -> Result<Vec<UploadId>> {
        let asked: Vec<_> = asked.iter().map(|id| id.0).collect();
        let alive = sqlx::query_scalar!(r#"SELECT uploads_alive($1) AS "id!""#, &asked)
            .fetch_all(self.pool())
            .await
            .map_err(store_error)?;
        Ok(alive.into_iter().map(UploadId).collect())
    }
}
