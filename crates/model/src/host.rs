//! Hosts as the control plane sees them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{MemoryBytes, NanoCpus};

/// What a host can give in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostCapacity {
    /// CPU time.
    pub nano_cpus: NanoCpus,
    /// Memory.
    pub memory_bytes: MemoryBytes,
    /// Containers it takes at most (bridge ports, pids and file descriptors bound it).
    pub containers: u32,
}

/// Whether the control plane hears from a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HostCondition {
    /// Heard from in time.
    Ready,
    /// Not heard from in time. Its containers run on; nothing new is placed there.
    Down,
}

/// What an operator wants of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// Takes new containers.
    Active,
    /// Takes no new containers.
    Paused,
}
