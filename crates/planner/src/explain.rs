//! Why a container has no host, in words a user can act on: counts of hosts by reason, never names
//! or numbers of the fleet beyond that.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use model::HostId;

use crate::{JoinedView, Rejection};

/// Hosts that said no, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    reasons: BTreeMap<Rejection, u32>,
    /// Names of the volumes that bind it to a host.
    volumes: Vec<String>,
    /// The container it joins, which binds it too.
    joined: Option<String>,
    /// They bind it to different hosts.
    apart: bool,
}

impl Explanation {
    /// Of a container that these volumes, on these hosts, and the container it joins bind.
    pub(crate) fn bound_by(
        volumes: Vec<String>,
        joined: Option<&JoinedView>,
        volume_hosts: impl Iterator<Item = HostId>,
    ) -> Self {
        let hosts: BTreeSet<HostId> = volume_hosts.chain(joined.and_then(|joined| joined.host)).collect();
        Self { volumes, joined: joined.map(|joined| joined.name.clone()), apart: hosts.len() > 1, ..Self::default() }
    }

    /// What binds it is on different hosts: no change of the fleet will help.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        self.apart
    }

    pub(crate) fn count(&mut self, rejection: Rejection) {
        *self.reasons.entry(rejection).or_default() += 1;
    }

    /// How many hosts gave this reason.
    #[must_use]
    pub fn hosts(&self, rejection: Rejection) -> u32 {
        self.reasons.get(&rejection).copied().unwrap_or_default()
    }
}

/// `no suitable host (1 host is down; 2 hosts lack memory; 3 hosts do not have volume data)`
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.apart {
            let names = self.volumes.join(", ");
            let volumes = if self.volumes.len() == 1 { "volume" } else { "volumes" };
            let joined = self.joined.as_ref().map(|name| format!(" and container {name}, whose network it joins,"));
            let joined = joined.unwrap_or_default();
            return write!(
                f,
                "no suitable host ({volumes} {names}{joined} are on different hosts, and a container is on one)"
            );
        }
        if self.reasons.is_empty() {
            return f.write_str("no suitable host (no host has joined yet)");
        }
        f.write_str("no suitable host (")?;
        for (index, (rejection, count)) in self.reasons.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            let (one, many) = phrase(*rejection);
            if *count == 1 {
                write!(f, "{separator}1 host {one}")?;
            } else {
                write!(f, "{separator}{count} hosts {many}")?;
            }
            if *rejection == Rejection::LacksVolume {
                let volumes = if self.volumes.len() == 1 { "volume" } else { "volumes" };
                write!(f, " {volumes} {}", self.volumes.join(", "))?;
            }
            if let (Rejection::LacksJoined, Some(name)) = (rejection, &self.joined) {
                write!(f, " container {name}, whose network it joins")?;
            }
        }
        f.write_str(")")
    }
}

fn phrase(rejection: Rejection) -> (&'static str, &'static str) {
    match rejection {
        Rejection::Down => ("is down", "are down"),
        Rejection::Paused => ("is paused", "are paused"),
        Rejection::ContainersFull => ("has no room for another container", "have no room for another container"),
        Rejection::LacksCpu => ("lacks CPU", "lack CPU"),
        Rejection::LacksMemory => ("lacks memory", "lack memory"),
        Rejection::LacksRuntime => ("lacks the runtime", "lack the runtime"),
        Rejection::LacksVolume | Rejection::LacksJoined => ("does not have", "do not have"),
    }
}
