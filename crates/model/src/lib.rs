//! The vocabulary of the suite: ids, names, quantities, specs, lifecycles and the one error enum.
//!
//! Everything here is a plain value. Nothing does I/O, reads a clock or draws a random number, so
//! that the planner and every other pure core may depend on it. A value that exists is valid:
//! parsing happens on the way in (`serde(try_from)` or `FromStr`), never later.

mod container;
mod digest;
mod error;
mod event;
mod health;
mod host;
mod id;
mod image;
mod name;
mod network;
mod quantity;
mod reference;
mod repository;
mod resources;
mod security;
mod volume;

pub use container::{
    ContainerSpec, Desired, Exit, IpcMode, Link, LogConfig, Observed, Phase, Progress, RestartPolicy, SocketMount,
    StreamFlags, TmpfsMount,
};
pub use digest::{Digest, DigestAlgorithm};
pub use error::{Error, Result};
pub use event::{Event, EventKind};
pub use health::{
    HEALTH_LOG_ENTRIES, HEALTH_OUTPUT_MAX_BYTES, Health, HealthProbe, HealthStatus, Healthcheck, HealthcheckSettings,
};
pub use host::{HostCapacity, HostCondition, HostState};
pub use id::{ContainerId, ExecId, HostId, NetworkId, ProjectId, RepositoryId, TenantId, TokenId, UploadId, VolumeId};
pub use image::{ImageConfig, LayerDescriptor, LayerEncoding};
pub use name::{ContainerName, Slug, VolumeName};
pub use network::{Endpoint, MacAddress, NETWORKS_PER_CONTAINER, PortBinding, PortProtocol, PublishedPort, parse_link};
pub use quantity::{MemoryBytes, NanoCpus};
pub use reference::{DEFAULT_REGISTRY, ImageReference};
pub use repository::{ManifestReference, RepositoryName};
pub use resources::{Resources, Ulimit};
pub use security::{
    Capability, DEFAULT_CAPABILITIES, GRANTABLE_CAPABILITIES, MASKED_PATHS, READONLY_PATHS, SecuritySpec, runtimes_own,
};
pub use volume::{TmpfsOptions, VolumeBacking, VolumeMount};
