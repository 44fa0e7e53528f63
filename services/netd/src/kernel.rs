//! The only code that touches the kernel: looks at what is there, and does one [`Op`] at a time.
//! It decides nothing. All of it runs on one thread, which is in the host's network namespace
//! whenever a call of this module begins or ends.

mod claims;
mod error;
mod links;
mod netlink;
mod netns;
mod nft;
mod nft_elements;
mod nft_guard;
mod observe;
mod sandbox;
mod spares;
mod sysctl;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    net::{IpAddr, SocketAddrV4, TcpListener, UdpSocket},
    path::PathBuf,
};

use ipnet::Ipv4Net;
use model::ContainerId;

pub(crate) use error::Result;
pub(crate) use netns::inside;
pub(crate) use nft::watch as watch_nft;

use crate::{
    compile::{Firewall, PortKey},
    diff::{Observed, Op},
};
use claims::Claims;
use error::Doing as _;
use netlink::Netlink;
use nft::Nft;
use spares::Spares;

/// Handles on the host's network namespace, kept for netd's life.
pub(crate) struct Kernel {
    netlink: Netlink,
    nft: Nft,
    host_ns: File,
    netns_dir: PathBuf,
    /// The host's ends of the pairs that are in use; the name depends on what was free.
    veths: BTreeMap<(ContainerId, u8), String>,
    claims: Claims,
    spares: Spares,
}

/// Sockets for name service, in the namespace the thread is in.
///
/// # Errors
/// The address is taken.
pub(crate) fn listen(at: SocketAddrV4) -> Result<(UdpSocket, TcpListener)> {
    let open = || {
        let (udp, tcp) = (UdpSocket::bind(at)?, TcpListener::bind(at)?);
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok::<_, std::io::Error>((udp, tcp))
    };
    open().doing(|| format!("listening on {at}"))
}

impl Kernel {
    /// Opens the handles. Changes nothing.
    ///
    /// # Errors
    /// No netlink, or no right to it.
    pub(crate) fn open(netns_dir: PathBuf) -> Result<Self> {
        Ok(Self {
            netlink: Netlink::open()?,
            nft: Nft::open()?,
            host_ns: netns::current()?,
            netns_dir,
            veths: BTreeMap::new(),
            claims: Claims::default(),
            spares: Spares::default(),
        })
    }

    /// Lets the host route, and makes the place for namespaces. Part of every sync: whoever turned it
    /// off cut off every container.
    ///
    /// # Errors
    /// `/proc/sys` or the run directory is not writable.
    pub(crate) fn prepare_host(&self) -> Result<()> {
        netns::make_dir(&self.netns_dir)?;
        sysctl::set("net/ipv4/ip_forward", "1")
    }

    /// MTU of the device that carries `address`; `None` if none does, or only loopback.
    ///
    /// # Errors
    /// Netlink failed.
    pub(crate) fn mtu_under(&mut self, address: IpAddr) -> Result<Option<u32>> {
        observe::mtu_under(&mut self.netlink, address)
    }

    /// Where the host reaches others by links that are not ours, the way to everywhere apart.
    ///
    /// # Errors
    /// Netlink failed.
    pub(crate) fn routed(&mut self) -> Result<Vec<Ipv4Net>> {
        observe::routed(&mut self.netlink)
    }

    /// What the kernel has of ours, the firewall apart: that is known by having loaded it.
    ///
    /// # Errors
    /// Netlink failed, or the namespaces' directory cannot be read.
    pub(crate) fn observe(&mut self) -> Result<Observed> {
        let seen = observe::observe(&mut self.netlink, &self.netns_dir)?;
        self.veths = seen.veths;
        Ok(seen.observed)
    }

    /// Sets up the guard between bridges that a flush of the ruleset leaves alone.
    ///
    /// # Errors
    /// The kernel is too old for such tables.
    pub(crate) fn guard(&self) -> Result<()> {
        self.nft.guard()
    }

    /// The host's namespace and a container's, for who opens sockets there.
    ///
    /// # Errors
    /// It has none.
    pub(crate) fn doors(&self, container: &ContainerId) -> Result<(File, File)> {
        let path = self.netns_dir.join(container.as_str());
        let namespace = File::open(&path).doing(|| format!("opening {}", path.display()))?;
        let host = self.host_ns.try_clone().doing(|| "the host's network namespace".to_owned())?;
        Ok((host, namespace))
    }

    /// Whether anybody, ourselves included, changed any nft table here since we last loaded ours.
    #[must_use]
    pub(crate) fn nft_changed(&mut self) -> bool {
        self.nft.changed()
    }

    /// Holds the ports on the host, so that no service of it can be robbed of one, and gives back
    /// those not wanted any more. Answers with the ports that something else holds.
    pub(crate) fn claim_ports(&mut self, wanted: &BTreeSet<PortKey>) -> BTreeMap<PortKey, String> {
        self.claims.hold(wanted)
    }

    /// Does one thing.
    ///
    /// # Errors
    /// The kernel refused. What the op had half done is undone or will be seen as a stray.
    pub(crate) fn apply(&mut self, op: &Op) -> Result<()> {
        match op {
            Op::Bridge(bridge) => links::bridge(&mut self.netlink, bridge),
            Op::Firewall { before, after } => self.load(before.as_ref(), after),
            Op::Tunnel(tunnel) => links::tunnel(&mut self.netlink, tunnel),
            Op::Sandbox(sandbox) => self.make_sandbox(sandbox),
            Op::RemoveLink(container, number) => self.remove_link(container, *number),
            Op::Link(container, number, veth) => self.add_link(container, *number, veth),
            Op::Rejoin(container, number, veth) => self.rejoin(container, *number, veth),
            Op::Route(sandbox) => self.set_route(sandbox),
            Op::Mtu(sandbox) => self.set_sandbox_mtu(sandbox),
            Op::RemoveSandbox(container) => self.remove_sandbox(container),
            Op::RemoveTunnel(vni) => {
                links::remove(&mut self.netlink, &format!("{}{vni}", crate::compile::TUNNEL_PREFIX))
            }
            Op::RemoveBridge { vni, internal, .. } => {
                links::remove(&mut self.netlink, &crate::compile::bridge_name(*vni, *internal))
            }
            Op::RemoveStray(name) => links::remove(&mut self.netlink, name),
        }
    }

    fn load(&mut self, before: Option<&Firewall>, after: &Firewall) -> Result<()> {
        if let Some(change) = before.and_then(|before| after.port_change(before)) {
            match self.nft.change_ports(&change) {
                Ok(()) => return Ok(()),
                // Somebody took the tables away, or an element is not what we thought.
                Err(e) => tracing::warn!(error = %e, "cannot change the published ports; loading the whole firewall"),
            }
        }
        self.nft.load(&after.script())
    }

    /// Removes everything a netd ever made in this network namespace: links, namespaces, tables.
    ///
    /// # Errors
    /// The first thing that could not be removed; everything else was tried.
    pub(crate) fn purge(&mut self) -> Result<()> {
        let observed = self.observe()?;
        let mut ops: Vec<Op> = observed.sandboxes.keys().cloned().map(Op::RemoveSandbox).collect();
        ops.extend(observed.strays.iter().cloned().map(Op::RemoveStray));
        ops.extend(observed.tunnels.keys().copied().map(Op::RemoveTunnel));
        let bridges = observed.bridges.iter();
        ops.extend(bridges.map(|(vni, b)| Op::RemoveBridge { vni: *vni, internal: b.internal, in_the_way: false }));
        let links = ops.iter().map(|op| self.apply(op)).fold(Ok(()), Result::and);
        let mounts = netns::remove_all(&self.netns_dir);
        let tables = self.nft.remove_tables();
        links.and(mounts).and(tables)
    }
}
