//! What happened in a project, as `docker events` tells it. The store keeps them with a sequence
//! per project that has no holes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// The kind of thing an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A network.
    Network,
    /// A volume.
    Volume,
}

impl EventKind {
    /// Docker's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Network => "network",
            Self::Volume => "volume",
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Position in the project's history; 0 until the store assigns it.
    #[serde(default)]
    pub sequence: i64,
    /// What it is about.
    pub kind: EventKind,
    /// Docker's action word: `create`, `start`, `die`, `exec_create: sh`, …
    pub action: String,
    /// Id of the thing.
    pub actor_id: String,
    /// Attributes, labels flattened in.
    pub attributes: BTreeMap<String, String>,
    /// When it happened.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}
