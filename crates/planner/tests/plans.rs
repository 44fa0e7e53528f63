//! Plans as text, checked in under `plans/`: a change of policy is read as a diff of these files.
//! `UPDATE_EXPECT=1 cargo test -p planner` rewrites them.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::expect_file;
use model::{
    ContainerId, Digest, HostCapacity, HostCondition, HostId, HostState, MemoryBytes, NanoCpus, PortProtocol, VolumeId,
};
use planner::{Demand, HostView, JoinedView, Snapshot, VolumeView, plan};

const GIB: u64 = 1 << 30;

fn host(n: u8) -> (HostId, HostView) {
    let id = format!("0190b0a0-0000-7000-8000-0000000000{n:02x}").parse().expect("a uuid");
    let view = HostView {
        name: format!("node-{n}"),
        condition: HostCondition::Ready,
        state: HostState::Active,
        capacity: HostCapacity {
            nano_cpus: NanoCpus(4_000_000_000),
            memory_bytes: MemoryBytes(8 * GIB),
            containers: 100,
        },
        reserved_nano_cpus: NanoCpus(0),
        reserved_memory: MemoryBytes(0),
        containers: 0,
        used_ports: BTreeSet::new(),
        runtimes: BTreeSet::from(["runc".to_owned()]),
        local_images: BTreeSet::new(),
    };
    (id, view)
}

fn demand(n: u8, memory: u64) -> Demand {
    Demand {
        container: ContainerId::from_bytes([n; 32]),
        project: "0190b0a0-0000-7000-9000-000000000001".parse().expect("a uuid"),
        nano_cpus: NanoCpus(0),
        memory: MemoryBytes(memory),
        ports: BTreeSet::new(),
        port_ranges: Vec::new(),
        image: None,
        volumes: BTreeSet::new(),
        runtime: None,
        joins: Vec::new(),
    }
}

fn render(hosts: impl IntoIterator<Item = (HostId, HostView)>, unplaced: Vec<Demand>) -> String {
    render_with(hosts, unplaced, BTreeMap::new())
}

fn render_with(
    hosts: impl IntoIterator<Item = (HostId, HostView)>,
    unplaced: Vec<Demand>,
    volumes: BTreeMap<VolumeId, VolumeView>,
) -> String {
    let snapshot = Snapshot { epoch: 7, hosts: hosts.into_iter().collect::<BTreeMap<_, _>>(), unplaced, volumes };
    plan(&snapshot).render(&snapshot)
}

#[test]
fn unlimited_containers_spread_evenly_over_equal_hosts() {
    let text = render((1..=3).map(host), (1..=9).map(|n| demand(n, 0)).collect());
    expect_file!["plans/spread_unlimited.txt"].assert_eq(&text);
}

#[test]
fn reserved_memory_weighs_more_than_the_number_of_containers() {
    let (id, mut busy) = host(1);
    busy.reserved_memory = MemoryBytes(6 * GIB);
    let (other, mut crowded) = host(2);
    crowded.containers = 20;
    let text = render([(id, busy), (other, crowded)], (1..=3).map(|n| demand(n, 2 * GIB)).collect());
    expect_file!["plans/spread_by_memory.txt"].assert_eq(&text);
}

#[test]
fn a_big_host_takes_more_than_a_small_one() {
    let (id, mut small) = host(1);
    small.capacity.memory_bytes = MemoryBytes(2 * GIB);
    let text = render([(id, small), host(2)], (1..=5).map(|n| demand(n, GIB)).collect());
    expect_file!["plans/spread_by_fraction.txt"].assert_eq(&text);
}

#[test]
fn every_reason_is_told_with_its_count() {
    let mut hosts: Vec<_> = (1..=6).map(host).collect();
    hosts[0].1.condition = HostCondition::Down;
    hosts[1].1.state = HostState::Paused;
    hosts[2].1.containers = 100;
    hosts[3].1.reserved_memory = MemoryBytes(8 * GIB);
    hosts[4].1.reserved_memory = MemoryBytes(7 * GIB);
    hosts[5].1.reserved_nano_cpus = NanoCpus(4_000_000_000);
    let wanted = Demand { nano_cpus: NanoCpus(1), ..demand(1, 2 * GIB) };
    let nowhere = render([], vec![demand(2, 0)]);
    let text = render(hosts, vec![wanted]) + &nowhere;
    expect_file!["plans/explained.txt"].assert_eq(&text);
}

#[test]
fn containers_that_want_the_same_port_are_kept_apart_while_there_are_hosts() {
    let (id, mut taken) = host(1);
    taken.used_ports.insert((PortProtocol::Tcp, 8080));
    let wanted = |n| Demand { ports: BTreeSet::from([(PortProtocol::Tcp, 8080)]), ..demand(n, 0) };
    let text = render([(id, taken), host(2), host(3)], vec![wanted(1), wanted(2), wanted(3)]);
    expect_file!["plans/ports.txt"].assert_eq(&text);
}

#[test]
fn between_equal_hosts_the_one_that_has_the_image_wins() {
    let image = Digest::sha256([9; 32]);
    let mut hosts: Vec<_> = (1..=4).map(host).collect();
    hosts[2].1.local_images.insert(image.clone());
    let wanted = |n| Demand { image: Some(image.clone()), ..demand(n, 0) };
    let text = render(hosts, (1..=2).map(wanted).collect());
    expect_file!["plans/image_locality.txt"].assert_eq(&text);
}

fn volume(n: u8, host: Option<HostId>) -> (VolumeId, VolumeView) {
    (VolumeId::from_bytes([n; 32]), VolumeView { name: format!("data-{n}"), host })
}

fn uses(volumes: &[u8], demand: Demand) -> Demand {
    Demand { volumes: volumes.iter().map(|n| VolumeId::from_bytes([*n; 32])).collect(), ..demand }
}

#[test]
fn a_volume_binds_its_containers_to_its_host_and_a_fresh_one_goes_where_its_first_container_goes() {
    let (busy, mut view) = host(3);
    view.reserved_memory = MemoryBytes(6 * GIB);
    let volumes = BTreeMap::from([volume(1, Some(busy)), volume(2, None)]);
    let demands = vec![
        uses(&[1], demand(1, GIB)),
        // Two at once that share a fresh volume, and one that joins it to the bound one.
        uses(&[2], demand(2, 0)),
        uses(&[2], demand(3, 0)),
        uses(&[1, 2], demand(4, 0)),
        uses(&[1], demand(5, 2 * GIB)),
    ];
    let text = render_with([host(1), host(2), (busy, view)], demands, volumes);
    expect_file!["plans/volumes.txt"].assert_eq(&text);
}

#[test]
fn why_a_bound_container_cannot_be_placed_names_its_volumes_and_no_host() {
    let (gone, mut view) = host(1);
    view.condition = HostCondition::Down;
    let volumes = BTreeMap::from([volume(1, Some(gone)), volume(2, Some(host(2).0)), volume(3, Some(gone))]);
    let demands = vec![uses(&[1], demand(1, 0)), uses(&[1, 3], demand(2, 0)), uses(&[1, 2], demand(3, 0))];
    let text = render_with([(gone, view), host(2), host(3)], demands, volumes);
    expect_file!["plans/volumes_explained.txt"].assert_eq(&text);
}

#[test]
fn a_container_goes_where_its_runtime_is_or_says_who_lacks_it() {
    let wanted = |runtime: &str| Demand { runtime: Some(runtime.into()), ..demand(1, 0) };
    let with = |n: u8, runtime: &str| {
        let (id, view) = host(n);
        (id, HostView { runtimes: BTreeSet::from(["runc".to_owned(), runtime.to_owned()]), ..view })
    };
    let hosts = || [host(1), with(2, "crun"), host(3)];
    assert!(render(hosts(), vec![wanted("crun")]).contains("-> node-2"));
    let text = render(hosts(), vec![wanted("runsc")]);
    assert!(text.contains("no suitable host (3 hosts lack the runtime)"), "{text}");
}

#[test]
fn a_container_goes_to_the_host_of_the_one_that_it_joins_or_says_so() {
    let joins =
        |n: u8, host: Option<HostId>| Demand { joins: vec![JoinedView { name: "web".into(), host }], ..demand(n, 0) };
    let (there, mut view) = host(2);
    view.reserved_memory = MemoryBytes(6 * GIB);
    let gone = HostView { condition: HostCondition::Down, ..view.clone() };
    let hosts = || [host(1), (there, view.clone()), host(3)];
    assert!(render(hosts(), vec![joins(1, Some(there))]).contains("-> node-2"), "though others have more room");
    let nowhere = render(hosts(), vec![joins(1, None)]);
    assert!(nowhere.contains("(3 hosts do not have container web, which it joins)"), "{nowhere}");
    let down = render([host(1), (there, gone)], vec![joins(1, Some(there))]);
    assert!(down.contains("(1 host is down; 1 host does not have container web, which it joins)"), "{down}");
    let apart = uses(&[1], joins(1, Some(there)));
    let text = render_with(hosts(), vec![apart], BTreeMap::from([volume(1, Some(host(3).0))]));
    let why = "volume data-1 and container web, which it joins, are on different hosts";
    assert!(text.contains(why), "{text}");
    let mut two = joins(1, Some(there));
    two.joins.push(JoinedView { name: "db".into(), host: Some(there) });
    assert!(render(hosts(), vec![two.clone()]).contains("-> node-2"));
    two.joins.push(JoinedView { name: "far".into(), host: Some(host(3).0) });
    let text = render(hosts(), vec![two]);
    assert!(text.contains("(containers db, far, web, which it joins, are on different hosts"), "{text}");
}

#[test]
fn a_container_goes_where_a_port_of_its_range_is_free() {
    let (full, mut view) = host(1);
    view.used_ports.extend([(PortProtocol::Tcp, 8000), (PortProtocol::Tcp, 8001)]);
    let (busy, mut other) = host(2);
    other.used_ports.insert((PortProtocol::Tcp, 8000));
    other.reserved_memory = MemoryBytes(6 * GIB);
    let hosts = || [(full, view.clone()), (busy, other.clone())];
    let wants = |n, ranges: &[(u16, u16)]| Demand {
        port_ranges: ranges.iter().map(|(from, to)| (PortProtocol::Tcp, *from, *to)).collect(),
        ..demand(n, 0)
    };
    let one = [(8000, 8001)];
    assert!(render(hosts(), vec![wants(1, &one)]).contains("-> node-2"), "though the other one has more room");
    let third = render([(full, view.clone()), (busy, other.clone()), host(3)], vec![wants(1, &[(8000, 8001); 2])]);
    assert!(third.contains("-> node-3"), "two ports of one range are two ports: {third}");
    let both = render(hosts(), vec![wants(1, &one), wants(2, &one)]);
    assert_eq!(both.matches("-> node-2").count(), 1, "what is free is counted once: {both}");
}
