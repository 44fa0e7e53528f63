//! `NetPlan` + what the host is → everything the kernel shall have. Pure: no I/O, no clock, sorted
//! maps only, so that equal plans compile to equal text.
//!
//! A plan is input from another process. Whatever in it cannot be made is left out and named in
//! [`Desired::refused`]; the rest is compiled as if it had not been there.

mod firewall;
mod names;
mod networks;
mod ports;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use contract::net::NetPlan;
use ipnet::{IpNet, Ipv4Net};
use model::{ContainerId, MacAddress};

pub use firewall::{Firewall, PortChange};
pub use names::{
    BRIDGE_PREFIX, GATEWAY_MAC_PREFIX, INTERNAL_BRIDGE_PREFIX, LINK_MARK, TUNNEL_PREFIX, VETH_PREFIX, bridge_name,
    veth_name,
};
pub use ports::{PortKey, PortTarget};

/// What the host itself is. Probed or configured once, when netd starts.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Local end of the tunnels.
    pub address: IpAddr,
    /// UDP port of the tunnels.
    pub vxlan_port: u16,
    /// Prefixes containers may not open connections to.
    pub protected: Vec<IpNet>,
    /// MTU of the device that carries `address`.
    pub underlay_mtu: u32,
    /// Where the host itself reaches others, the way to everywhere apart: no network may take any of it.
    pub routed: Vec<Ipv4Net>,
}

/// Everything the kernel shall have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Bridges by VNI.
    pub bridges: BTreeMap<u32, Bridge>,
    /// Tunnels by VNI; each has a bridge.
    pub tunnels: BTreeMap<u32, Tunnel>,
    /// Sandboxes by container; each that has a veth has the veth's bridge.
    pub sandboxes: BTreeMap<ContainerId, Sandbox>,
    /// The nft tables.
    pub firewall: Firewall,
    /// What was left out and why, by container or network id. A container may be here for one of
    /// its ports and have its sandbox all the same.
    pub refused: BTreeMap<String, String>,
}

/// A network's bridge. Holds the gateway address on every host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Names it: `wb<vni>`, or `wbi<vni>`.
    pub vni: u32,
    /// It leads nowhere; its name says so to the firewall.
    pub internal: bool,
    /// Gateway address with the subnet's prefix length.
    pub gateway: Ipv4Net,
    /// The same on every host, so that a container's neighbour entry for the gateway holds anywhere.
    pub mac: MacAddress,
    /// What fits through the tunnel, if there is one.
    pub mtu: u32,
}

/// A network's way to the other hosts on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Names it `wx<vni>`, and is the VXLAN network identifier.
    pub vni: u32,
    /// Of its bridge.
    pub internal: bool,
    /// This host's address.
    pub local: IpAddr,
    /// UDP port on every host.
    pub port: u16,
    /// MTU of its bridge.
    pub mtu: u32,
    /// Where broadcast and unknown frames go, one copy each.
    pub peers: BTreeSet<IpAddr>,
}

/// A network namespace for one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Names the namespace.
    pub container: ContainerId,
    /// The user namespace that shall own it.
    pub owner: Option<PathBuf>,
    /// Its links by number: `eth<n>`. None leaves `lo` alone.
    pub veths: BTreeMap<u8, Veth>,
}

/// The pair that joins a sandbox to a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Veth {
    /// Whose bridge.
    pub vni: u32,
    /// The bridge leads nowhere.
    pub internal: bool,
    /// Address inside with the subnet's prefix length.
    pub address: Ipv4Net,
    /// The bridge's own address.
    pub gateway: Ipv4Addr,
    /// The default route is by `gateway`: true for one link at most.
    pub default_route: bool,
    /// MAC inside.
    pub mac: MacAddress,
    /// Of both ends.
    pub mtu: u32,
}

impl Bridge {
    /// The link's name.
    #[must_use]
    pub fn name(&self) -> String {
        bridge_name(self.vni, self.internal)
    }
}

impl Sandbox {
    /// The link of the default route: published ports arrive there.
    #[must_use]
    pub fn way_out(&self) -> Option<&Veth> {
        self.veths.values().find(|veth| veth.default_route)
    }
}

impl Tunnel {
    /// The link's name.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{TUNNEL_PREFIX}{}", self.vni)
    }
}

/// Compiles a plan. `taken` are ports that something else on the host listens on: publishing one
/// would take it away from that service, so it is refused.
#[must_use]
pub fn compile(plan: &NetPlan, host: &HostConfig, taken: &BTreeMap<PortKey, String>) -> Desired {
    let mut refused = BTreeMap::new();
    let networks = networks::usable(plan, host, &mut refused);
    let bridges: BTreeMap<_, _> = networks.values().map(|n| (n.bridge.vni, n.bridge.clone())).collect();
    let tunnels: BTreeMap<_, _> = networks.values().filter_map(|n| Some((n.bridge.vni, n.tunnel.clone()?))).collect();
    let sandboxes = networks::sandboxes(plan, &networks, &mut refused);
    let published = ports::published(plan, &sandboxes, taken, &mut refused);
    let firewall = Firewall::compile(host, &tunnels, published);
    Desired { bridges, tunnels, sandboxes, firewall, refused }
}

/// The ports a plan wants, to be claimed on the host before [`compile`] is told which were taken.
#[must_use]
pub fn wanted_ports(plan: &NetPlan) -> BTreeSet<PortKey> {
    plan.endpoints.values().flat_map(|e| &e.ports).filter_map(|p| PortKey::of(p).ok()).collect()
}
