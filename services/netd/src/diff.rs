//! What to do so that the kernel has what is desired. Pure. The order is safe at every step: a
//! bridge is there and the firewall is current before a container is put on it; a tunnel opens only
//! after the firewall knows its peers; containers go before what they stand on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use ipnet::Ipv4Net;
use model::{ContainerId, MacAddress};

use crate::compile::{Bridge, Desired, Firewall, Sandbox, Tunnel, Veth};

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
    /// It has the name of one that leads nowhere.
    pub internal: bool,
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
    /// The host's ends of its pairs, by the number of the link inside.
    pub veths: BTreeMap<u8, SeenVeth>,
}

/// The host's end of a complete pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenVeth {
    /// Whose bridge it is a port of, if it is.
    pub vni: Option<u32>,
    /// The address of the other end, as written in the alias.
    pub address: Ipv4Addr,
    /// The default route is by this link, as written in the alias.
    pub default_route: bool,
    /// The MAC of the other end, as written in the alias, or as it follows from its address.
    pub mac: MacAddress,
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
    /// Remove a link of a sandbox.
    RemoveLink(ContainerId, u8),
    /// Make a link of a sandbox that is there, instead of what there may be of it.
    Link(ContainerId, u8, Veth),
    /// Set the default route of a sandbox whose links are there.
    Route(Sandbox),
    /// Set the MTU of both ends of a sandbox's pairs.
    Mtu(Sandbox),
    /// Put a link that lost its bridge back on it.
    Rejoin(ContainerId, u8, Veth),
    /// Remove a sandbox and whatever remains of it.
    RemoveSandbox(ContainerId),
    /// Remove a tunnel.
    RemoveTunnel(u32),
    /// Remove a bridge.
    RemoveBridge {
        /// Which.
        vni: u32,
        /// It has the name of one that leads nowhere.
        internal: bool,
        /// It has the number or addresses of one that shall be.
        in_the_way: bool,
    },
    /// Remove a half-made link.
    RemoveStray(String),
}

/// What to do, in a safe order.
#[must_use]
pub fn diff(desired: &Desired, observed: &Observed) -> Vec<Op> {
    let mut ops: Vec<Op> = bridges_gone(desired, observed, true).collect();
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
        match observed.sandboxes.get(&sandbox.container) {
            None => make.push(Op::Sandbox(sandbox.clone())),
            Some(seen) if seen.netns => change(sandbox, seen, &mut ops, &mut make),
            Some(_) => {
                ops.push(Op::RemoveSandbox(sandbox.container.clone()));
                make.push(Op::Sandbox(sandbox.clone()));
            }
        }
    }
    ops.append(&mut make);
    let unwanted = |vni: &&u32| !desired.tunnels.contains_key(*vni);
    ops.extend(observed.tunnels.keys().filter(unwanted).copied().map(Op::RemoveTunnel));
    ops.extend(bridges_gone(desired, observed, false));
    ops
}

/// Bridges that go; those `in_the_way` go before any is made.
fn bridges_gone(desired: &Desired, observed: &Observed, in_the_way: bool) -> impl Iterator<Item = Op> {
    let gone = observed.bridges.iter().filter_map(move |(vni, seen)| {
        let internal = seen.internal;
        let is_in_the_way = match desired.bridges.get(vni) {
            Some(wanted) if wanted.internal == internal => return None,
            Some(_) => true,
            None => seen.addresses.iter().any(|held| desired.bridges.values().any(|b| overlap(held, &b.gateway))),
        };
        (is_in_the_way == in_the_way).then_some(Op::RemoveBridge { vni: *vni, internal, in_the_way })
    });
    gone.collect::<Vec<_>>().into_iter()
}

fn overlap(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

fn bridge_is(observed: &Observed, bridge: &Bridge) -> bool {
    observed.bridges.get(&bridge.vni).is_some_and(|seen| *seen == SeenBridge::of(bridge))
}

fn tunnel_is(seen: &SeenTunnel, tunnel: &Tunnel) -> bool {
    *seen == SeenTunnel::of(tunnel)
}

/// What a sandbox that is there needs. Its processes go on meanwhile: links come and go one by one.
fn change(sandbox: &Sandbox, seen: &SeenSandbox, first: &mut Vec<Op>, then: &mut Vec<Op>) {
    let container = &sandbox.container;
    let gone = seen.veths.keys().filter(|number| !sandbox.veths.contains_key(number));
    first.extend(gone.map(|number| Op::RemoveLink(container.clone(), *number)));
    let (mut mtu, mut route) = (false, false);
    for (number, wanted) in &sandbox.veths {
        let want = SeenVeth::of(wanted);
        match seen.veths.get(number) {
            Some(is) if (is.vni, is.address, is.mac) == (want.vni, want.address, want.mac) => {
                mtu |= is.mtu != want.mtu;
                route |= is.default_route != want.default_route;
            }
            // Its bridge was deleted.
            Some(is) if is.vni.is_none() && (is.address, is.mac) == (want.address, want.mac) => {
                mtu |= is.mtu != want.mtu;
                route |= is.default_route != want.default_route;
                then.push(Op::Rejoin(container.clone(), *number, *wanted));
            }
            is => {
                // Its address may be somebody else's next.
                first.extend(is.map(|_| Op::RemoveLink(container.clone(), *number)));
                then.push(Op::Link(container.clone(), *number, *wanted));
            }
        }
    }
    if route {
        then.push(Op::Route(sandbox.clone()));
    }
    if mtu {
        then.push(Op::Mtu(sandbox.clone()));
    }
}

impl SeenVeth {
    /// A pair as it is right after it was made.
    #[must_use]
    pub fn of(veth: &Veth) -> Self {
        let Veth { vni, address, default_route, mac, mtu, .. } = *veth;
        Self { vni: Some(vni), address: address.addr(), default_route, mac, mtu }
    }
}

impl SeenBridge {
    /// A bridge as it is right after it was made.
    #[must_use]
    pub fn of(bridge: &Bridge) -> Self {
        Self {
            internal: bridge.internal,
            mac: Some(bridge.mac),
            mtu: bridge.mtu,
            addresses: BTreeSet::from([bridge.gateway]),
            complete: true,
        }
    }
}

impl SeenTunnel {
    /// A tunnel as it is right after it was made.
    #[must_use]
    pub fn of(tunnel: &Tunnel) -> Self {
        let Tunnel { vni: _, internal: _, local, port, mtu, peers } = tunnel.clone();
        Self { local: Some(local), port, mtu, peers, complete: true }
    }
}

impl SeenSandbox {
    /// A sandbox as it is right after it was made.
    #[must_use]
    pub fn of(sandbox: &Sandbox) -> Self {
        Self { netns: true, veths: sandbox.veths.iter().map(|(number, veth)| (*number, SeenVeth::of(veth))).collect() }
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
            | Self::Link(..)
            | Self::Rejoin(..)
            | Self::Route(_)
            | Self::Mtu(_) => true,
            Self::RemoveSandbox(_)
            | Self::RemoveLink(..)
            | Self::RemoveTunnel(_)
            | Self::RemoveBridge { .. }
            | Self::RemoveStray(_) => false,
        }
    }

    /// Whether it takes down what an emptied network leaves. Deleting a bridge holds the kernel's
    /// RTNL lock for many milliseconds, so this waits until nobody does.
    #[must_use]
    pub fn can_wait(&self, desired: &Desired) -> bool {
        match self {
            Self::RemoveTunnel(vni) => !desired.bridges.contains_key(vni),
            Self::RemoveBridge { in_the_way, .. } => !in_the_way,
            Self::Bridge(_)
            | Self::Firewall { .. }
            | Self::Tunnel(_)
            | Self::Sandbox(_)
            | Self::RemoveLink(..)
            | Self::Link(..)
            | Self::Rejoin(..)
            | Self::Route(_)
            | Self::Mtu(_)
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
            Op::Sandbox(sandbox) => {
                self.sandboxes.insert(sandbox.container.clone(), SeenSandbox::of(sandbox));
            }
            Op::RemoveLink(container, number) => {
                self.sandboxes.entry(container.clone()).or_default().veths.remove(number);
            }
            Op::Link(container, number, veth) => {
                self.sandboxes.entry(container.clone()).or_default().veths.insert(*number, SeenVeth::of(veth));
            }
            Op::Rejoin(container, number, veth) => {
                if let Some(seen) = self.sandboxes.get_mut(container).and_then(|s| s.veths.get_mut(number)) {
                    seen.vni = Some(veth.vni);
                }
            }
            Op::Route(sandbox) => self.note_veths(sandbox, |seen, veth| seen.default_route = veth.default_route),
            Op::Mtu(sandbox) => self.note_veths(sandbox, |seen, veth| seen.mtu = veth.mtu),
            Op::RemoveSandbox(container) => {
                self.sandboxes.remove(container);
            }
            Op::RemoveTunnel(vni) => {
                self.tunnels.remove(vni);
            }
            Op::RemoveBridge { vni, .. } => {
                self.bridges.remove(vni);
            }
            Op::RemoveStray(name) => {
                self.strays.remove(name);
            }
        }
    }

    fn note_veths(&mut self, sandbox: &Sandbox, note: impl Fn(&mut SeenVeth, &Veth)) {
        let Some(seen) = self.sandboxes.get_mut(&sandbox.container) else { return };
        for (number, veth) in &sandbox.veths {
            if let Some(seen) = seen.veths.get_mut(number) {
                note(seen, veth);
            }
        }
    }
}
