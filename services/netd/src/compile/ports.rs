//! Published ports: which the firewall sends where. A port goes to one container only, and never
//! to one if a service of the host listens on it.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::{IpAddr, Ipv4Addr},
};

use contract::net::NetPlan;
use model::{ContainerId, PortProtocol, PublishedPort};

use super::Sandbox;

/// A port of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortKey {
    /// The one address it answers on; `None` is every local address.
    pub address: Option<Ipv4Addr>,
    /// Transport.
    pub protocol: PortProtocol,
    /// Number.
    pub port: u16,
}

/// Where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortTarget {
    /// The container's address.
    pub address: Ipv4Addr,
    /// Port inside the container.
    pub port: u16,
}

impl PortKey {
    /// The key of a published port, or why it cannot be published.
    ///
    /// # Errors
    /// Networks are IPv4: an IPv6 address of the host cannot lead to a container.
    pub fn of(published: &PublishedPort) -> Result<Self, String> {
        let address = match published.host_ip {
            None => None,
            Some(any) if any.is_unspecified() => None,
            Some(IpAddr::V4(address)) => Some(address),
            Some(IpAddr::V6(address)) => {
                return Err(format!("a port cannot be published on the IPv6 address {address}"));
            }
        };
        if published.host_port == 0 || published.container_port == 0 {
            return Err("port 0 cannot be published".to_owned());
        }
        Ok(Self { address, protocol: published.protocol, port: published.host_port })
    }
}

impl std::fmt::Display for PortKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}/{}", self.address.unwrap_or(Ipv4Addr::UNSPECIFIED), self.port, self.protocol.as_str())
    }
}

pub(super) fn published(
    plan: &NetPlan,
    sandboxes: &BTreeMap<ContainerId, Sandbox>,
    taken: &BTreeMap<PortKey, String>,
    refused: &mut BTreeMap<String, String>,
) -> BTreeMap<PortKey, PortTarget> {
    let mut published = BTreeMap::new();
    for endpoint in plan.endpoints.values() {
        // A port of a container without a way out leads nowhere, as with Docker.
        let Some(veth) = sandboxes.get(&endpoint.container).and_then(Sandbox::way_out) else { continue };
        for wanted in &endpoint.ports {
            let target = PortTarget { address: veth.address.addr(), port: wanted.container_port };
            let fault = match PortKey::of(wanted) {
                Err(fault) => fault,
                Ok(key) => match (taken.get(&key), published.entry(key)) {
                    (Some(why), _) => format!("Bind for {key} failed: {why}"),
                    (None, Entry::Occupied(_)) => format!("Bind for {key} failed: port is already allocated"),
                    (None, Entry::Vacant(free)) => {
                        free.insert(target);
                        continue;
                    }
                },
            };
            refused.entry(endpoint.container.to_string()).or_insert(fault);
        }
    }
    published
}
