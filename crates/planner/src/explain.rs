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
    /// The containers it joins, which bind it too.
    joined: Vec<String>,
    /// They bind it to different hosts.
    apart: bool,
}

impl Explanation {
    /// Of a container that these volumes, on these hosts, and the containers it joins bind.
    pub(crate) fn bound_by(
        volumes: Vec<String>,
        joined: &[JoinedView],
        volume_hosts: impl Iterator<Item = HostId>,
    ) -> Self {
        let hosts: BTreeSet<HostId> = volume_hosts.chain(joined.iter().filter_map(|joined| joined.host)).collect();
        let names: BTreeSet<&String> = joined.iter().map(|joined| &joined.name).collect();
        let joined = names.into_iter().cloned().collect();
        Self { volumes, joined, apart: hosts.len() > 1, ..Self::default() }
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
            let both = [several("volume", &self.volumes), joined(&self.joined).map(|text| text + ",")];
            let both = both.into_iter().flatten().collect::<Vec<_>>().join(" and ");
            return write!(f, "no suitable host ({both} are on different hosts, and a container is on one)");
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
            let which = match rejection {
                Rejection::LacksVolume => several("volume", &self.volumes),
                Rejection::LacksJoined => joined(&self.joined),
                Rejection::Down
                | Rejection::Paused
                | Rejection::LacksRuntime
                | Rejection::ContainersFull
                | Rejection::LacksCpu
                | Rejection::LacksMemory => None,
            };
            if let Some(which) = which {
                write!(f, " {which}")?;
            }
        }
        f.write_str(")")
    }
}

/// `volume a`, `volumes a, b`.
fn several(what: &str, names: &[String]) -> Option<String> {
    match names {
        [] => None,
        [one] => Some(format!("{what} {one}")),
        all => Some(format!("{what}s {}", all.join(", "))),
    }
}

fn joined(names: &[String]) -> Option<String> {
    several("container", names).map(|text| text + ", which it joins")
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
