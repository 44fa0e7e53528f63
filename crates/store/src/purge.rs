//! What is kept for a while only: rows of removed containers (so that `wait` gets its answer) and old
//! events. Small bites, so that nobody waits for a sweep.

use std::time::Duration;

use model::Result;

use crate::{Store, store_error};

/// How long a removed container's row stays.
pub const REMOVED_KEPT: Duration = Duration::from_secs(10 * 60);
/// How long an event stays.
pub const EVENTS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Rows of a kind that one sweep takes.
const BITE: i64 = 5_000;

/// What one sweep took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Containers.
    pub containers: u64,
    /// Events.
    pub events: u64,
}

impl Store {
    /// Deletes what has been kept long enough.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn purge(&self, removed_kept: Duration, events_kept: Duration) -> Result<Purged> {
        let containers = sqlx::query!(
            "DELETE FROM containers WHERE id IN (
                 SELECT id FROM containers WHERE removed_at < now() - make_interval(secs => $1)
                 ORDER BY removed_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
            removed_kept.as_secs_f64(),
            BITE,
        )
        .execute(self.pool())
        .await
        .map_err(store_error)?;
        let events = sqlx::query!(
            "DELETE FROM events WHERE (project_id, sequence) IN (
                 SELECT project_id, sequence FROM events WHERE at < now() - make_interval(secs => $1)
                 LIMIT $2)",
            events_kept.as_secs_f64(),
            BITE,
        )
        .execute(self.pool())
        .await
        .map_err(store_error)?;
        Ok(Purged { containers: containers.rows_affected(), events: events.rows_affected() })
    }
}
