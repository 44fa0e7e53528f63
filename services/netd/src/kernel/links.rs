//! Bridges and tunnels: made once per network and host, set right when they are not.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr},
};

use rtnetlink::{
    AddressMessageBuilder, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVxlan,
    packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridge, InfoPortKind, LinkAttribute},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    },
};

use super::{
    error::{KernelError, Result},
    netlink::{Netlink, Request},
    observe, sysctl,
};
use crate::compile::{Bridge, LINK_MARK, Tunnel, bridge_name};

/// What a link that stands by itself is marked with when complete.
pub(super) const ALIAS: &str = "wharfage";
/// The forwarding entry of a tunnel for broadcast and unknown addresses.
const ANY_MAC: [u8; 6] = [0; 6];
/// `lo` is the first link of every namespace.
const LO: u32 = 1;

pub(super) fn bridge(netlink: &mut Netlink, bridge: &Bridge) -> Result<()> {
    let name = bridge.name();
    let link = LinkBridge::new(&name)
        .append_info_data(InfoBridge::MulticastSnooping(false))
        .forward_delay(0)
        .address(bridge.mac.0.to_vec())
        .append_extra_attribute(LinkAttribute::Group(LINK_MARK))
        .build();
    let index = make(netlink, &name, link)?;
    quiet_ipv6(&name)?;
    // A published port dialled at 127.0.0.1 leaves by this bridge with that source.
    sysctl::set(&format!("net/ipv4/conf/{name}/route_localnet"), "1")?;
    // It answers for its own gateway, not for those of other networks.
    sysctl::set(&format!("net/ipv4/conf/{name}/arp_ignore"), "1")?;
    let mut requests = Vec::new();
    for wrong in observe::addresses(netlink, index)?.into_iter().filter(|a| *a != bridge.gateway) {
        let address =
            AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(wrong.addr(), wrong.prefix_len()).build();
        requests.push(Request::change("removing an address", RouteNetlinkMessage::DelAddress(address)));
    }
    let gateway = AddressMessageBuilder::<Ipv4Addr>::new()
        .index(index)
        .address(bridge.gateway.addr(), bridge.gateway.prefix_len())
        .build();
    let set = LinkMessageBuilder::<LinkUnspec>::default()
        .index(index)
        .address(bridge.mac.0.to_vec())
        .mtu(bridge.mtu)
        .up()
        .append_extra_attribute(LinkAttribute::IfAlias(ALIAS.to_owned()))
        .build();
    requests.push(Request::with_flags(
        "adding the gateway's address",
        RouteNetlinkMessage::NewAddress(gateway),
        NLM_F_CREATE | NLM_F_REPLACE,
    ));
    requests.push(Request::change("bringing up the bridge", RouteNetlinkMessage::SetLink(set)));
    netlink.run(requests)
}

pub(super) fn tunnel(netlink: &mut Netlink, tunnel: &Tunnel) -> Result<()> {
    let name = tunnel.name();
    let bridge = netlink.index(&bridge_name(tunnel.vni, tunnel.internal))?;
    let link = LinkVxlan::new(&name, tunnel.vni).port(tunnel.port).learning(true);
    let link = match tunnel.local {
        IpAddr::V4(local) => link.local(local),
        IpAddr::V6(local) => link.local6(local),
    };
    let link = link.mtu(tunnel.mtu).append_extra_attribute(LinkAttribute::Group(LINK_MARK)).build();
    let index = make(netlink, &name, link)?;
    quiet_ipv6(&name)?;
    let attach = LinkMessageBuilder::<LinkUnspec>::default().index(index).controller(bridge).mtu(tunnel.mtu).build();
    // Requests for what this host answers itself, the gateway above all, do not go into the tunnel.
    let port = LinkBridgePort::new(index).neigh_suppress(true).build();
    let mut requests = vec![
        Request::change("attaching the tunnel", RouteNetlinkMessage::SetLink(attach)),
        Request::change("setting up the tunnel's bridge port", RouteNetlinkMessage::NewLink(port)),
    ];
    requests.extend(flood_list(index, &observe::flood_list(netlink, index)?, &tunnel.peers));
    let up = LinkMessageBuilder::<LinkUnspec>::default()
        .index(index)
        .up()
        .append_extra_attribute(LinkAttribute::IfAlias(ALIAS.to_owned()))
        .build();
    requests.push(Request::change("bringing up the tunnel", RouteNetlinkMessage::SetLink(up)));
    netlink.run(requests)
}

fn flood_list(index: u32, seen: &BTreeSet<IpAddr>, peers: &BTreeSet<IpAddr>) -> Vec<Request> {
    let entry = |peer: &IpAddr| {
        let mut entry = NeighbourMessage::default();
        entry.header.family = AddressFamily::Bridge;
        entry.header.ifindex = index;
        entry.header.state = NeighbourState::Permanent;
        entry.header.flags = NeighbourFlags::Own;
        entry.attributes.push(NeighbourAttribute::LinkLayerAddress(ANY_MAC.to_vec()));
        entry.attributes.push(NeighbourAttribute::Destination(match peer {
            IpAddr::V4(peer) => NeighbourAddress::Inet(*peer),
            IpAddr::V6(peer) => NeighbourAddress::Inet6(*peer),
        }));
        entry
    };
    let add = peers.difference(seen).map(|peer| {
        let message = RouteNetlinkMessage::NewNeighbour(entry(peer));
        Request::with_flags("adding a peer to the tunnel", message, NLM_F_CREATE | NLM_F_APPEND)
    });
    let gone = seen
        .difference(peers)
        .map(|peer| Request::change("removing a peer from the tunnel", RouteNetlinkMessage::DelNeighbour(entry(peer))));
    add.chain(gone).collect()
}

/// Makes a link, or finds it made. A link of that name without our mark is somebody else's.
fn make(netlink: &mut Netlink, name: &str, link: rtnetlink::packet_route::link::LinkMessage) -> Result<u32> {
    match netlink.run_one(Request::create("making a link", RouteNetlinkMessage::NewLink(link))) {
        Ok(()) => netlink.index(name),
        Err(e) if e.is_exists() => {
            let there = netlink.link(name)?;
            match there.filter(observe::is_marked) {
                Some(link) => Ok(link.header.index),
                // Tunnels have another reason: a VXLAN device of that number, under another name.
                None => Err(KernelError::new(
                    format!("making {name}"),
                    io::Error::other("it, or a tunnel of its number, exists and was not made by netd"),
                )),
            }
        }
        Err(e) => Err(KernelError::new(format!("making {name}"), io::Error::other(e.to_string()))),
    }
}

/// Removes a link if it is there.
pub(super) fn remove(netlink: &mut Netlink, name: &str) -> Result<()> {
    let link = LinkMessageBuilder::<LinkUnspec>::default().name(name.to_owned()).build();
    match netlink.run_one(Request::change("removing a link", RouteNetlinkMessage::DelLink(link))) {
        Err(e) if e.is_absent() => Ok(()),
        done => done,
    }
}

pub(super) fn set_mtu(name: &str, mtu: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::SetLink(LinkMessageBuilder::<LinkUnspec>::default().name(name.to_owned()).mtu(mtu).build())
}

/// A message that keeps a link from giving itself an IPv6 address and talking about it.
pub(super) fn no_ipv6_address(name: &str) -> RouteNetlinkMessage {
    let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    let link = LinkMessageBuilder::<LinkUnspec>::default()
        .name(name.to_owned())
        .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![inet6]))
        .build();
    RouteNetlinkMessage::SetLink(link)
}

/// A message that lets a bridge send a frame back by the port it came from.
pub(super) fn hairpin(name: &str) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewLink(
        LinkMessageBuilder::<LinkBridgePort>::default()
            .name(name.to_owned())
            .set_port_kind(InfoPortKind::Bridge)
            .hairpin(true)
            .build(),
    )
}

/// Brings up `lo` of the namespace it is sent in.
pub(super) fn lo_up() -> Request {
    let lo = LinkMessageBuilder::<LinkUnspec>::default().index(LO).up().build();
    Request::change("bringing up lo", RouteNetlinkMessage::SetLink(lo))
}

fn quiet_ipv6(name: &str) -> Result<()> {
    sysctl::set_if_there(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1")?;
    sysctl::set_if_there(&format!("net/ipv6/conf/{name}/accept_ra"), "0")
}
