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
pub use snapshot::{Assign, Demand, HostView, JoinedView, Plan, Snapshot, VolumeView, WantedPort, WantedRange};

use std::collections::{BTreeMap, BTreeSet};

use model::{HostId, VolumeId};

/// Places what can be placed, oldest demand first, and explains the rest.
#[must_use]
pub fn plan(snapshot: &Snapshot) -> Plan {
    let (mut hosts, mut volumes) = (snapshot.hosts.clone(), snapshot.volumes.clone());
    let mut plan = Plan { epoch: snapshot.epoch, ..Plan::default() };
    for demand in &snapshot.unplaced {
        match choose(&hosts, &volumes, demand) {
            Ok(host) => {
                if let Some(view) = hosts.get_mut(&host) {
                    view.reserve(demand);
                }
                snapshot::place_volumes(&mut volumes, demand, host);
                plan.steps.push(Assign { container: demand.container.clone(), host });
            }
            Err(explanation) => plan.unplaced.push((demand.container.clone(), explanation)),
        }
    }
    plan
}

/// The best host of those that can take it.
fn choose(
    hosts: &BTreeMap<HostId, HostView>,
    volumes: &BTreeMap<VolumeId, VolumeView>,
    demand: &Demand,
) -> Result<HostId, Explanation> {
    let used = demand.volumes.iter().filter_map(|id| volumes.get(id));
    let bound: Vec<(&str, HostId)> = used.filter_map(|volume| Some((volume.name.as_str(), volume.host?))).collect();
    let bound_to: BTreeSet<HostId> = bound.iter().map(|(_, host)| *host).collect();
    let names = bound.iter().map(|(name, _)| (*name).to_owned()).collect();
    let joined = &demand.joins;
    let mut explanation = Explanation::bound_by(names, joined, bound_to.iter().copied());
    let mut best: Option<(score::Score, HostId)> = None;
    for (id, view) in hosts {
        let binding = filter::Binding {
            volumes_elsewhere: bound_to.iter().any(|host| host != id),
            joined_elsewhere: joined.iter().any(|joined| joined.host != Some(*id)),
        };
        match filter::admit(demand, view, binding) {
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
