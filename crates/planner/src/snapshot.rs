//! What the planner is given and what it answers. Ordered collections only: iteration order is part
//! of the decision.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    ContainerId, Digest, HostCapacity, HostCondition, HostId, HostState, MemoryBytes, NanoCpus, PortProtocol,
    ProjectId, VolumeId,
};

use crate::Explanation;

/// A port a container would like on its host.
pub type WantedPort = (PortProtocol, u16);
/// A range of ports, from and to, of which a container would like one on its host.
pub type WantedRange = (PortProtocol, u16, u16);

/// The facts of one moment, read in one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The plan epoch it was read at. A plan made of it applies only while this is still the epoch.
    pub epoch: i64,
    /// Every host of the fleet.
    pub hosts: BTreeMap<HostId, HostView>,
    /// What has no host yet, oldest first.
    pub unplaced: Vec<Demand>,
    /// Every volume those use.
    pub volumes: BTreeMap<VolumeId, VolumeView>,
}

/// A volume as the planner sees it. Once it is somewhere it stays there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeView {
    /// Name, for explanations.
    pub name: String,
    /// Where its data is; `None` until the first container that uses it is placed.
    pub host: Option<HostId>,
}

/// A host as the planner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostView {
    /// Name, for people who read plans.
    pub name: String,
    /// Is it heard from?
    pub condition: HostCondition,
    /// Does the operator let it take containers?
    pub state: HostState,
    /// What it can give in all.
    pub capacity: HostCapacity,
    /// CPU time promised to the containers on it.
    pub reserved_nano_cpus: NanoCpus,
    /// Memory promised to the containers on it.
    pub reserved_memory: MemoryBytes,
    /// Containers on it, in whatever state.
    pub containers: u32,
    /// Host ports in use by its running containers.
    pub used_ports: BTreeSet<WantedPort>,
    /// OCI runtimes that work there.
    pub runtimes: BTreeSet<String>,
    /// Images (config digests) it most likely has unpacked already.
    pub local_images: BTreeSet<Digest>,
}

/// A container that needs a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The container.
    pub container: ContainerId,
    /// Its project.
    pub project: ProjectId,
    /// CPU time to reserve; zero for an unlimited container, which reserves nothing.
    pub nano_cpus: NanoCpus,
    /// Memory to reserve; zero for an unlimited container.
    pub memory: MemoryBytes,
    /// Host ports it will ask for when it starts.
    pub ports: BTreeSet<WantedPort>,
    /// Ranges of which it will ask for one port each; the same one twice means two ports of it.
    pub port_ranges: Vec<WantedRange>,
    /// Its image, by config digest; `None` if that is not known.
    pub image: Option<Digest>,
    /// Volumes it uses.
    pub volumes: BTreeSet<VolumeId>,
    /// The OCI runtime it asks for; `None` is the default, which every host has.
    pub runtime: Option<String>,
    /// The containers whose namespaces it lives in.
    pub joins: Vec<JoinedView>,
}

/// A container whose namespaces another one lives in: both are on its host, for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedView {
    /// Name, for explanations.
    pub name: String,
    /// Where it is; `None` while it is nowhere, and then nobody can join it.
    pub host: Option<HostId>,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The epoch it was decided on.
    pub epoch: i64,
    /// Placements, in the order decided.
    pub steps: Vec<Assign>,
    /// What cannot be placed now, and why.
    pub unplaced: Vec<(ContainerId, Explanation)>,
}

/// One placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assign {
    /// Which container.
    pub container: ContainerId,
    /// Where.
    pub host: HostId,
}

impl Snapshot {
    /// The snapshot that would be read once `plan` is applied and nothing else happened.
    #[must_use]
    pub fn after(&self, plan: &Plan) -> Self {
        let mut next = self.clone();
        next.epoch += 1;
        for step in &plan.steps {
            if let Some(at) = next.unplaced.iter().position(|demand| demand.container == step.container) {
                let demand = next.unplaced.remove(at);
                if let Some(view) = next.hosts.get_mut(&step.host) {
                    view.reserve(&demand);
                }
                place_volumes(&mut next.volumes, &demand, step.host);
            }
        }
        next
    }
}

/// The volumes of a container that was placed are where it is.
pub(crate) fn place_volumes(volumes: &mut BTreeMap<VolumeId, VolumeView>, demand: &Demand, host: HostId) {
    for id in &demand.volumes {
        if let Some(volume) = volumes.get_mut(id) {
            volume.host.get_or_insert(host);
        }
    }
}

impl HostView {
    /// The ports a container would get here now, and how many it would have to do without.
    pub(crate) fn ports_for(&self, demand: &Demand) -> (BTreeSet<WantedPort>, usize) {
        let mut missing = demand.ports.intersection(&self.used_ports).count();
        let mut own = demand.ports.clone();
        for (protocol, from, to) in demand.port_ranges.iter().copied() {
            let mut range = (from..=to).map(|port| (protocol, port));
            match range.find(|port| !self.used_ports.contains(port) && !own.contains(port)) {
                Some(port) => _ = own.insert(port),
                None => missing += 1,
            }
        }
        (own, missing)
    }

    /// Books a container on the host.
    pub(crate) fn reserve(&mut self, demand: &Demand) {
        self.reserved_nano_cpus = self.reserved_nano_cpus + demand.nano_cpus;
        self.reserved_memory = self.reserved_memory + demand.memory;
        self.containers = self.containers.saturating_add(1);
        // It has not the ports yet, but two that want the same one are better kept apart.
        let (ports, _) = self.ports_for(demand);
        self.used_ports.extend(ports);
        self.local_images.extend(demand.image.iter().cloned());
    }
}

impl Plan {
    /// The plan as text, for tests and for people: host names rather than ids.
    #[must_use]
    pub fn render(&self, snapshot: &Snapshot) -> String {
        let mut text = format!("epoch {}\n", self.epoch);
        for step in &self.steps {
            let host = snapshot.hosts.get(&step.host).map_or("?", |view| view.name.as_str());
            text.push_str(&format!("assign {} -> {host}\n", step.container.short()));
        }
        for (container, explanation) in &self.unplaced {
            text.push_str(&format!("leave  {}: {explanation}\n", container.short()));
        }
        text
    }
}
