//! Volumes: data of a project that outlives its containers. What one is (`VolumeBacking`), and where
//! a container has it (`VolumeMount`).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{VolumeId, VolumeName};

/// What a volume is made of on its host. Decided when it is created, never changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum VolumeBacking {
    /// A directory of the host's own file system, as large as that.
    #[default]
    Directory,
    /// A file system of its own that is full at this size.
    Sized {
        /// Size of the file system.
        size_bytes: u64,
    },
    /// Memory. Its content lasts as long as some container has it.
    Tmpfs(TmpfsOptions),
}

/// Options of a volume in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct TmpfsOptions {
    /// Full at this size.
    pub size_bytes: Option<u64>,
    /// Files at most.
    pub inodes: Option<u64>,
    /// Owner of its root.
    pub uid: u32,
    /// Group of its root.
    pub gid: u32,
    /// Permission bits of its root.
    pub mode: Option<u32>,
    /// No program is executed from it.
    pub noexec: bool,
}

/// A volume as one container has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeMount {
    /// Which.
    pub volume: VolumeId,
    /// What it is called, to be shown.
    pub name: VolumeName,
    /// What it is made of.
    #[serde(default)]
    pub backing: VolumeBacking,
    /// Absolute path in the container.
    pub path: String,
    /// Only this directory (or file) of the volume, relative to its root; empty is all of it.
    #[serde(default)]
    pub subpath: String,
    /// The container cannot write to it.
    #[serde(default)]
    pub read_only: bool,
    /// An empty volume is not filled with what the image has at `path`.
    #[serde(default)]
    pub no_copy: bool,
    /// It was made for this container, or one it shares volumes with, and goes with it where that is asked for.
    #[serde(default)]
    pub anonymous: bool,
    /// Docker's `Mode`, to be shown.
    #[serde(default)]
    pub shown_mode: String,
}
