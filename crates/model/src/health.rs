//! Health of a running container: how users and images ask for it to be checked
//! (`HealthcheckSettings`), how it is checked (`Healthcheck`), and what came of it (`Health`).
//! Docker API: `HealthConfig`, `Health`, `HealthcheckResult`.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// Probe results that are kept; older ones go.
pub const HEALTH_LOG_ENTRIES: usize = 5;
/// What is kept of the output of one probe, in bytes.
pub const HEALTH_OUTPUT_MAX_BYTES: usize = 4_096;

/// A check as an image or a user writes it: what is empty or 0 is left to the next best.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct HealthcheckSettings {
    /// `[]`, `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", …]`.
    pub test: Vec<String>,
    /// Between the end of one probe and the next.
    pub interval_ns: i64,
    /// Longest a probe may take.
    pub timeout_ns: i64,
    /// Failures this long after the start do not count.
    pub start_period_ns: i64,
    /// Between probes during the start period.
    pub start_interval_ns: i64,
    /// Failures in a row that make it unhealthy.
    pub retries: i64,
}

/// A command run in the container now and then. Durations are complete: the defaults are filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Healthcheck {
    /// Program and arguments; never empty. (`CMD-SHELL` is already spelt out as `/bin/sh -c …`.)
    pub command: Vec<String>,
    /// Between the end of one probe and the next.
    pub interval_ms: u64,
    /// A probe that takes longer is killed and counts as failed.
    pub timeout_ms: u64,
    /// Failures this long after the start do not count until a first success.
    pub start_period_ms: u64,
    /// Between probes during the start period.
    pub start_interval_ms: u64,
    /// Failures in a row that make it unhealthy; at least 1.
    pub retries: u32,
}

/// What the check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// Not known yet.
    Starting,
    /// The last probe that counted succeeded.
    Healthy,
    /// As many probes in a row as allowed have failed.
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// Health of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// The verdict.
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last probes, oldest first, at most [`HEALTH_LOG_ENTRIES`].
    pub log: Vec<HealthProbe>,
}

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthProbe {
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339")]
    pub finished_at: OffsetDateTime,
    /// Exit status: 0 is healthy; -1 if it could not be run or took too long.
    pub exit_code: i32,
    /// What it wrote, at most [`HEALTH_OUTPUT_MAX_BYTES`], and what there is to say about it.
    pub output: String,
}
