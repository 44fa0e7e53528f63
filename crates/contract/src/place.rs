//! Gateway to scheduler: put a container that has just been written somewhere. The scheduler
//! answers when its plan for it is committed, or explains why it cannot be placed.

use model::{ContainerId, HostId, ProjectId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST`; body [`PlaceRequest`], answer [`Placement`], or `NoCapacity` with the explanation.
pub const PLACE: &str = "/internal/v1/placements";

/// Which container.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PlaceRequest {
    /// Its project.
    pub project: ProjectId,
    /// The container; its row is already committed.
    pub container: ContainerId,
}

/// Where it went.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Placement {
    /// The host.
    pub host: HostId,
}
