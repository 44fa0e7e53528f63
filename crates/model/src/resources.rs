//! What a container may use.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{MemoryBytes, NanoCpus};

/// Limits on one container. `None` means the project's or host's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Resources {
    /// Hard memory limit.
    pub memory_bytes: Option<MemoryBytes>,
    /// Memory plus swap; Docker's rule when unset is twice the memory limit.
    pub memory_swap_bytes: Option<MemoryBytes>,
    /// Soft memory limit.
    pub memory_reservation_bytes: Option<MemoryBytes>,
    /// CPU time, as billionths of a CPU.
    pub nano_cpus: Option<NanoCpus>,
    /// Relative CPU weight (cgroup v1 shares).
    pub cpu_shares: Option<u64>,
    /// CFS period and quota in microseconds, when given instead of `nano_cpus`.
    pub cpu_period_us: Option<u64>,
    /// See `cpu_period_us`.
    pub cpu_quota_us: Option<i64>,
    /// CPUs it may run on, in cgroup list syntax.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes it may use, in cgroup list syntax.
    pub cpuset_mems: Option<String>,
    /// How readily its memory is swapped out, 0 to 100 (cgroup v1).
    pub memory_swappiness: Option<u8>,
    /// Processes and threads it may have.
    pub pids_limit: Option<u64>,
    /// Block I/O weight, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Per-process limits.
    pub ulimits: Vec<Ulimit>,
    /// Size of `/dev/shm`.
    pub shm_size_bytes: Option<u64>,
}

/// One `setrlimit` pair. `-1` is unlimited; the host clamps to what it may grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ulimit {
    /// Name without `RLIMIT_`, lower case: `nofile`.
    pub name: String,
    /// Soft limit.
    pub soft: i64,
    /// Hard limit.
    pub hard: i64,
}
