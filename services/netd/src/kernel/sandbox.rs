//! Containers' sandboxes: the hot path. One new namespace, one message that makes the pair with its
//! far end already inside as `eth0`, one batch inside, one outside. No process is started.

use std::{net::Ipv4Addr, os::fd::AsRawFd as _, path::PathBuf};

use model::{ContainerId, MacAddress};
use rtnetlink::{
    AddressMessageBuilder, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_core::{NLM_F_CREATE, NLM_F_REPLACE},
    packet_route::{
        RouteNetlinkMessage,
        link::{InfoData, InfoVeth, LinkAttribute},
        route::{RouteProtocol, RouteScope, RouteType},
    },
};

use super::{
    Kernel,
    error::{KernelError, Result},
    links,
    netlink::{Netlink, Request},
    netns::{self, NewNamespace},
};
use crate::compile::{LINK_MARK, Sandbox, Veth, bridge_name, veth_name};

/// Word in the alias of the host's end whose other end is the default route.
pub(super) const DEFAULT_ROUTE: &str = "default";
/// Names tried before giving up: each is held by a pair the kernel is still taking apart.
const NAME_ATTEMPTS: u8 = 24;

impl Kernel {
    fn netns_path(&self, container: &ContainerId) -> PathBuf {
        self.netns_dir.join(container.as_str())
    }

    pub(super) fn make_sandbox(&mut self, sandbox: &Sandbox) -> Result<()> {
        let path = self.netns_path(&sandbox.container);
        let mut namespace = self.spares.take(&self.host_ns, sandbox.owner.as_deref())?;
        netns::mount_on(&namespace, &path)?;
        for (number, veth) in &sandbox.veths {
            let joined = self.join(&sandbox.container, *number, veth, &mut namespace);
            if joined.is_err() {
                // Takes whatever of the pairs there is with it.
                netns::remove(&path)?;
            }
            joined?;
        }
        Ok(())
    }

    /// One more link for a sandbox whose processes may be running.
    pub(super) fn add_link(&mut self, container: &ContainerId, number: u8, veth: &Veth) -> Result<()> {
        self.remove_link(container, number)?;
        let mut namespace = netns::mounted(&self.host_ns, &self.netns_path(container))?;
        self.join(container, number, veth, &mut namespace)
    }

    /// Takes a link from a sandbox; its addresses and routes go with it.
    pub(super) fn remove_link(&mut self, container: &ContainerId, number: u8) -> Result<()> {
        match self.veths.remove(&(container.clone(), number)) {
            Some(name) => links::remove(&mut self.netlink, &name),
            None => Ok(()),
        }
    }

    /// Sets the default route, then says so on the links: a change cut short is seen and made again.
    pub(super) fn set_route(&mut self, sandbox: &Sandbox) -> Result<()> {
        let mut inside = netns::mounted(&self.host_ns, &self.netns_path(&sandbox.container))?.netlink;
        let way_out = sandbox.veths.iter().find(|(_, veth)| veth.default_route);
        match way_out {
            Some((number, veth)) => {
                let link = inside.index(&link_name(*number))?;
                inside.run_one(default_route(link, veth))?;
            }
            None => remove_default_route(&mut inside)?,
        }
        for (number, veth) in &sandbox.veths {
            let Some(name) = self.veths.get(&(sandbox.container.clone(), *number)) else { continue };
            let alias = alias(&sandbox.container, *number, veth);
            let link = LinkMessageBuilder::<LinkUnspec>::default().name(name.clone()).append_extra_attribute(alias);
            self.netlink.run_one(Request::change("noting the route", RouteNetlinkMessage::SetLink(link.build())))?;
        }
        Ok(())
    }

    /// Makes one namespace ahead of need, unless there are enough. Making one is half the cost of a
    /// sandbox. Answers whether there is more to make.
    ///
    /// # Errors
    /// None could be made.
    pub(crate) fn prepare_spare(&mut self) -> Result<bool> {
        self.spares.prepare(&self.host_ns)
    }

    fn join(&mut self, container: &ContainerId, number: u8, veth: &Veth, namespace: &mut NewNamespace) -> Result<()> {
        let bridge = self.netlink.index(&bridge_name(veth.vni, veth.internal))?;
        let name = self.make_pair(container, number, veth, bridge, namespace)?;
        configure_inside(&mut namespace.netlink, number, veth)?;
        // The alias comes last and says that the pair is complete.
        let outside = LinkMessageBuilder::<LinkUnspec>::default().name(name.clone());
        let alias = alias(container, number, veth);
        self.netlink.run(vec![
            Request::change("keeping IPv6 off the host's end", links::no_ipv6_address(&name)),
            // A container that dials its own published port gets its own packet back by the port it came from.
            Request::change("setting up the bridge port", links::hairpin(&name)),
            Request::change(
                "bringing up the host's end",
                RouteNetlinkMessage::SetLink(outside.up().append_extra_attribute(alias).build()),
            ),
        ])?;
        self.veths.insert((container.clone(), number), name);
        Ok(())
    }

    fn make_pair(
        &mut self,
        container: &ContainerId,
        number: u8,
        veth: &Veth,
        bridge: u32,
        namespace: &NewNamespace,
    ) -> Result<String> {
        let mut refused = None;
        for attempt in 0..NAME_ATTEMPTS {
            let name = veth_name(container, number, attempt);
            let pair = pair(&name, number, veth, bridge, namespace);
            match self.netlink.run_one(Request::create("making a veth pair", pair)) {
                Ok(()) => return Ok(name),
                Err(e) if e.is_exists() => refused = Some(e),
                Err(e) => return Err(e),
            }
        }
        Err(refused.unwrap_or_else(|| KernelError::new("making a veth pair", std::io::Error::other("no name tried"))))
    }

    /// A pair that lost its bridge is put on the new one; its connections go on.
    pub(super) fn rejoin(&mut self, container: &ContainerId, number: u8, veth: &Veth) -> Result<()> {
        let Some(name) = self.veths.get(&(container.clone(), number)) else { return Ok(()) };
        let bridge = self.netlink.index(&bridge_name(veth.vni, veth.internal))?;
        let port = LinkMessageBuilder::<LinkUnspec>::default().name(name.clone()).controller(bridge).up();
        self.netlink.run(vec![
            Request::change("putting the host's end on its bridge", RouteNetlinkMessage::SetLink(port.build())),
            Request::change("setting up the bridge port", links::hairpin(name)),
        ])
    }

    pub(super) fn set_sandbox_mtu(&mut self, sandbox: &Sandbox) -> Result<()> {
        let mut inside = netns::mounted(&self.host_ns, &self.netns_path(&sandbox.container))?.netlink;
        for (number, veth) in &sandbox.veths {
            let Some(name) = self.veths.get(&(sandbox.container.clone(), *number)) else { continue };
            let link = links::set_mtu(&link_name(*number), veth.mtu);
            inside.run_one(Request::change("setting the MTU inside", link))?;
            // The host's end is what `observe` sees: it follows, so that a half-done change is done again.
            let request = Request::change("setting the MTU of the host's end", links::set_mtu(name, veth.mtu));
            self.netlink.run_one(request)?;
        }
        Ok(())
    }

    pub(super) fn remove_sandbox(&mut self, container: &ContainerId) -> Result<()> {
        let path = self.netns_path(container);
        let had_namespace = path.exists();
        netns::remove(&path)?;
        let mut names = Vec::new();
        while let Some(entry) = self.veths.range((container.clone(), 0)..=(container.clone(), u8::MAX)).next() {
            let key = entry.0.clone();
            names.extend(self.veths.remove(&key));
        }
        // A namespace that is held by somebody else does not go: only deleting takes the pairs away.
        for name in names.iter().filter(|_| !had_namespace) {
            links::remove(&mut self.netlink, name)?;
        }
        Ok(())
    }
}

/// What the host's end says of the far one.
fn alias(container: &ContainerId, number: u8, veth: &Veth) -> LinkAttribute {
    let route = if veth.default_route { format!(" {DEFAULT_ROUTE}") } else { String::new() };
    let address = veth.address.addr();
    // Said only where it does not follow from the other address.
    let mac = if veth.mac == MacAddress::of(address) { String::new() } else { format!(" {}", veth.mac) };
    LinkAttribute::IfAlias(format!("wharfage {container} {address} {}{route}{mac}", link_name(number)))
}

/// The name inside.
fn link_name(number: u8) -> String {
    format!("eth{number}")
}

fn pair(name: &str, number: u8, veth: &Veth, bridge: u32, namespace: &NewNamespace) -> RouteNetlinkMessage {
    let far = LinkMessageBuilder::<LinkUnspec>::default()
        .name(link_name(number))
        .address(veth.mac.0.to_vec())
        .mtu(veth.mtu)
        .append_extra_attribute(LinkAttribute::NetNsFd(namespace.handle.as_raw_fd()))
        .build();
    let near = LinkMessageBuilder::<LinkVeth>::new(name, &link_name(number))
        .set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
        .mtu(veth.mtu)
        .controller(bridge)
        .append_extra_attribute(LinkAttribute::Group(LINK_MARK))
        .build();
    RouteNetlinkMessage::NewLink(near)
}

fn configure_inside(netlink: &mut Netlink, number: u8, veth: &Veth) -> Result<()> {
    let link = netlink.index(&link_name(number))?;
    let address = AddressMessageBuilder::<Ipv4Addr>::new()
        .index(link)
        .address(veth.address.addr(), veth.address.prefix_len())
        .build();
    let up = LinkMessageBuilder::<LinkUnspec>::default().index(link).up().build();
    let mut requests = vec![
        Request::create("adding the address", RouteNetlinkMessage::NewAddress(address)),
        Request::change("bringing up the link", RouteNetlinkMessage::SetLink(up)),
    ];
    if veth.default_route {
        requests.push(default_route(link, veth));
    }
    netlink.run(requests)
}

/// Sets the default route, whatever it was.
fn default_route(link: u32, veth: &Veth) -> Request {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .gateway(veth.gateway)
        .output_interface(link)
        .protocol(RouteProtocol::Static)
        .scope(RouteScope::Universe)
        .kind(RouteType::Unicast)
        .build();
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    Request::with_flags("setting the default route", RouteNetlinkMessage::NewRoute(route), flags)
}

fn remove_default_route(netlink: &mut Netlink) -> Result<()> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new().kind(RouteType::Unicast).build();
    match netlink.run_one(Request::change("removing the default route", RouteNetlinkMessage::DelRoute(route))) {
        Err(e) if e.is_absent() => Ok(()),
        done => done,
    }
}
