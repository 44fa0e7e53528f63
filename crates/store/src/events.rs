//! A project's history. The sequence is bumped in the transaction that writes the event, under the
//! project row's lock: it has no holes, and whoever has read up to n misses nothing above n.

use std::collections::BTreeMap;

use model::{Error, Event, EventKind, Result};
use sqlx::types::Json;
use time::OffsetDateTime;

use crate::{ProjectTx, store_error};

impl ProjectTx {
    /// Adds to the history. Do it last in a transaction: it orders the project's writers.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn append_event(
        &mut self,
        kind: EventKind,
        action: &str,
        actor_id: &str,
        attributes: &BTreeMap<String, String>,
        at: OffsetDateTime,
    ) -> Result<i64> {
        sqlx::query_scalar!(
            "WITH next AS (
                UPDATE projects SET event_sequence = event_sequence + 1 WHERE id = $1 RETURNING event_sequence)
             INSERT INTO events (project_id, sequence, kind, action, actor_id, attributes, at)
             SELECT $1, next.event_sequence, $2, $3, $4, $5, $6 FROM next RETURNING sequence",
            self.project.0,
            kind.as_str(),
            action,
            actor_id,
            Json(attributes) as _,
            at,
        )
        .fetch_one(self.connection())
        .await
        .map_err(store_error)
    }

    /// The last sequence given out.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn last_event(&mut self) -> Result<i64> {
        sqlx::query_scalar!("SELECT event_sequence FROM projects WHERE id = $1", self.project.0)
            .fetch_one(self.connection())
            .await
            .map_err(store_error)
    }

    /// The sequence before the first event at or after an instant; the last one if there is none.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn event_before(&mut self, since: OffsetDateTime) -> Result<i64> {
        sqlx::query_scalar!(
            r#"SELECT coalesce((SELECT min(sequence) - 1 FROM events WHERE project_id = $1 AND at >= $2), event_sequence) AS "sequence!"
               FROM projects WHERE id = $1"#,
            self.project.0,
            since,
        )
        .fetch_one(self.connection())
        .await
        .map_err(store_error)
    }

    /// What came after a sequence, in order, at most `limit`.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn events_after(&mut self, sequence: i64, limit: i64) -> Result<Vec<Event>> {
        let rows = sqlx::query!(
            r#"SELECT sequence, kind, action, actor_id, attributes AS "attributes!: Json<BTreeMap<String, String>>", at
               FROM events WHERE project_id = $1 AND sequence > $2 ORDER BY sequence LIMIT $3"#,
            self.project.0,
            sequence,
            limit,
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        rows.into_iter()
            .map(|row| {
                Ok(Event {
                    sequence: row.sequence,
                    kind: kind(&row.kind)?,
                    action: row.action,
                    actor_id: row.actor_id,
                    attributes: row.attributes.0,
                    at: row.at,
                })
            })
            .collect()
    }
}

fn kind(text: &str) -> Result<EventKind> {
    match text {
        "container" => Ok(EventKind::Container),
        "image" => Ok(EventKind::Image),
        "network" => Ok(EventKind::Network),
        "volume" => Ok(EventKind::Volume),
        other => Err(Error::Internal(format!("unknown event kind {other:?}"))),
    }
}
