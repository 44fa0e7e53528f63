//! Which content is stored. A row here means: the file is durable and its digest was verified.

use model::{Digest, HostId, Result};

use crate::{Store, store_error};

impl Store {
    /// Notes that a blob is durable. Only after its file is.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn record_blob(&self, digest: &Digest, size_bytes: u64) -> Result<()> {
        sqlx::query!(
            "INSERT INTO blobs (digest, size_bytes) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING",
            digest.as_str(),
            i64::try_from(size_bytes).unwrap_or(i64::MAX)
        )
        .execute(self.pool())
        .await
        .map_err(store_error)?;
        Ok(())
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
