//! Which hosts can take a container at all. One rule each, in the order their reasons are told.
//! Ports are no filter: they are reserved when a container starts, not when it is placed.

use model::{HostCondition, HostState};

use crate::{Demand, HostView};

/// Why a host cannot take a container. Order is the order of the explanation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rejection {
    /// It is not heard from.
    Down,
    /// The operator lets it take nothing new.
    Paused,
    /// The runtime that is asked for is not there, or does not work there.
    LacksRuntime,
    /// It has as many containers as it takes.
    ContainersFull,
    /// Not enough unreserved CPU time.
    LacksCpu,
    /// Not enough unreserved memory.
    LacksMemory,
    /// The data of a volume it uses is on another one.
    LacksVolume,
    /// A container that it joins is on another one.
    LacksJoined,
}

/// What else of the container's is on another host than the one looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Binding {
    /// A volume of it.
    pub(crate) volumes_elsewhere: bool,
    /// A container it joins.
    pub(crate) joined_elsewhere: bool,
}

/// `Ok` if the host can take it; otherwise the first rule that says no. What binds it elsewhere is told
/// before all else, because nothing else about this host matters.
pub(crate) fn admit(demand: &Demand, host: &HostView, binding: Binding) -> Result<(), Rejection> {
    if binding.joined_elsewhere {
        return Err(Rejection::LacksJoined);
    }
    if binding.volumes_elsewhere {
        return Err(Rejection::LacksVolume);
    }
    if host.condition == HostCondition::Down {
        return Err(Rejection::Down);
    }
    if host.state == HostState::Paused {
        return Err(Rejection::Paused);
    }
    if demand.runtime.as_ref().is_some_and(|runtime| !host.runtimes.contains(runtime)) {
        return Err(Rejection::LacksRuntime);
    }
    if host.containers >= host.capacity.containers {
        return Err(Rejection::ContainersFull);
    }
    // Whoever reserves nothing fits, also on a host that was overbooked by a shrunken capacity.
    let free_cpu = host.capacity.nano_cpus.saturating_sub(host.reserved_nano_cpus);
    if demand.nano_cpus > free_cpu {
        return Err(Rejection::LacksCpu);
    }
    let free_memory = host.capacity.memory_bytes.saturating_sub(host.reserved_memory);
    if demand.memory > free_memory {
        return Err(Rejection::LacksMemory);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use model::{HostCapacity, MemoryBytes, NanoCpus};

    use super::*;

    fn host() -> HostView {
        HostView {
            name: "a".into(),
            condition: HostCondition::Ready,
            state: HostState::Active,
            capacity: HostCapacity { nano_cpus: NanoCpus(10), memory_bytes: MemoryBytes(100), containers: 2 },
            reserved_nano_cpus: NanoCpus(4),
            reserved_memory: MemoryBytes(40),
            containers: 1,
            used_ports: BTreeSet::new(),
            runtimes: BTreeSet::from(["runc".to_owned()]),
            local_images: BTreeSet::new(),
        }
    }

    fn demand(nano_cpus: u64, memory: u64) -> Demand {
        Demand {
            container: model::ContainerId::from_bytes([1; 32]),
            project: "0190b0a0-0000-7000-8000-000000000001".parse().expect("a uuid"),
            nano_cpus: NanoCpus(nano_cpus),
            memory: MemoryBytes(memory),
            ports: BTreeSet::new(),
            port_ranges: Vec::new(),
            image: None,
            volumes: BTreeSet::new(),
            runtime: None,
            joins: Vec::new(),
        }
    }

    #[test]
    fn what_is_left_may_be_taken_to_the_last_byte_and_no_further() {
        assert_eq!(admit(&demand(6, 60), &host(), Binding::default()), Ok(()));
        assert_eq!(admit(&demand(7, 60), &host(), Binding::default()), Err(Rejection::LacksCpu));
        assert_eq!(admit(&demand(6, 61), &host(), Binding::default()), Err(Rejection::LacksMemory));
    }

    #[test]
    fn a_down_paused_or_full_host_takes_nothing() {
        let down = HostView { condition: HostCondition::Down, ..host() };
        let paused = HostView { state: HostState::Paused, ..host() };
        let full = HostView { containers: 2, ..host() };
        assert_eq!(admit(&demand(0, 0), &down, Binding::default()), Err(Rejection::Down));
        assert_eq!(admit(&demand(0, 0), &paused, Binding::default()), Err(Rejection::Paused));
        assert_eq!(admit(&demand(0, 0), &full, Binding::default()), Err(Rejection::ContainersFull));
    }

    #[test]
    fn a_runtime_has_to_be_there() {
        let wants = |runtime: &str| Demand { runtime: Some(runtime.into()), ..demand(0, 0) };
        assert_eq!(admit(&wants("runc"), &host(), Binding::default()), Ok(()));
        assert_eq!(admit(&wants("crun"), &host(), Binding::default()), Err(Rejection::LacksRuntime));
    }

    #[test]
    fn an_unlimited_container_fits_on_a_host_that_shrank_below_its_promises() {
        let shrunk = HostView { reserved_memory: MemoryBytes(1_000), ..host() };
        assert_eq!(admit(&demand(0, 0), &shrunk, Binding::default()), Ok(()));
        assert_eq!(admit(&demand(0, 1), &shrunk, Binding::default()), Err(Rejection::LacksMemory));
    }
}
