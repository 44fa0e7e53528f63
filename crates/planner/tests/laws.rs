//! The laws every plan obeys, on arbitrary fleets and demands.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    ContainerId, HostCapacity, HostCondition, HostId, HostState, MemoryBytes, NanoCpus, PortProtocol, ProjectId,
    VolumeId,
};
use planner::{Demand, HostView, Plan, Snapshot, VolumeView, plan};
use proptest::prelude::*;

fn host_id(n: u8) -> HostId {
    format!("0190b0a0-0000-7000-8000-0000000000{n:02x}").parse().expect("a uuid")
}

fn volume_id(n: u8) -> VolumeId {
    VolumeId::from_bytes([n; 32])
}

fn project() -> ProjectId {
    "0190b0a0-0000-7000-9000-000000000001".parse().expect("a uuid")
}

fn ports() -> impl Strategy<Value = BTreeSet<(PortProtocol, u16)>> {
    prop::collection::btree_set((Just(PortProtocol::Tcp), 8080..8083_u16), 0..2)
}

fn host() -> impl Strategy<Value = HostView> {
    let capacity = (0..20_u64, 0..20_u64, 0..6_u32);
    (prop::bool::weighted(0.8), prop::bool::weighted(0.8), capacity, 0..20_u64, 0..20_u64, 0..6_u32, ports()).prop_map(
        |(ready, active, (cpu, memory, room), reserved_cpu, reserved_memory, containers, used_ports)| HostView {
            name: "h".into(),
            condition: if ready { HostCondition::Ready } else { HostCondition::Down },
            state: if active { HostState::Active } else { HostState::Paused },
            capacity: HostCapacity { nano_cpus: NanoCpus(cpu), memory_bytes: MemoryBytes(memory), containers: room },
            reserved_nano_cpus: NanoCpus(reserved_cpu),
            reserved_memory: MemoryBytes(reserved_memory),
            containers,
            used_ports,
            runtimes: BTreeSet::new(),
            local_images: BTreeSet::new(),
        },
    )
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let hosts = prop::collection::btree_map((0..40_u8).prop_map(host_id), host(), 0..6);
    let used = prop::collection::btree_set((0..6_u8).prop_map(volume_id), 0..3);
    let demands = prop::collection::vec((0..8_u64, 0..8_u64, ports(), used), 0..12);
    let places = prop::collection::vec(prop::option::of((0..40_u8).prop_map(host_id)), 6);
    (0..100_i64, hosts, demands, places).prop_map(|(epoch, hosts, demands, places)| {
        let unplaced = demands.into_iter().enumerate().map(|(index, (cpu, memory, ports, volumes))| Demand {
            container: ContainerId::from_bytes([u8::try_from(index).expect("at most 12"); 32]),
            project: project(),
            nano_cpus: NanoCpus(cpu),
            memory: MemoryBytes(memory),
            ports,
            image: None,
            volumes,
            runtime: None,
            joins: Vec::new(),
            port_ranges: Vec::new(),
        });
        let volumes = (0..).zip(places).map(|(n, host)| (volume_id(n), VolumeView { name: format!("v{n}"), host }));
        Snapshot { epoch, hosts, unplaced: unplaced.collect(), volumes: volumes.collect() }
    })
}

/// What the plan adds to each host: CPU, memory, containers.
fn added(snapshot: &Snapshot, plan: &Plan) -> BTreeMap<HostId, (u64, u64, u32)> {
    let mut added = BTreeMap::<HostId, (u64, u64, u32)>::new();
    for step in &plan.steps {
        let demand = snapshot.unplaced.iter().find(|d| d.container == step.container).expect("placed what was asked");
        let entry = added.entry(step.host).or_default();
        *entry = (entry.0 + demand.nano_cpus.0, entry.1 + demand.memory.0, entry.2 + 1);
    }
    added
}

proptest! {
    #[test]
    fn the_same_snapshot_gives_the_same_plan(snapshot in snapshot()) {
        prop_assert_eq!(plan(&snapshot), plan(&snapshot.clone()));
    }

    #[test]
    fn a_plan_that_was_applied_leaves_nothing_to_do(snapshot in snapshot()) {
        let first = plan(&snapshot);
        let second = plan(&snapshot.after(&first));
        prop_assert_eq!(second.steps, vec![]);
        prop_assert_eq!(second.unplaced.len(), first.unplaced.len());
    }

    #[test]
    fn no_plan_takes_a_host_over_its_capacity(snapshot in snapshot()) {
        for (host, (cpu, memory, containers)) in added(&snapshot, &plan(&snapshot)) {
            let view = &snapshot.hosts[&host];
            prop_assert!(view.condition == HostCondition::Ready && view.state == HostState::Active);
            prop_assert!(view.containers + containers <= view.capacity.containers);
            // A host that had promised too much already may only take what reserves nothing.
            prop_assert!(cpu == 0 || view.reserved_nano_cpus.0 + cpu <= view.capacity.nano_cpus.0);
            prop_assert!(memory == 0 || view.reserved_memory.0 + memory <= view.capacity.memory_bytes.0);
        }
    }

    #[test]
    fn every_container_is_placed_or_explained_and_only_once(snapshot in snapshot()) {
        let plan = plan(&snapshot);
        let mut seen: Vec<_> = plan.steps.iter().map(|s| &s.container).chain(plan.unplaced.iter().map(|u| &u.0)).collect();
        seen.sort();
        let mut asked: Vec<_> = snapshot.unplaced.iter().map(|d| &d.container).collect();
        asked.sort();
        prop_assert_eq!(seen, asked);
        for (_, explanation) in &plan.unplaced {
            let text = explanation.to_string();
            prop_assert!(text.starts_with("no suitable host (") && text.ends_with(')'), "{}", text);
        }
    }

    #[test]
    fn everything_that_uses_a_volume_is_on_one_host(snapshot in snapshot()) {
        let mut places: BTreeMap<_, _> =
            snapshot.volumes.iter().filter_map(|(id, volume)| Some((id.clone(), volume.host?))).collect();
        for step in &plan(&snapshot).steps {
            let demand = snapshot.unplaced.iter().find(|d| d.container == step.container).expect("asked for");
            for volume in &demand.volumes {
                prop_assert_eq!(*places.entry(volume.clone()).or_insert(step.host), step.host);
            }
        }
    }

    #[test]
    fn a_host_that_joins_moves_nobody(snapshot in snapshot(), newcomer in host()) {
        let first = plan(&snapshot);
        let mut grown = snapshot.after(&first);
        grown.hosts.insert(host_id(200), newcomer);
        let second = plan(&grown);
        for step in &second.steps {
            prop_assert!(first.unplaced.iter().any(|(container, _)| *container == step.container));
            prop_assert_eq!(step.host, host_id(200));
        }
    }
}
