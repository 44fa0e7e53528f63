//! What the kernel has of ours, read back. Ours is what was born with our link group and has one of
//! our names; whole is what also has our alias.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use ipnet::Ipv4Net;
use model::{ContainerId, MacAddress};
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{InfoData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage},
};

use super::{error::Result, links::ALIAS, netlink::Netlink, netns, sandbox::DEFAULT_ROUTE};
use crate::{
    compile::{BRIDGE_PREFIX, INTERNAL_BRIDGE_PREFIX, LINK_MARK, TUNNEL_PREFIX, VETH_PREFIX},
    diff::{Observed, SeenBridge, SeenSandbox, SeenTunnel, SeenVeth},
};

/// What was seen.
pub(super) struct Seen {
    pub(super) observed: Observed,
    /// Names of the host's ends.
    pub(super) veths: BTreeMap<(ContainerId, u8), String>,
}

/// The attributes of a link that are asked for here.
#[derive(Default)]
struct Link {
    index: u32,
    up: bool,
    name: String,
    alias: String,
    mac: Option<MacAddress>,
    mtu: u32,
    master: Option<u32>,
    vxlan_local: Option<IpAddr>,
    vxlan_port: u16,
}

pub(super) fn observe(netlink: &mut Netlink, netns_dir: &Path) -> Result<Seen> {
    let links = netlink.dump("listing links", RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let mut ours: Vec<Link> = links
        .iter()
        .filter_map(|m| if let RouteNetlinkMessage::NewLink(link) = m { Some(link) } else { None })
        .filter(|link| is_marked(link))
        .map(read)
        .collect();
    // Of two pairs of one container the younger is the one in use.
    ours.sort_by_key(|link| link.index);
    let names: BTreeMap<u32, String> = ours.iter().map(|l| (l.index, l.name.clone())).collect();
    let mut seen = Seen { observed: Observed::default(), veths: BTreeMap::new() };
    for link in &ours {
        if let Some((vni, internal)) = bridge_number(&link.name) {
            let addresses = addresses(netlink, link.index)?;
            let complete = link.up && link.alias == ALIAS;
            let bridge = SeenBridge { internal, mac: link.mac, mtu: link.mtu, addresses, complete };
            // Two of one number: one of them is about to go, and the other is looked at after that.
            seen.observed.bridges.entry(vni).or_insert(bridge);
        } else if let Some(vni) = number(&link.name, TUNNEL_PREFIX) {
            let attached =
                link.master.and_then(|m| names.get(&m)).and_then(|n| bridge_number(n)).map(|b| b.0) == Some(vni);
            let tunnel = SeenTunnel {
                local: link.vxlan_local,
                port: link.vxlan_port,
                mtu: link.mtu,
                peers: flood_list(netlink, link.index)?,
                complete: attached && link.up && link.alias == ALIAS,
            };
            seen.observed.tunnels.insert(vni, tunnel);
        } else if link.name.starts_with(VETH_PREFIX) {
            seen.note_veth(link, &names);
        }
    }
    for (container, netns) in netns::list(netns_dir)? {
        seen.observed.sandboxes.entry(container).or_default().netns = netns;
    }
    Ok(seen)
}

impl Seen {
    fn note_veth(&mut self, link: &Link, names: &BTreeMap<u32, String>) {
        let mut words = link.alias.split(' ');
        let (mark, container, address) = (words.next(), words.next(), words.next());
        let (interface, rest) = (words.next(), words.collect::<Vec<_>>());
        let container = container.and_then(|c| c.parse::<ContainerId>().ok());
        let address = address.and_then(|a| a.parse::<Ipv4Addr>().ok());
        let interface = interface.and_then(|i| i.strip_prefix("eth")).and_then(|i| i.parse::<u8>().ok());
        let (Some(ALIAS), Some(container), Some(address), Some(interface)) = (mark, container, address, interface)
        else {
            self.observed.strays.insert(link.name.clone());
            return;
        };
        let vni = link.master.and_then(|m| names.get(&m)).and_then(|n| bridge_number(n)).map(|b| b.0);
        let vni = vni.filter(|_| link.up);
        let sandbox: &mut SeenSandbox = self.observed.sandboxes.entry(container.clone()).or_default();
        let default_route = rest.contains(&DEFAULT_ROUTE);
        let mac = rest.iter().find_map(|word| word.parse().ok()).unwrap_or_else(|| MacAddress::of(address));
        sandbox.veths.insert(interface, SeenVeth { vni, address, default_route, mac, mtu: link.mtu });
        self.veths.insert((container, interface), link.name.clone());
    }
}

/// Whether a link was born as one of ours.
pub(super) fn is_marked(link: &LinkMessage) -> bool {
    link.attributes.contains(&LinkAttribute::Group(LINK_MARK))
}

/// The number in a bridge's name, and whether it leads nowhere.
fn bridge_number(name: &str) -> Option<(u32, bool)> {
    let internal = number(name, INTERNAL_BRIDGE_PREFIX).map(|vni| (vni, true));
    internal.or_else(|| number(name, BRIDGE_PREFIX).map(|vni| (vni, false)))
}

fn number(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.parse().ok()
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's attributes are an open set; these are the few asked for"
)]
fn read(message: &LinkMessage) -> Link {
    let mut link =
        Link { index: message.header.index, up: message.header.flags.contains(LinkFlags::Up), ..Link::default() };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
            LinkAttribute::Address(mac) => link.mac = <[u8; 6]>::try_from(mac.as_slice()).ok().map(MacAddress),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(master) => link.master = Some(*master),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Data(InfoData::Vxlan(vxlan)) = info {
                        read_vxlan(vxlan, &mut link);
                    }
                }
            }
            _ => {}
        }
    }
    link
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's attributes are an open set; these are the few asked for"
)]
fn read_vxlan(infos: &[InfoVxlan], link: &mut Link) {
    for info in infos {
        match info {
            InfoVxlan::Local(local) => link.vxlan_local = Some((*local).into()),
            InfoVxlan::Local6(local) => link.vxlan_local = Some((*local).into()),
            InfoVxlan::Port(port) => link.vxlan_port = *port,
            _ => {}
        }
    }
}

/// IPv4 addresses of a link.
pub(super) fn addresses(netlink: &mut Netlink, index: u32) -> Result<BTreeSet<Ipv4Net>> {
    let mut wanted = AddressMessage::default();
    wanted.header.family = AddressFamily::Inet;
    let all = netlink.dump("listing addresses", RouteNetlinkMessage::GetAddress(wanted))?;
    Ok(all.iter().filter_map(|m| local_address(m, index)).collect())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the kernel's attributes are an open set")]
fn local_address(message: &RouteNetlinkMessage, index: u32) -> Option<Ipv4Net> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    let local = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    })?;
    (message.header.index == index).then(|| Ipv4Net::new(local, message.header.prefix_len).ok()).flatten()
}

/// Where a tunnel sends what it has no entry for.
#[expect(clippy::wildcard_enum_match_arm, reason = "the kernel's attributes are an open set")]
pub(super) fn flood_list(netlink: &mut Netlink, index: u32) -> Result<BTreeSet<IpAddr>> {
    let mut wanted = NeighbourMessage::default();
    wanted.header.family = AddressFamily::Bridge;
    let all = netlink.dump("listing forwarding entries", RouteNetlinkMessage::GetNeighbour(wanted))?;
    let peer = |message: &RouteNetlinkMessage| {
        let RouteNetlinkMessage::NewNeighbour(entry) = message else { return None };
        let any = NeighbourAttribute::LinkLayerAddress(vec![0; 6]);
        if entry.header.ifindex != index || !entry.attributes.contains(&any) {
            return None;
        }
        entry.attributes.iter().find_map(|a| match a {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(peer)) => Some(IpAddr::V4(*peer)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(peer)) => Some(IpAddr::V6(*peer)),
            _ => None,
        })
    };
    Ok(all.iter().filter_map(peer).collect())
}

/// Destinations of the main table that are behind links of others.
#[expect(clippy::wildcard_enum_match_arm, reason = "the kernel's attributes are an open set")]
pub(super) fn routed(netlink: &mut Netlink) -> Result<Vec<Ipv4Net>> {
    let links = netlink.dump("listing links", RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let ours: BTreeSet<u32> = links
        .iter()
        .filter_map(|m| if let RouteNetlinkMessage::NewLink(link) = m { Some(link) } else { None })
        .filter(|link| is_marked(link))
        .map(|link| link.header.index)
        .collect();
    let mut wanted = RouteMessage::default();
    wanted.header.address_family = AddressFamily::Inet;
    let all = netlink.dump("listing routes", RouteNetlinkMessage::GetRoute(wanted))?;
    let elsewhere = |message: &RouteNetlinkMessage| {
        let RouteNetlinkMessage::NewRoute(route) = message else { return None };
        let link =
            route.attributes.iter().find_map(|a| if let RouteAttribute::Oif(link) = a { Some(*link) } else { None });
        let main = route.header.table == RouteHeader::RT_TABLE_MAIN;
        if !main || link.is_some_and(|link| ours.contains(&link)) {
            return None;
        }
        route.attributes.iter().find_map(|a| match a {
            RouteAttribute::Destination(RouteAddress::Inet(to)) => {
                Ipv4Net::new(*to, route.header.destination_prefix_length).ok()
            }
            _ => None,
        })
    };
    Ok(all.iter().filter_map(elsewhere).filter(|net| net.prefix_len() > 0).collect())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the kernel's attributes are an open set")]
pub(super) fn mtu_under(netlink: &mut Netlink, address: IpAddr) -> Result<Option<u32>> {
    let addresses = netlink.dump("listing addresses", RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let carries = |message: &RouteNetlinkMessage| {
        let RouteNetlinkMessage::NewAddress(message) = message else { return None };
        let has = message.attributes.iter().any(|a| match a {
            AddressAttribute::Local(a) | AddressAttribute::Address(a) => *a == address,
            _ => false,
        });
        has.then_some(message.header.index)
    };
    let Some(index) = addresses.iter().find_map(carries) else { return Ok(None) };
    let links = netlink.dump("listing links", RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    Ok(links.iter().find_map(|message| {
        let RouteNetlinkMessage::NewLink(link) = message else { return None };
        let real = link.header.index == index && !link.header.flags.contains(LinkFlags::Loopback);
        real.then(|| read(link).mtu)
    }))
}
