//! What the suite needs to know of an image: its layers and the part of its config that shapes a
//! container (OCI image spec, "Image Configuration"). Raw documents stay in image-svc's store.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Digest, HealthcheckSettings};

/// How a layer blob is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LayerEncoding {
    /// A plain tar.
    Tar,
    /// gzip, one or more members.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// One layer: the blob to fetch and what it must unpack to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LayerDescriptor {
    /// Digest of the blob as stored and served.
    pub digest: Digest,
    /// Digest of the uncompressed tar; hosts share unpacked layers by it.
    pub diff_id: Digest,
    /// Length of the blob in bytes.
    pub size_bytes: u64,
    /// How the blob is packed.
    pub encoding: LayerEncoding,
}

/// The execution defaults an image brings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ImageConfig {
    /// `KEY=value` pairs.
    pub env: Vec<String>,
    /// The program and its leading arguments.
    pub entrypoint: Vec<String>,
    /// Default arguments.
    pub cmd: Vec<String>,
    /// Working directory; empty means `/`.
    pub working_dir: String,
    /// `user[:group]`, by name or number; empty means root.
    pub user: String,
    /// `port/proto` the image says it listens on.
    pub exposed_ports: Vec<String>,
    /// Paths the image declares as volumes.
    pub volumes: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The signal that stops it, if not SIGTERM.
    pub stop_signal: Option<String>,
    /// How its health is checked, as the image says it.
    pub healthcheck: Option<HealthcheckSettings>,
    /// The shell of `CMD-SHELL`; empty means `/bin/sh -c`.
    pub shell: Vec<String>,
}
