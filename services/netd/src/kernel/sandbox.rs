//! Containers' sandboxes: the hot path. One new namespace, one message that makes the pair with its
//! far end already inside as `eth0`, one batch inside, one outside. No process is started.

use std::{fs::File, net::Ipv4Addr, os::fd::AsRawFd as _, path::PathBuf};

use model::ContainerId;
use rtnetlink::{
    AddressMessageBuilder, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        RouteNetlinkMessage,
        link::{InfoData, InfoVeth, LinkAttribute},
        route::{RouteProtocol, RouteScope, RouteType},
    },
};

use super::{
    Kernel,
    error::{Doing as _, KernelError, Result},
    links,
    netlink::{Netlink, Request},
    netns::{self, NewNamespace},
};
use crate::compile::{BRIDGE_PREFIX, LINK_MARK, Sandbox, Veth, veth_name};

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
        let Some(veth) = &sandbox.veth else { return Ok(()) };
        let joined = self.join(&sandbox.container, veth, &mut namespace);
        if joined.is_err() {
            // Takes whatever of the pair there is with it.
            netns::remove(&path)?;
        }
        joined
    }

    /// Makes one namespace ahead of need, unless there are enough. Making one is half the cost of a
    /// sandbox. Answers whether there is more to make.
    ///
    /// # Errors
    /// None could be made.
    pub(crate) fn prepare_spare(&mut self) -> Result<bool> {
        self.spares.prepare(&self.host_ns)
    }

    fn join(&mut self, container: &ContainerId, veth: &Veth, namespace: &mut NewNamespace) -> Result<()> {
        let bridge = self.netlink.index(&format!("{BRIDGE_PREFIX}{}", veth.vni))?;
        let name = self.make_pair(container, veth, bridge, namespace)?;
        configure_inside(&mut namespace.netlink, veth)?;
        // The alias comes last and says that the pair is complete.
        let outside = LinkMessageBuilder::<LinkUnspec>::default().name(name.clone());
        let alias = LinkAttribute::IfAlias(format!("wharfage {container} {}", veth.address.addr()));
        self.netlink.run(vec![
            Request::change("keeping IPv6 off the host's end", links::no_ipv6_address(&name)),
            // A container that dials its own published port gets its own packet back by the port it came from.
            Request::change("setting up the bridge port", links::hairpin(&name)),
            Request::change(
                "bringing up the host's end",
                RouteNetlinkMessage::SetLink(outside.up().append_extra_attribute(alias).build()),
            ),
        ])?;
        self.veths.insert(container.clone(), name);
        Ok(())
    }

    fn make_pair(
        &mut self,
        container: &ContainerId,
        veth: &Veth,
        bridge: u32,
        namespace: &NewNamespace,
    ) -> Result<String> {
        let mut refused = None;
        for attempt in 0..NAME_ATTEMPTS {
            let name = veth_name(container, attempt);
            match self.netlink.run_one(Request::create("making a veth pair", pair(&name, veth, bridge, namespace))) {
                Ok(()) => return Ok(name),
                Err(e) if e.is_exists() => refused = Some(e),
                Err(e) => return Err(e),
            }
        }
        Err(refused.unwrap_or_else(|| KernelError::new("making a veth pair", std::io::Error::other("no name tried"))))
    }

    /// A pair that lost its bridge is put on the new one, a lost pair is made again, into the same namespace.
    pub(super) fn rejoin_sandbox(&mut self, sandbox: &Sandbox) -> Result<()> {
        let Some(veth) = &sandbox.veth else { return Ok(()) };
        if let Some(name) = self.veths.get(&sandbox.container) {
            let bridge = self.netlink.index(&format!("{BRIDGE_PREFIX}{}", veth.vni))?;
            let port = LinkMessageBuilder::<LinkUnspec>::default().name(name.clone()).controller(bridge).up();
            return self.netlink.run(vec![
                Request::change("putting the host's end on its bridge", RouteNetlinkMessage::SetLink(port.build())),
                Request::change("setting up the bridge port", links::hairpin(name)),
            ]);
        }
        let path = self.netns_path(&sandbox.container);
        let handle = File::open(&path).doing(|| format!("opening {}", path.display()))?;
        let netlink = netns::inside(&self.host_ns, &path, Netlink::open)?;
        self.join(&sandbox.container, veth, &mut NewNamespace { handle, netlink })
    }

    pub(super) fn set_sandbox_mtu(&mut self, sandbox: &Sandbox) -> Result<()> {
        let (Some(veth), Some(name)) = (&sandbox.veth, self.veths.get(&sandbox.container)) else { return Ok(()) };
        let path = self.netns_path(&sandbox.container);
        let mut inside = netns::inside(&self.host_ns, &path, Netlink::open)?;
        inside.run_one(Request::change("setting the MTU of eth0", links::set_mtu("eth0", veth.mtu)))?;
        // The host's end is what `observe` sees: it follows, so that a half-done change is done again.
        self.netlink.run_one(Request::change("setting the MTU of the host's end", links::set_mtu(name, veth.mtu)))
    }

    pub(super) fn remove_sandbox(&mut self, container: &ContainerId) -> Result<()> {
        let path = self.netns_path(container);
        let had_namespace = path.exists();
        netns::remove(&path)?;
        match self.veths.remove(container) {
            // Its namespace is held by somebody else: only deleting takes the pair away.
            Some(name) if !had_namespace => links::remove(&mut self.netlink, &name),
            _ => Ok(()),
        }
    }
}

fn pair(name: &str, veth: &Veth, bridge: u32, namespace: &NewNamespace) -> RouteNetlinkMessage {
    let far = LinkMessageBuilder::<LinkUnspec>::default()
        .name("eth0".to_owned())
        .address(veth.mac.0.to_vec())
        .mtu(veth.mtu)
        .append_extra_attribute(LinkAttribute::NetNsFd(namespace.handle.as_raw_fd()))
        .build();
    let near = LinkMessageBuilder::<LinkVeth>::new(name, "eth0")
        .set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
        .mtu(veth.mtu)
        .controller(bridge)
        .append_extra_attribute(LinkAttribute::Group(LINK_MARK))
        .build();
    RouteNetlinkMessage::NewLink(near)
}

fn configure_inside(netlink: &mut Netlink, veth: &Veth) -> Result<()> {
    let eth0 = netlink.index("eth0")?;
    let address = AddressMessageBuilder::<Ipv4Addr>::new()
        .index(eth0)
        .address(veth.address.addr(), veth.address.prefix_len())
        .build();
    let up = LinkMessageBuilder::<LinkUnspec>::default().index(eth0).up().build();
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .gateway(veth.gateway)
        .output_interface(eth0)
        .protocol(RouteProtocol::Static)
        .scope(RouteScope::Universe)
        .kind(RouteType::Unicast)
        .build();
    netlink.run(vec![
        Request::create("adding the address", RouteNetlinkMessage::NewAddress(address)),
        Request::change("bringing up eth0", RouteNetlinkMessage::SetLink(up)),
        Request::create("adding the default route", RouteNetlinkMessage::NewRoute(route)),
    ])
}
