//! Execs: a further process wanted inside a container. The row is made by create and claimed by the
//! first start. While it runs its host is asked how it does; its end comes with the host's reports and
//! is written, and told, once.

use contract::host::ExecReport;
use model::{ContainerId, Error, ExecId, Result};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{PgConnection, types::Json};
use time::OffsetDateTime;

use crate::{ProjectTx, containers::behind_prefix, store_error, stored::parsed};

/// An exec as it was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRecord<S> {
    /// Its id.
    pub id: ExecId,
    /// Its container.
    pub container: ContainerId,
    /// What to run.
    pub spec: S,
    /// When it was first started.
    pub started_at: Option<OffsetDateTime>,
    /// How it ended, once that has been reported.
    pub exit_code: Option<i32>,
}

impl ProjectTx {
    /// Writes a new exec.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn insert_exec<S: Serialize + Sync>(
        &mut self,
        id: &ExecId,
        container: &ContainerId,
        spec: &S,
        created_at: OffsetDateTime,
    ) -> Result<()> {
        sqlx::query!(
            "INSERT INTO execs (id, project_id, container_id, spec, created_at) VALUES ($1, $2, $3, $4, $5)",
            id.as_str(),
            self.project.0,
            container.as_str(),
            serde_json::to_value(spec).map_err(Error::internal)?,
            created_at,
        )
        .execute(self.connection())
        .await
        .map_err(store_error)?;
        Ok(())
    }

    /// An exec by its full id, or a unique prefix of it.
    ///
    /// # Errors
    /// `NotFound` in dockerd's words.
    pub async fn find_exec<S: DeserializeOwned>(&mut self, reference: &str) -> Result<ExecRecord<S>> {
        let missing = || Error::NotFound(format!("No such exec instance: {reference}"));
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if !(1..=64).contains(&reference.len()) || !reference.bytes().all(hex) {
            return Err(missing());
        }
        let mut rows = sqlx::query!(
            r#"SELECT id, container_id, spec AS "spec!: Json<serde_json::Value>", started_at, exit_code
               FROM execs WHERE project_id = $1 AND id ~>=~ $2 AND id ~<~ $3 LIMIT 2"#,
            self.project.0,
            reference,
            behind_prefix(reference),
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        let row = rows.pop().filter(|_| rows.is_empty()).ok_or_else(missing)?;
        Ok(ExecRecord {
            id: row.id.parse().map_err(Error::internal)?,
            container: row.container_id.parse().map_err(Error::internal)?,
            spec: serde_json::from_value(row.spec.0).map_err(Error::internal)?,
            started_at: row.started_at,
            exit_code: row.exit_code,
        })
    }

    /// Claims the one start an exec has. `false`: somebody did before.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn claim_exec(&mut self, id: &ExecId, at: OffsetDateTime) -> Result<bool> {
        let claimed = sqlx::query!(
            "UPDATE execs SET started_at = $3 WHERE project_id = $1 AND id = $2 AND started_at IS NULL",
            self.project.0,
            id.as_str(),
            at,
        )
        .execute(self.connection())
        .await
        .map_err(store_error)?;
        Ok(claimed.rows_affected() == 1)
    }

    /// Execs of a container that have not ended, in the order they were made.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn open_execs(&mut self, container: &ContainerId, limit: i64) -> Result<Vec<ExecId>> {
        sqlx::query_scalar!(
            "SELECT id FROM execs WHERE project_id = $1 AND container_id = $2 AND ended_at IS NULL
             ORDER BY created_at, id LIMIT $3",
            self.project.0,
            container.as_str(),
            limit,
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?
        .into_iter()
        .map(|id| id.parse().map_err(Error::internal))
        .collect()
    }
}

/// An exec that has just been seen to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) id: ExecId,
    pub(crate) container: ContainerId,
    pub(crate) exit_code: i32,
    /// It ran, so its end is told.
    pub(crate) ran: bool,
}

/// Code of an exec whose container ended under it.
const KILLED: i32 = 137;

/// Writes how execs of these containers ended: as reported, and those of containers whose run is over
/// with it. Only what was not known comes back. The containers are locked, and the caller's host's.
pub(crate) async fn end_execs(
    connection: &mut PgConnection,
    containers: &[String],
    reports: &[ExecReport],
    over: &[String],
) -> Result<Vec<Ended>> {
    if reports.is_empty() && over.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<String> = reports.iter().map(|report| report.id.as_str().to_owned()).collect();
    let codes: Vec<i32> = reports.iter().map(|report| report.exit_code).collect();
    let ran: Vec<bool> = reports.iter().map(|report| report.ran).collect();
    let ended = sqlx::query!(
        r#"UPDATE execs e SET ended_at = clock_timestamp(), exit_code = n.code
           FROM (SELECT DISTINCT ON (id) id, code, ran FROM (
                     SELECT id, code, ran, 1 AS rank FROM unnest($2::text[], $3::int4[], $4::bool[]) AS r (id, code, ran)
                     UNION ALL
                     SELECT id, $6::int4, true, 2 FROM execs
                     WHERE container_id = ANY($5) AND started_at IS NOT NULL AND ended_at IS NULL) known
                 ORDER BY id, rank) n
           WHERE e.id = n.id AND e.container_id = ANY($1) AND e.started_at IS NOT NULL AND e.ended_at IS NULL
           RETURNING e.id, e.container_id, n.code AS "code!", n.ran AS "ran!""#,
        containers,
        &ids,
        &codes,
        &ran,
        over,
        KILLED,
    )
    .fetch_all(connection)
    .await
    .map_err(store_error)?;
    ended
        .into_iter()
        .map(|row| {
            let (id, container) = (parsed(&row.id)?, parsed(&row.container_id)?);
            Ok(Ended { id, container, exit_code: row.code, ran: row.ran })
        })
        .collect()
}
