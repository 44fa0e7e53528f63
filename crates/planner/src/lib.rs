//! Decides which host a container goes to. `plan(&Snapshot) -> Plan` is a pure function: no I/O, no
//! clock, no randomness, no hash-map order, so that the same facts give the same plan anywhere.
//!
//! A plan only ever places what is unplaced; it never moves a container. Every container of the
//! snapshot's `unplaced` is in the plan once: placed, or explained. Reservations made by a plan are
//! counted within it, so no host is promised twice.

mod explain;
mod filter;
mod score;
mod snapshot;

pub use explain::Explanation;
pub use filter::Rejection;
pub use snapshot::{Assign, Demand, HostView, Plan, Snapshot, WantedPort};

use std::collections::BTreeMap;

use model::HostId;

/// Places what can be placed, oldest demand first, and explains the rest.
#[must_use]
pub fn plan(snapshot: &Snapshot) -> Plan {
    let mut hosts = snapshot.hosts.clone();
    let mut plan = Plan { epoch: snapshot.epoch, ..Plan::default() };
    for demand in &snapshot.unplaced {
        match choose(&hosts, demand) {
            Ok(host) => {
                if let Some(view) = hosts.get_mut(&host) {
                    view.reserve(demand);
                }
                plan.steps.push(Assign { container: demand.container.clone(), host });
            }
            Err(explanation) => plan.unplaced.push((demand.container.clone(), explanation)),
        }
    }
    plan
}

/// The best host of those that can take it.
fn choose(hosts: &BTreeMap<HostId, HostView>, demand: &Demand) -> Result<HostId, Explanation> {
    let mut explanation = Explanation::default();
    let mut best: Option<(score::Score, HostId)> = None;
    for (id, view) in hosts {
        match filter::admit(demand, view) {
            Ok(()) => {
                let candidate = (score::score(demand, *id, view), *id);
                if best.as_ref().is_none_or(|current| candidate < *current) {
                    best = Some(candidate);
                }
            }
            Err(rejection) => explanation.count(rejection),
        }
    }
    best.map(|(_, host)| host).ok_or(explanation)
}
