//! What plans compile to. The rulesets in `tests/rulesets` are whole nft scripts, as netd loads
//! them: read those to review the firewall. `UPDATE_EXPECT=1` writes them anew.

use std::{collections::BTreeMap, path::PathBuf};

use contract::net::{NetAttachment, NetEndpoint, NetNetwork, NetPlan};
use expect_test::expect_file;
use model::{ContainerId, MacAddress, NetworkId, PortProtocol, PublishedPort};
use netd::compile::{Desired, HostConfig, PortKey, compile, wanted_ports};

fn host() -> HostConfig {
    HostConfig {
        address: "10.200.0.1".parse().expect("an address"),
        vxlan_port: 4789,
        protected: ["10.200.0.0/24", "10.128.0.0/10", "10.130.0.0/16", "fd00::/8"]
            .map(|p| p.parse().expect("a prefix"))
            .to_vec(),
        underlay_mtu: 1500,
        routed: vec!["172.20.0.0/16".parse().expect("a prefix")],
    }
}

fn network(n: u8, peers: &[&str]) -> NetNetwork {
    let peers = peers.iter().map(|p| p.parse().expect("an address")).collect();
    let subnet = format!("10.128.{n}.0/24").parse().expect("a subnet");
    NetNetwork {
        id: NetworkId::from_bytes([n; 32]),
        vni: u32::from(n),
        subnet,
        gateway: None,
        internal: false,
        peers,
        names: None,
    }
}

fn endpoint(n: u8, on: u8) -> NetEndpoint {
    let ip = format!("10.128.{on}.{n}").parse().expect("an address");
    let attachments = vec![NetAttachment {
        network: NetworkId::from_bytes([on; 32]),
        ip,
        interface: 0,
        mac: None,
        links: BTreeMap::new(),
    }];
    NetEndpoint {
        container: ContainerId::from_bytes([n; 32]),
        attachments,
        ports: Vec::new(),
        resolvers: Vec::new(),
        owner: None,
    }
}

fn port(host_ip: Option<&str>, host_port: u16, container_port: u16, protocol: PortProtocol) -> PublishedPort {
    PublishedPort { container_port, protocol, host_ip: host_ip.map(|ip| ip.parse().expect("an address")), host_port }
}

fn plan(networks: Vec<NetNetwork>, endpoints: Vec<NetEndpoint>) -> NetPlan {
    NetPlan {
        networks: networks.into_iter().map(|n| (n.id.to_string(), n)).collect(),
        endpoints: endpoints.into_iter().map(|e| (e.container.to_string(), e)).collect(),
    }
}

fn compiled(plan: &NetPlan) -> Desired {
    compile(plan, &host(), &BTreeMap::new())
}

fn ruleset(name: &str, desired: &Desired) {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "rulesets", name].iter().collect();
    expect_file![path].assert_eq(&desired.firewall.script());
}

#[test]
fn an_empty_plan_has_the_rules_already() {
    let desired = compile(&NetPlan::default(), &HostConfig { protected: Vec::new(), ..host() }, &BTreeMap::new());
    assert!(desired.bridges.is_empty() && desired.refused.is_empty());
    ruleset("empty.nft", &desired);
}

#[test]
fn one_host_with_published_ports() {
    let mut web = endpoint(2, 1);
    web.ports = vec![
        port(None, 8080, 80, PortProtocol::Tcp),
        port(Some("0.0.0.0"), 8053, 53, PortProtocol::Udp),
        port(Some("127.0.0.1"), 9090, 90, PortProtocol::Tcp),
    ];
    let desired = compiled(&plan(vec![network(1, &[]), network(2, &[])], vec![web, endpoint(3, 2)]));
    assert_eq!(desired.refused, BTreeMap::new());
    assert_eq!(desired.tunnels.len(), 0);
    assert_eq!(desired.bridges[&1].mtu, 1500);
    assert_eq!(desired.bridges[&1].gateway.to_string(), "10.128.1.1/24");
    ruleset("published.nft", &desired);
}

#[test]
fn several_hosts_get_tunnels_and_only_their_peers_are_heard() {
    let networks = vec![network(1, &["10.200.0.2", "10.200.0.1"]), network(2, &["10.200.0.3", "10.200.0.2"])];
    let desired = compiled(&plan(networks, vec![endpoint(2, 1), endpoint(3, 2)]));
    assert_eq!(desired.refused, BTreeMap::new());
    assert_eq!(desired.tunnels[&1].peers.len(), 1, "a host is not its own peer");
    assert_eq!(desired.tunnels[&2].peers.len(), 2);
    assert_eq!(desired.bridges[&1].mtu, 1450);
    let veth = desired.sandboxes.values().next().and_then(|s| s.veths.get(&0).copied()).expect("a veth");
    assert_eq!(veth.mtu, 1450);
    ruleset("peers.nft", &desired);
}

#[test]
fn a_network_or_container_more_changes_no_rule() {
    let few = compiled(&plan(vec![network(1, &[])], vec![endpoint(2, 1)]));
    let many = compiled(&plan(vec![network(1, &[]), network(2, &[])], vec![endpoint(2, 1), endpoint(3, 2)]));
    assert_eq!(few.firewall, many.firewall);
}

#[test]
fn the_gateway_has_the_same_mac_on_every_host_and_no_containers() {
    let here = compiled(&plan(vec![network(1, &[])], vec![endpoint(2, 1)]));
    let there = HostConfig { address: "10.200.0.9".parse().expect("an address"), ..host() };
    let there = compile(&plan(vec![network(1, &[])], vec![]), &there, &BTreeMap::new());
    assert_eq!(here.bridges[&1].mac, there.bridges[&1].mac);
    assert_ne!(here.bridges[&1].mac, MacAddress::of(here.bridges[&1].gateway.addr()));
}

/// The one refusal for an id.
fn refusal(desired: &Desired, n: u8) -> &str {
    desired.refused.get(NetworkId::from_bytes([n; 32]).as_str()).map_or("", String::as_str)
}

#[test]
fn a_network_that_cannot_be_is_refused_with_its_endpoints_and_the_rest_is_made() {
    let twice = NetNetwork { vni: 1, ..network(2, &[]) };
    let wide = NetNetwork { subnet: "10.128.0.0/16".parse().expect("a subnet"), ..network(3, &[]) };
    let own = NetNetwork { subnet: "10.200.0.0/24".parse().expect("a subnet"), ..network(4, &[]) };
    let zero = NetNetwork { vni: 0, ..network(5, &[]) };
    let tiny = NetNetwork { subnet: "10.128.6.0/31".parse().expect("a subnet"), ..network(6, &[]) };
    let meta = NetNetwork { subnet: "169.254.169.0/24".parse().expect("a subnet"), ..network(7, &[]) };
    let networks = vec![network(1, &[]), twice, wide, own, zero, tiny, meta];
    let desired = compiled(&plan(networks, vec![endpoint(9, 1), endpoint(10, 2), endpoint(11, 8)]));
    assert_eq!(desired.bridges.keys().collect::<Vec<_>>(), [&1]);
    assert_eq!(refusal(&desired, 2), "vni 1 is used twice");
    assert!(refusal(&desired, 3).contains("overlaps"), "{}", refusal(&desired, 3));
    assert!(refusal(&desired, 4).contains("host's own address"));
    assert!(refusal(&desired, 5).contains("vni 0"));
    assert!(refusal(&desired, 6).contains("no room"));
    assert!(refusal(&desired, 7).contains("not for containers"));
    assert!(refusal(&desired, 10).contains("not in the plan or could not be made"));
    assert!(refusal(&desired, 11).contains("not in the plan"));
    assert_eq!(desired.sandboxes.len(), 1);
}

#[test]
fn addresses_that_are_not_a_containers_are_refused() {
    let at = |n: u8, ip: &str| {
        let mut e = endpoint(n, 1);
        e.attachments[0].ip = ip.parse().expect("an address");
        e
    };
    let endpoints = vec![
        at(2, "10.128.1.1"),
        at(3, "10.128.1.0"),
        at(4, "10.128.1.255"),
        at(5, "10.128.2.7"),
        at(6, "10.128.1.7"),
        at(7, "10.128.1.7"),
    ];
    let desired = compiled(&plan(vec![network(1, &[])], endpoints));
    assert!(refusal(&desired, 2).contains("gateway"));
    for n in [3, 4, 5] {
        assert!(refusal(&desired, n).contains("is not one of"), "{n}");
    }
    assert_eq!(refusal(&desired, 6), "");
    assert!(refusal(&desired, 7).contains("held by another"));
}

#[test]
fn a_port_goes_to_one_container_and_never_over_a_service_of_the_host() {
    let (mut a, mut b) = (endpoint(2, 1), endpoint(3, 1));
    a.ports = vec![port(None, 80, 8080, PortProtocol::Tcp), port(None, 22, 22, PortProtocol::Tcp)];
    b.ports = vec![port(None, 80, 8080, PortProtocol::Tcp), port(Some("fd00::1"), 81, 81, PortProtocol::Tcp)];
    let plan = plan(vec![network(1, &[])], vec![a, b]);
    let ssh = PortKey { address: None, protocol: PortProtocol::Tcp, port: 22 };
    assert!(wanted_ports(&plan).contains(&ssh));
    let desired = compile(&plan, &host(), &BTreeMap::from([(ssh, "port is already allocated".to_owned())]));
    assert_eq!(refusal(&desired, 2), "Bind for 0.0.0.0:22/tcp failed: port is already allocated");
    assert_eq!(refusal(&desired, 3), "Bind for 0.0.0.0:80/tcp failed: port is already allocated");
    assert_eq!(desired.firewall.published.len(), 1);
    assert_eq!(desired.sandboxes.len(), 2, "a port refused costs the port only");
}

#[test]
fn an_endpoint_without_a_network_is_a_sandbox_with_lo_alone() {
    let mut none = endpoint(2, 1);
    none.attachments.clear();
    none.ports = vec![port(None, 80, 80, PortProtocol::Tcp)];
    let desired = compiled(&plan(vec![], vec![none]));
    assert_eq!(desired.sandboxes.values().map(|s| s.veths.len()).collect::<Vec<_>>(), [0]);
    assert!(desired.firewall.published.is_empty());
}

/// On several networks, in the order they are preferred in.
fn endpoint_on(n: u8, on: &[u8]) -> NetEndpoint {
    let mut all = endpoint(n, 1);
    all.attachments = on.iter().flat_map(|on| endpoint(n, *on).attachments).collect();
    for (attachment, interface) in all.attachments.iter_mut().zip(0..) {
        attachment.interface = interface;
    }
    all
}

#[test]
fn a_container_on_several_networks_goes_out_by_the_first_that_leads_outside() {
    let mut inner = network(1, &[]);
    inner.internal = true;
    let mut both = endpoint_on(2, &[1, 3, 4]);
    both.ports = vec![port(None, 80, 8080, PortProtocol::Tcp)];
    let desired = compiled(&plan(vec![inner, network(3, &[]), network(4, &[])], vec![both]));
    assert!(desired.refused.is_empty(), "{:?}", desired.refused);
    let sandbox = desired.sandboxes.values().next().expect("made");
    assert_eq!(
        sandbox.veths.iter().map(|(n, v)| (*n, v.vni, v.default_route)).collect::<Vec<_>>(),
        [(0, 1, false), (1, 3, true), (2, 4, false)]
    );
    let target = desired.firewall.published.values().next().expect("published");
    assert_eq!(target.address.to_string(), "10.128.3.2", "ports arrive where its answers leave");
    assert_eq!(desired.bridges[&1].name(), "wbi1");
}

#[test]
fn whoever_is_on_internal_networks_alone_has_no_way_out_and_no_port() {
    let mut inner = network(1, &["10.200.0.2"]);
    inner.internal = true;
    let mut only = endpoint(2, 1);
    only.ports = vec![port(None, 80, 8080, PortProtocol::Tcp)];
    let desired = compiled(&plan(vec![inner], vec![only]));
    assert!(desired.sandboxes.values().all(|s| s.way_out().is_none()));
    assert!(desired.firewall.published.is_empty());
    assert!(desired.tunnels[&1].internal, "the tunnel finds its bridge");
}

#[test]
fn a_tenants_subnet_is_kept_away_from_what_is_around_the_host() {
    let mut taken = network(1, &[]);
    taken.subnet = "172.20.4.0/24".parse().expect("a subnet");
    let mut own = network(2, &[]);
    own.subnet = "172.28.0.0/16".parse().expect("a subnet");
    own.gateway = Some("172.28.5.254".parse().expect("an address"));
    let mut outside = network(3, &[]);
    outside.gateway = Some("10.128.4.1".parse().expect("an address"));
    let ids = [&taken, &outside].map(|n| n.id.to_string());
    let desired = compiled(&plan(vec![taken, own, outside], vec![]));
    assert!(desired.refused[&ids[0]].contains("in use around this host"), "{:?}", desired.refused);
    assert!(desired.refused[&ids[1]].contains("is not an address of"), "{:?}", desired.refused);
    assert_eq!(desired.bridges[&2].gateway.to_string(), "172.28.5.254/16");
}

#[test]
fn a_link_number_or_network_is_taken_once() {
    let mut twice = endpoint_on(2, &[1, 1]);
    let desired = compiled(&plan(vec![network(1, &[])], vec![twice.clone()]));
    assert!(refusal(&desired, 2).contains("held by another container"), "{}", refusal(&desired, 2));
    twice.attachments[1] = endpoint(2, 3).attachments[0].clone();
    let desired = compiled(&plan(vec![network(1, &[]), network(3, &[])], vec![twice]));
    assert!(refusal(&desired, 2).contains("link number 0"), "{}", refusal(&desired, 2));
}

#[test]
fn a_link_has_the_mac_address_that_was_chosen_unless_it_is_the_gateways_or_a_groups() {
    let on = |mac: &str| {
        let mut one = endpoint(2, 1);
        one.attachments[0].mac = Some(mac.parse().expect("an address"));
        compiled(&plan(vec![network(1, &[])], vec![one]))
    };
    let chosen = on("02:42:ac:11:00:0a");
    let sandbox = chosen.sandboxes.values().next().expect("made");
    assert_eq!(sandbox.veths[&0].mac.to_string(), "02:42:ac:11:00:0a");
    let gateways = chosen.bridges[&1].mac.to_string();
    for bad in [gateways.as_str(), "01:00:5e:00:00:01", "00:00:00:00:00:00"] {
        let refused = on(bad).refused;
        assert!(refused.values().any(|why| why.contains(bad)), "{refused:?}");
    }
}
