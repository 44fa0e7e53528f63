//! Which content is stored. A row here means: the file is durable and its digest was verified.

use model::{Digest, HostId, Result};

use crate::{Store, store_error};

impl Store {
    /// Notes that a blob is durable, and which upstream it came from. Only after its file is.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn record_blob(&self, digest: &Digest, size_bytes: u64, origin: &str) -> Result<()> {
        sqlx::query!(
            "WITH stored AS (
                 INSERT INTO blobs (digest, size_bytes) VALUES ($1, $2)
                 ON CONFLICT (digest) DO UPDATE SET touched_at = now())
             INSERT INTO blob_origins (digest, origin) VALUES ($1, $3) ON CONFLICT DO NOTHING",
            digest.as_str(),
            i64::try_from(size_bytes).unwrap_or(i64::MAX),
            origin
        )
        .execute(self.pool())
        .await
        .map_err(store_error)?;
        Ok(())
    }

    /// Whether a blob was once downloaded from this upstream.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn blob_came_from(&self, digest: &Digest, origin: &str) -> Result<bool> {
        sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM blob_origins WHERE digest = $1 AND origin = $2) AS "came!""#,
            digest.as_str(),
            origin
        )
        .fetch_one(self.pool())
        .await
        .map_err(store_error)
    }

    /// May this host read this layer? Only if a container placed on it needs it.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn host_needs_layer(&self, host: HostId, layer: &Digest) -> Result<bool> {
        sqlx::query_scalar!(r#"SELECT host_needs_layer($1, $2) AS "needed!""#, host.0, layer.as_str())
            .fetch_one(self.pool())
            .await
            .map_err(store_error)
    }
}
