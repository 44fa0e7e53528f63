//! Garbage collection of blobs, the rows of it: what nothing refers to is marked, and goes after a
//! grace. Foreign keys decide, not a list of tables: a row that anything refers to cannot be deleted.

use std::{collections::HashSet, time::Duration};

use model::{Digest, Result};
use uuid::Uuid;

use crate::{Store, store_error, stored::parsed};

impl Store {
    /// Takes or prolongs the lease on a kind of work. `false`: another has it.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn lease_upkeep(&self, work: &str, holder: Uuid, time: Duration) -> Result<bool> {
        let held = sqlx::query!(
            "INSERT INTO upkeep_leases AS l (work, holder, until) VALUES ($1, $2, now() + make_interval(secs => $3))
             ON CONFLICT (work) DO UPDATE SET holder = excluded.holder, until = excluded.until
             WHERE l.holder = excluded.holder OR l.until < now()",
            work,
            holder,
            time.as_secs_f64()
        )
        .execute(self.pool())
        .await
        .map_err(store_error)?;
        Ok(held.rows_affected() > 0)
    }

    /// Marks the blobs that nothing refers to (any more), and unmarks the others.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn mark_unused_blobs(&self) -> Result<()> {
        sqlx::query_scalar!("SELECT mark_unused_blobs()").fetch_one(self.pool()).await.map_err(store_error)?;
        Ok(())
    }

    /// Takes away links that no manifest needs and nobody asked for in so long, `most` at once.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn drop_unneeded_links(&self, kept: Duration, most: i32) -> Result<u64> {
        let dropped = sqlx::query_scalar!("SELECT drop_unneeded_links($1, $2)", kept.as_secs_f64(), most)
            .fetch_one(self.pool())
            .await
            .map_err(store_error)?;
        Ok(dropped.unwrap_or_default().unsigned_abs())
    }

    /// Blobs marked and untouched for so long, in order, after `after`.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn unused_blobs(&self, kept: Duration, after: &str, most: i64) -> Result<Vec<Digest>> {
        let found = sqlx::query_scalar!(
            "SELECT digest FROM blobs
             WHERE unused_since <= now() - make_interval(secs => $1) AND touched_at <= now() - make_interval(secs => $1)
               AND digest > $2 ORDER BY digest LIMIT $3",
            kept.as_secs_f64(),
            after,
            most
        )
        .fetch_all(self.pool())
        .await
        .map_err(store_error)?;
        found.iter().map(|digest| parsed(digest)).collect()
    }

    /// Deletes the row of a blob that is still unused; answers its length. `None`: it is used, or was
    /// touched, after all. The file may go only after this has answered.
    ///
    /// # Errors
    /// Postgres does not answer; whether the row is there is then unknown, and the file has to stay.
    pub async fn delete_unused_blob(&self, digest: &Digest, kept: Duration) -> Result<Option<u64>> {
        let deleted = sqlx::query_scalar!(
            "DELETE FROM blobs
             WHERE digest = $1 AND unused_since <= now() - make_interval(secs => $2)
               AND touched_at <= now() - make_interval(secs => $2)
             RETURNING size_bytes",
            digest.as_str(),
            kept.as_secs_f64()
        )
        .fetch_optional(self.pool())
        .await;
        match deleted {
            Ok(size) => Ok(size.map(i64::unsigned_abs)),
            Err(error)
                if error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_foreign_key_violation) =>
            {
                Ok(None)
            }
            Err(error) => Err(store_error(error)),
        }
    }

    /// Notes that somebody is at work with these blobs.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn touch_blobs(&self, digests: &[Digest]) -> Result<()> {
        let touched: Vec<String> = digests.iter().map(ToString::to_string).collect();
        sqlx::query!(
            "UPDATE blobs SET touched_at = now() WHERE digest IN (
                 SELECT digest FROM blobs WHERE digest = ANY($1) FOR NO KEY UPDATE SKIP LOCKED)",
            &touched
        )
        .execute(self.pool())
        .await
        .map_err(store_error)?;
        Ok(())
    }

    /// Which of these blobs have a row.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn recorded_blobs(&self, digests: &[Digest]) -> Result<HashSet<Digest>> {
        let asked: Vec<String> = digests.iter().map(ToString::to_string).collect();
        let found = sqlx::query_scalar!("SELECT digest FROM blobs WHERE digest = ANY($1)", &asked)
            .fetch_all(self.pool())
            .await
            .map_err(store_error)?;
        found.iter().map(|digest| parsed(digest)).collect()
    }
}
