//! Execs: a further process wanted inside a container. The row is made by create and claimed by the
//! first start; what became of it is asked of the container's host.

use model::{ContainerId, Error, ExecId, Result};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::types::Json;
use time::OffsetDateTime;

use crate::{ProjectTx, store_error};

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
            r#"SELECT id, container_id, spec AS "spec!: Json<serde_json::Value>", started_at
               FROM execs WHERE project_id = $1 AND id LIKE $2 LIMIT 2"#,
            self.project.0,
            format!("{reference}%"),
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

    /// Execs of a container that were started, newest first (inspect's `ExecIDs` asks its host which still run).
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn started_execs(&mut self, container: &ContainerId, limit: i64) -> Result<Vec<ExecId>> {
        sqlx::query_scalar!(
            "SELECT id FROM execs WHERE project_id = $1 AND container_id = $2 AND started_at IS NOT NULL
             ORDER BY started_at DESC LIMIT $3",
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
