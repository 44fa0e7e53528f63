//! Networks and sandboxes of a plan: which can be made, and what of. One network's fault costs only
//! that network and its endpoints.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use contract::net::{NetAttachment, NetNetwork, NetPlan};
use ipnet::Ipv4Net;
use model::{ContainerId, MacAddress, NETWORKS_PER_CONTAINER, NetworkId};

use super::{Bridge, HostConfig, Sandbox, Tunnel, Veth, names};

/// Outer Ethernet, IP, UDP and VXLAN headers over IPv4.
const VXLAN_OVERHEAD_V4: u32 = 50;
/// The same over IPv6.
const VXLAN_OVERHEAD_V6: u32 = 70;
const VNI_MAX: u32 = (1 << 24) - 1;

/// A network that can be made.
pub(super) struct Network {
    pub(super) subnet: Ipv4Net,
    pub(super) bridge: Bridge,
    pub(super) tunnel: Option<Tunnel>,
}

pub(super) fn usable(
    plan: &NetPlan,
    host: &HostConfig,
    refused: &mut BTreeMap<String, String>,
) -> BTreeMap<NetworkId, Network> {
    let mut networks = BTreeMap::<NetworkId, Network>::new();
    let mut vnis = BTreeSet::new();
    // Two bridges over one range would split its traffic between them. Ranges are kept sorted by
    // their first address, so that only the neighbours need looking at.
    let mut ranges = BTreeMap::<Ipv4Addr, Ipv4Net>::new();
    for wanted in plan.networks.values() {
        let subnet = wanted.subnet.trunc();
        let fault = fault(wanted, host).or_else(|| {
            let before = ranges.range(..=subnet.network()).next_back().map(|(_, s)| *s);
            let after = ranges.range(subnet.network()..).next().map(|(_, s)| *s);
            let overlapping = [before, after].into_iter().flatten().find(|s| s.contains(&subnet) || subnet.contains(s));
            overlapping.map(|other| format!("subnet {subnet} overlaps {other}"))
        });
        let fault = fault.or_else(|| vnis.contains(&wanted.vni).then(|| format!("vni {} is used twice", wanted.vni)));
        if let Some(fault) = fault {
            refused.insert(wanted.id.to_string(), fault);
            continue;
        }
        vnis.insert(wanted.vni);
        ranges.insert(subnet.network(), subnet);
        networks.insert(wanted.id.clone(), network(wanted, subnet, host));
    }
    networks
}

fn fault(wanted: &NetNetwork, host: &HostConfig) -> Option<String> {
    let subnet = wanted.subnet.trunc();
    if wanted.vni == 0 || wanted.vni > VNI_MAX {
        return Some(format!("vni {} is outside 1..={VNI_MAX}", wanted.vni));
    }
    if subnet.prefix_len() > 30 || subnet.prefix_len() < 8 {
        return Some(format!("subnet {subnet} has no room for a gateway, or is far too large"));
    }
    if let Some(held) = host.routed.iter().find(|held| held.contains(&subnet) || subnet.contains(*held)) {
        return Some(format!("subnet {subnet} overlaps {held}, which is in use around this host"));
    }
    let gateway = gateway(wanted);
    if !subnet.contains(&gateway) || gateway == subnet.network() || gateway == subnet.broadcast() {
        return Some(format!("gateway {gateway} is not an address of {subnet}"));
    }
    let reserved = subnet.network();
    if reserved.is_loopback() || reserved.is_link_local() || reserved.is_multicast() || reserved.octets()[0] == 0 {
        return Some(format!("subnet {subnet} is not for containers"));
    }
    match host.address {
        IpAddr::V4(address) if subnet.contains(&address) => {
            Some(format!("subnet {subnet} contains the host's own address {address}"))
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

fn network(wanted: &NetNetwork, subnet: Ipv4Net, host: &HostConfig) -> Network {
    let gateway = gateway(wanted);
    let same_family = |peer: &IpAddr| peer.is_ipv4() == host.address.is_ipv4();
    let peers: BTreeSet<_> = wanted.peers.iter().filter(|p| same_family(p) && **p != host.address).copied().collect();
    let overhead = if host.address.is_ipv4() { VXLAN_OVERHEAD_V4 } else { VXLAN_OVERHEAD_V6 };
    let mtu = if peers.is_empty() { host.underlay_mtu } else { host.underlay_mtu.saturating_sub(overhead) }.max(576);
    let tunnel = (!peers.is_empty()).then_some(Tunnel {
        vni: wanted.vni,
        internal: wanted.internal,
        local: host.address,
        port: host.vxlan_port,
        mtu,
        peers,
    });
    let gateway_net = Ipv4Net::new(gateway, subnet.prefix_len()).expect("a subnet's prefix length is valid");
    let bridge = Bridge {
        vni: wanted.vni,
        internal: wanted.internal,
        gateway: gateway_net,
        mac: names::gateway_mac(gateway),
        mtu,
    };
    Network { subnet, bridge, tunnel }
}

fn gateway(wanted: &NetNetwork) -> Ipv4Addr {
    wanted.gateway.unwrap_or_else(|| Ipv4Addr::from(u32::from(wanted.subnet.network()) + 1))
}

pub(super) fn sandboxes(
    plan: &NetPlan,
    networks: &BTreeMap<NetworkId, Network>,
    refused: &mut BTreeMap<String, String>,
) -> BTreeMap<ContainerId, Sandbox> {
    let mut sandboxes = BTreeMap::new();
    let mut held = BTreeSet::<(u32, Ipv4Addr)>::new();
    for wanted in plan.endpoints.values() {
        match veths(&wanted.attachments, networks, &mut held) {
            Ok(veths) => {
                sandboxes.insert(
                    wanted.container.clone(),
                    Sandbox { container: wanted.container.clone(), owner: wanted.owner.clone(), veths },
                );
            }
            Err(fault) => {
                refused.insert(wanted.container.to_string(), fault);
            }
        }
    }
    sandboxes
}

/// The first that leads outside is the default route.
fn veths(
    wanted: &[NetAttachment],
    networks: &BTreeMap<NetworkId, Network>,
    held: &mut BTreeSet<(u32, Ipv4Addr)>,
) -> Result<BTreeMap<u8, Veth>, String> {
    let mut veths = BTreeMap::<u8, Veth>::new();
    for one in wanted {
        if one.interface >= NETWORKS_PER_CONTAINER || veths.contains_key(&one.interface) {
            return Err(format!("link number {} is taken or too high", one.interface));
        }
        let mut veth = veth(one, networks, held)?;
        if veths.values().any(|other| other.vni == veth.vni) {
            return Err(format!("it is on network {} twice", one.network.short()));
        }
        veth.default_route = !veth.internal && !veths.values().any(|other| other.default_route);
        veths.insert(one.interface, veth);
    }
    Ok(veths)
}

fn veth(
    wanted: &NetAttachment,
    networks: &BTreeMap<NetworkId, Network>,
    held: &mut BTreeSet<(u32, Ipv4Addr)>,
) -> Result<Veth, String> {
    let ip = wanted.ip;
    let network = networks
        .get(&wanted.network)
        .ok_or_else(|| format!("its network {} is not in the plan or could not be made", wanted.network.short()))?;
    let subnet = network.subnet;
    if !subnet.contains(&ip) || ip == subnet.network() || ip == subnet.broadcast() {
        return Err(format!("address {ip} is not one of {subnet}"));
    }
    if ip == network.bridge.gateway.addr() {
        return Err(format!("address {ip} is the gateway's"));
    }
    if let Some(mac) = wanted.mac.filter(|mac| !mac.is_of_a_link() || *mac == network.bridge.mac) {
        return Err(format!("MAC address {mac} is not one for a container"));
    }
    if !held.insert((network.bridge.vni, ip)) {
        return Err(format!("address {ip} is held by another container"));
    }
    Ok(Veth {
        vni: network.bridge.vni,
        internal: network.bridge.internal,
        default_route: false,
        address: Ipv4Net::new(ip, subnet.prefix_len()).expect("a subnet's prefix length is valid"),
        gateway: network.bridge.gateway.addr(),
        mac: wanted.mac.unwrap_or_else(|| MacAddress::of(ip)),
        mtu: network.bridge.mtu,
    })
}
