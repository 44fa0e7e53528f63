//! Why a container has no host, in words a user can act on: counts of hosts by reason, never names
//! or numbers of the fleet beyond that.

use std::{collections::BTreeMap, fmt};

use crate::Rejection;

/// Hosts that said no, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    reasons: BTreeMap<Rejection, u32>,
}

impl Explanation {
    pub(crate) fn count(&mut self, rejection: Rejection) {
        *self.reasons.entry(rejection).or_default() += 1;
    }

    /// How many hosts gave this reason.
    #[must_use]
    pub fn hosts(&self, rejection: Rejection) -> u32 {
        self.reasons.get(&rejection).copied().unwrap_or_default()
    }
}

/// `no suitable host (2 hosts lack memory; 1 host is down)`
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
    }
}
