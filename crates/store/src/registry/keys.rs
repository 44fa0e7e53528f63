//! The keys that sign the registry's tokens, shared by all gateways.

use std::time::Duration;

use model::Result;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Store, store_error};

/// A signing key. Its secret is in no text.
#[derive(Clone)]
pub struct RegistryKey {
    /// Named in what it signed.
    pub id: Uuid,
    /// 32 random bytes.
    pub secret: Vec<u8>,
    /// When it was made.
    pub made_at: OffsetDateTime,
}

impl std::fmt::Debug for RegistryKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryKey").field("id", &self.id).field("made_at", &self.made_at).finish_non_exhaustive()
    }
}

impl Store {
    /// The keys, the youngest first: at least one, younger than `signs`. Two gateways that find none at
    /// once make two, and both are good. Those older than `kept` go.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn registry_keys(
        &self,
        fresh: (Uuid, [u8; 32]),
        signs: Duration,
        kept: Duration,
    ) -> Result<Vec<RegistryKey>> {
        let made = sqlx::query!(
            "INSERT INTO registry_keys (id, secret) SELECT $1, $2
             WHERE NOT EXISTS (SELECT FROM registry_keys WHERE made_at > now() - make_interval(secs => $3))",
            fresh.0,
            &fresh.1,
            signs.as_secs_f64()
        )
        .execute(self.pool())
        .await
        .map_err(store_error)?
        .rows_affected();
        if made > 0 {
            tracing::info!(key = %fresh.0, "made a key for registry tokens");
            sqlx::query!(
                "DELETE FROM registry_keys WHERE made_at < now() - make_interval(secs => $1)",
                kept.as_secs_f64()
            )
            .execute(self.pool())
            .await
            .map_err(store_error)?;
        }
        sqlx::query_as!(RegistryKey, "SELECT id, secret, made_at FROM registry_keys ORDER BY made_at DESC, id")
            .fetch_all(self.pool())
            .await
            .map_err(store_error)
    }
}
