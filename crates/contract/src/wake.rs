//! Wake-ups: topics that say "look again", never what changed. They may be lost, repeated or
//! reordered; whoever listens re-reads Postgres, and sweeps now and then in any case.

use std::fmt;

use model::{ContainerId, HostId, ProjectId};

/// Something worth looking at again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// There is something to place.
    Unplaced,
    /// What is wanted of a host changed.
    Host(HostId),
    /// Who is on some network, or answers to a name there, changed.
    Networks,
    /// What a container is doing changed.
    Container(ContainerId),
    /// An event was added to a project's history.
    Project(ProjectId),
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unplaced => f.write_str("unplaced"),
            Self::Networks => f.write_str("networks"),
            Self::Host(id) => write!(f, "host:{id}"),
            Self::Container(id) => write!(f, "container:{id}"),
            Self::Project(id) => write!(f, "project:{id}"),
        }
    }
}
