//! What to do so that the kernel has what is desired. Pure. The order is safe at every step: a
//! bridge is there and the firewall is current before a container is put on it; a tunnel opens only
//! after the firewall knows its peers; containers go before what they stand on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use ipnet::Ipv4Net;
use model::{ContainerId, MacAddress};

use crate::compile::{Bridge, Desired, Firewall, Sandbox, Tunnel};

/// What the kernel has of ours, as last looked at and changed by our own hand since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Bridges by VNI.
    pub bridges: BTreeMap<u32, SeenBridge>,
    /// Tunnels by VNI.
    pub tunnels: BTreeMap<u32, SeenTunnel>,
    /// Sandboxes, and remains of them, by container.
    pub sandboxes: BTreeMap<ContainerId, SeenSandbox>,
    /// The tables as we loaded them; `None` if we do not know, or somebody changed them.
    pub firewall: Option<Firewall>,
    /// Links that bear our mark and belong to nothing: half-made pairs.
    pub strays: BTreeSet<String>,
}

/// A bridge as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenBridge {
    /// Its MAC.
    pub mac: Option<MacAddress>,
    /// Its MTU.
    pub mtu: u32,
    /// Addresses on it.
    pub addresses: BTreeSet<Ipv4Net>,
    /// Complete and up.
    pub complete: bool,
}

/// A tunnel as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenTunnel {
    /// This host's address in it.
    pub local: Option<IpAddr>,
    /// UDP port.
    pub port: u16,
    /// Its MTU.
    pub mtu: u32,
    /// Flood list.
    pub peers: BTreeSet<IpAddr>,
    /// Complete, up, and a port of its bridge.
    pub complete: bool,
}

/// A sandbox as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenSandbox {
    /// Its namespace is mounted.
    pub netns: bool,
    /// The host's end of its pair.
    pub veth: Option<SeenVeth>,
}

/// The host's end of a complete pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenVeth {
    /// Whose bridge it is a port of, if it is.
    pub vni: Option<u32>,
    /// The address of the other end, as written in the alias.
    pub address: Ipv4Addr,
    /// Its MTU, and the other end's.
    pub mtu: u32,
}

/// One thing to do. Doing it again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Make a bridge, or set one right.
    Bridge(Bridge),
    /// Load the firewall; `before` is what is loaded, if known.
    Firewall {
        /// What is loaded.
        before: Option<Firewall>,
        /// What shall be.
        after: Firewall,
    },
    /// Make a tunnel, or set its peers and MTU.
    Tunnel(Tunnel),
    /// Make a sandbox, complete. There is nothing of it.
    Sandbox(Sandbox),
    /// Set the MTU of both ends of a sandbox's pair.
    Mtu(Sandbox),
    /// Put a sandbox back on its network. Its namespace stays: somebody may live in it.
    Rejoin(Sandbox),
    /// Remove a sandbox and whatever remains of it.
    RemoveSandbox(ContainerId),
    /// Remove a tunnel.
    RemoveTunnel(u32),
    /// Remove a bridge.
    RemoveBridge(u32),
    /// Remove a half-made link.
    RemoveStray(String),
}

/// What to do, in a safe order.
#[must_use]
pub fn diff(desired: &Desired, observed: &Observed) -> Vec<Op> {
    let mut ops = Vec::new();
    ops.extend(desired.bridges.values().filter(|b| !bridge_is(observed, b)).cloned().map(Op::Bridge));
    if observed.firewall.as_ref() != Some(&desired.firewall) {
        ops.push(Op::Firewall { before: observed.firewall.clone(), after: desired.firewall.clone() });
    }
    for tunnel in desired.tunnels.values() {
        match observed.tunnels.get(&tunnel.vni) {
            Some(seen) if tunnel_is(seen, tunnel) => {}
            Some(seen) if seen.local == Some(tunnel.local) && seen.port == tunnel.port => {
                ops.push(Op::Tunnel(tunnel.clone()));
            }
            // The kernel does not let these two change.
            Some(_) => ops.extend([Op::RemoveTunnel(tunnel.vni), Op::Tunnel(tunnel.clone())]),
            None => ops.push(Op::Tunnel(tunnel.clone())),
        }
    }
    // Frees names and addresses that what is made next may need.
    ops.extend(observed.strays.iter().cloned().map(Op::RemoveStray));
    let gone = |id: &&ContainerId| !desired.sandboxes.contains_key(*id);
    ops.extend(observed.sandboxes.keys().filter(gone).cloned().map(Op::RemoveSandbox));
    let mut make = Vec::new();
    for sandbox in desired.sandboxes.values() {
        match step(sandbox, observed.sandboxes.get(&sandbox.container)) {
            Step::None => {}
            Step::Mtu => make.push(Op::Mtu(sandbox.clone())),
            Step::Rejoin => make.push(Op::Rejoin(sandbox.clone())),
            Step::Make => make.push(Op::Sandbox(sandbox.clone())),
            Step::Remake => {
                ops.push(Op::RemoveSandbox(sandbox.container.clone()));
                make.push(Op::Sandbox(sandbox.clone()));
            }
        }
    }
    ops.append(&mut make);
    let unwanted = |vni: &&u32| !desired.tunnels.contains_key(*vni);
    ops.extend(observed.tunnels.keys().filter(unwanted).copied().map(Op::RemoveTunnel));
    let unwanted = |vni: &&u32| !desired.bridges.contains_key(*vni);
    ops.extend(observed.bridges.keys().filter(unwanted).copied().map(Op::RemoveBridge));
    ops
}

fn bridge_is(observed: &Observed, bridge: &Bridge) -> bool {
    observed.bridges.get(&bridge.vni).is_some_and(|seen| *seen == SeenBridge::of(bridge))
}

fn tunnel_is(seen: &SeenTunnel, tunnel: &Tunnel) -> bool {
    *seen == SeenTunnel::of(tunnel)
}

/// What one sandbox needs.
enum Step {
    None,
    Mtu,
    Rejoin,
    Make,
    Remake,
}

fn step(sandbox: &Sandbox, seen: Option<&SeenSandbox>) -> Step {
    let Some(seen) = seen else { return Step::Make };
    let want = SeenSandbox::of(sandbox);
    match (seen.veth, want.veth) {
        _ if *seen == want => Step::None,
        (Some(is), Some(wanted)) if seen.netns && (SeenVeth { mtu: wanted.mtu, ..is }) == wanted => Step::Mtu,
        // Its bridge was deleted, or its pair was.
        (Some(is), Some(wanted)) if seen.netns && is.address == wanted.address && is.vni.is_none() => Step::Rejoin,
        (None, Some(_)) if seen.netns => Step::Rejoin,
        _ => Step::Remake,
    }
}

impl SeenBridge {
    /// A bridge as it is right after it was made.
    #[must_use]
    pub fn of(bridge: &Bridge) -> Self {
        Self { mac: Some(bridge.mac), mtu: bridge.mtu, addresses: BTreeSet::from([bridge.gateway]), complete: true }
    }
}

impl SeenTunnel {
    /// A tunnel as it is right after it was made.
    #[must_use]
    pub fn of(tunnel: &Tunnel) -> Self {
        let Tunnel { vni: _, local, port, mtu, peers } = tunnel.clone();
        Self { local: Some(local), port, mtu, peers, complete: true }
    }
}

impl SeenSandbox {
    /// A sandbox as it is right after it was made.
    #[must_use]
    pub fn of(sandbox: &Sandbox) -> Self {
        let veth = sandbox.veth.map(|v| SeenVeth { vni: Some(v.vni), address: v.address.addr(), mtu: v.mtu });
        Self { netns: true, veth }
    }
}

impl Op {
    /// Whether it only adds or sets right; a repair without being told does nothing else.
    #[must_use]
    pub fn is_additive(&self) -> bool {
        match self {
            Self::Bridge(_)
            | Self::Firewall { .. }
            | Self::Tunnel(_)
            | Self::Sandbox(_)
            | Self::Mtu(_)
            | Self::Rejoin(_) => true,
            Self::RemoveSandbox(_) | Self::RemoveTunnel(_) | Self::RemoveBridge(_) | Self::RemoveStray(_) => false,
        }
    }

    /// Whether it takes down what an emptied network leaves. Deleting a bridge holds the kernel's
    /// RTNL lock for many milliseconds, so this waits until nobody does.
    #[must_use]
    pub fn can_wait(&self, desired: &Desired) -> bool {
        match self {
            Self::RemoveTunnel(vni) | Self::RemoveBridge(vni) => !desired.bridges.contains_key(vni),
            Self::Bridge(_)
            | Self::Firewall { .. }
            | Self::Tunnel(_)
            | Self::Sandbox(_)
            | Self::Mtu(_)
            | Self::Rejoin(_)
            | Self::RemoveSandbox(_)
            | Self::RemoveStray(_) => false,
        }
    }
}

impl Observed {
    /// Notes that `op` was done.
    pub fn note(&mut self, op: &Op) {
        match op {
            Op::Bridge(bridge) => {
                self.bridges.insert(bridge.vni, SeenBridge::of(bridge));
            }
            Op::Firewall { after, .. } => self.firewall = Some(after.clone()),
            Op::Tunnel(tunnel) => {
                self.tunnels.insert(tunnel.vni, SeenTunnel::of(tunnel));
            }
            Op::Sandbox(sandbox) | Op::Mtu(sandbox) | Op::Rejoin(sandbox) => {
                self.sandboxes.insert(sandbox.container.clone(), SeenSandbox::of(sandbox));
            }
            Op::RemoveSandbox(container) => {
                self.sandboxes.remove(container);
            }
            Op::RemoveTunnel(vni) => {
                self.tunnels.remove(vni);
            }
            Op::RemoveBridge(vni) => {
                self.bridges.remove(vni);
            }
            Op::RemoveStray(name) => {
                self.strays.remove(name);
            }
        }
    }
}
