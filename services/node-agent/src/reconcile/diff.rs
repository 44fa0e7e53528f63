//! Which keepers should exist and with what target, pure: what is known, and a delta, become actions.

use std::collections::{BTreeMap, BTreeSet};

use contract::host::{HostDelta, PlannedContainer};
use model::ContainerId;

/// What to do with one container.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// New here: begin to keep it.
    Keep(Box<PlannedContainer>),
    /// Known: here is what is wanted now.
    Retarget(Box<PlannedContainer>),
    /// Here, but in no plan.
    Discard(ContainerId),
}

/// Why a delta is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("generation {offered} is older than {reached}, which was reached")]
pub(crate) struct Stale {
    pub(crate) offered: i64,
    pub(crate) reached: i64,
}

/// Compares a delta with what is here (`known`: the containers with a keeper or a directory, and the
/// plan each follows, if one was saved).
///
/// # Errors
/// The delta is older than what was reached.
pub(crate) fn diff(
    reached: i64,
    known: &BTreeMap<ContainerId, Option<PlannedContainer>>,
    delta: &HostDelta,
) -> Result<Vec<Action>, Stale> {
    if delta.generation < reached {
        return Err(Stale { offered: delta.generation, reached });
    }
    let mut actions: Vec<Action> = Vec::new();
    let mut named = BTreeSet::new();
    for container in &delta.containers {
        named.insert(&container.id);
        match known.get(&container.id) {
            None => actions.push(Action::Keep(Box::new(container.clone()))),
            Some(Some(before)) if same(before, container) => {}
            Some(_) => actions.push(Action::Retarget(Box::new(container.clone()))),
        }
    }
    if delta.full {
        let orphans = known.keys().filter(|id| !named.contains(id));
        actions.extend(orphans.map(|id| Action::Discard(id.clone())));
    }
    Ok(actions)
}

/// Of the spec only these change after create.
fn same(a: &PlannedContainer, b: &PlannedContainer) -> bool {
    let limits = a.spec.resources == b.spec.resources && a.spec.restart == b.spec.restart;
    let network = a.ports == b.ports && a.endpoints == b.endpoints && a.linked == b.linked;
    limits && network && a.desired == b.desired && a.name == b.name
}

#[cfg(test)]
mod tests {
    use contract::host::PlannedImage;
    use model::{ContainerSpec, Desired, Digest, ProjectId};

    use super::*;

    fn id(n: u8) -> ContainerId {
        ContainerId::from_bytes([n; 32])
    }

    fn container(n: u8, desired: Desired) -> PlannedContainer {
        PlannedContainer {
            uid_base: None,
            id: id(n),
            project: ProjectId(uuid::Uuid::nil()),
            name: "web".parse().expect("a name"),
            desired,
            spec: ContainerSpec::default(),
            image: PlannedImage { id: Digest::sha256([0; 32]), layers: Vec::new() },
            endpoints: Vec::new(),
            ports: Vec::new(),
            linked: Vec::new(),
        }
    }

    fn shown(actions: &[Action]) -> Vec<String> {
        let show = |a: &Action| match a {
            Action::Keep(c) => format!("keep {}", &c.id.as_str()[..2]),
            Action::Retarget(c) => format!("retarget {}", &c.id.as_str()[..2]),
            Action::Discard(id) => format!("discard {}", &id.as_str()[..2]),
        };
        actions.iter().map(show).collect()
    }

    #[test]
    fn a_delta_touches_only_what_it_names_and_a_full_plan_finds_orphans() {
        let run = Desired::Running { run: 1 };
        let known = BTreeMap::from([
            (id(1), Some(container(1, Desired::Created))),
            (id(2), Some(container(2, Desired::Created))),
            (id(3), None),
        ]);
        let containers = vec![container(1, run), container(4, Desired::Created)];
        let delta = HostDelta { generation: 5, full: false, containers, ..HostDelta::default() };
        assert_eq!(shown(&diff(5, &known, &delta).expect("taken")), ["retarget 01", "keep 04"]);
        let full = HostDelta { full: true, ..delta };
        assert_eq!(
            shown(&diff(5, &known, &full).expect("taken")),
            ["retarget 01", "keep 04", "discard 02", "discard 03"]
        );
    }

    #[test]
    fn what_did_not_change_is_left_alone() {
        let known = BTreeMap::from([(id(1), Some(container(1, Desired::Created)))]);
        let containers = vec![container(1, Desired::Created)];
        let delta = HostDelta { generation: 1, full: true, containers, ..HostDelta::default() };
        assert!(diff(0, &known, &delta).expect("taken").is_empty());
    }

    #[test]
    fn an_older_generation_is_refused_whole() {
        let delta = HostDelta { generation: 4, full: true, ..HostDelta::default() };
        let known = BTreeMap::from([(id(1), None)]);
        assert_eq!(diff(5, &known, &delta).expect_err("refused"), Stale { offered: 4, reached: 5 });
    }
}
