//! Totals: what a project has, and what the fleet can give. Numbers only; no host shows in them.

use model::{Digest, MemoryBytes, NanoCpus, Phase, Result};

use crate::{
    ProjectTx, Store, store_error,
    stored::{number, parsed},
};

/// What a project has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProjectSummary {
    /// Containers that run and are not paused.
    pub running: i64,
    /// Containers that are paused.
    pub paused: i64,
    /// Containers that do not.
    pub stopped: i64,
    /// Images.
    pub images: i64,
}

/// What all hosts that are heard from can give together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FleetCapacity {
    /// CPU time.
    pub nano_cpus: NanoCpus,
    /// Memory.
    pub memory_bytes: MemoryBytes,
}

impl ProjectTx {
    /// Counts what the project has.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn summary(&mut self) -> Result<ProjectSummary> {
        let row = sqlx::query!(
            r#"SELECT count(*) FILTER (WHERE observed_phase = $2 AND NOT paused) AS "running!",
                   count(*) FILTER (WHERE observed_phase = $2 AND paused) AS "paused!",
                   count(*) FILTER (WHERE observed_phase <> $2) AS "stopped!",
                   (SELECT count(*) FROM images WHERE project_id = $1) AS "images!"
               FROM containers WHERE project_id = $1 AND desired_state <> 'removed'"#,
            self.project.0,
            Phase::Running.rank()
        )
        .fetch_one(self.connection())
        .await
        .map_err(store_error)?;
        Ok(ProjectSummary { running: row.running, paused: row.paused, stopped: row.stopped, images: row.images })
    }

    /// How many containers were made from each image; images without one are left out.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn image_use_counts(&mut self) -> Result<Vec<(Digest, i64)>> {
        let rows = sqlx::query!(
            r#"SELECT image_id, count(*) AS "count!" FROM containers
               WHERE project_id = $1 AND desired_state <> 'removed' GROUP BY image_id"#,
            self.project.0
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        rows.into_iter().map(|row| Ok((parsed(&row.image_id)?, row.count))).collect()
    }
}

impl Store {
    /// Adds up the hosts that are ready now.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn fleet_capacity(&self) -> Result<FleetCapacity> {
        let late_after_ms = i64::try_from(contract::host::HOST_LATE_AFTER_MS).unwrap_or(i64::MAX);
        let row = sqlx::query!(
            r#"SELECT coalesce(sum(nano_cpus), 0)::bigint AS "nano_cpus!",
                   coalesce(sum(memory_bytes), 0)::bigint AS "memory_bytes!"
               FROM hosts WHERE last_seen_at >= now() - $1::bigint * interval '1 millisecond'"#,
            late_after_ms
        )
        .fetch_one(self.pool())
        .await
        .map_err(store_error)?;
        Ok(FleetCapacity {
            nano_cpus: NanoCpus(number(row.nano_cpus)?),
            memory_bytes: MemoryBytes(number(row.memory_bytes)?),
        })
    }
}
