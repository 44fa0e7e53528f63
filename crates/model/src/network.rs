//! Addresses and ports: what the store allocates and netd compiles into the kernel.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Error, NetworkId};

/// A MAC address derived from its IPv4 address, as Docker derives it: `02:42` and the four bytes.
/// Deriving makes it unique in its network for the same reason the address is: a database constraint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The MAC that belongs to an address.
    #[must_use]
    pub fn of(ip: Ipv4Addr) -> Self {
        let [a, b, c, d] = ip.octets();
        Self([0x02, 0x42, a, b, c, d])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A container's place on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Endpoint {
    /// The network.
    pub network: NetworkId,
    /// Its address there, held from create (or connect) to removal (or disconnect).
    #[schema(value_type = String)]
    pub ip: Ipv4Addr,
    /// Number of its link inside the container: `eth<n>`.
    #[serde(default)]
    pub interface: u8,
}

/// Networks one container may be on.
pub const NETWORKS_PER_CONTAINER: u8 = 32;

/// Transport of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl PortProtocol {
    /// `tcp` or `udp`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl FromStr for PortProtocol {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self, Error> {
        match s.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(Error::InvalidArgument(format!("invalid proto: {s}"))),
        }
    }
}

/// What the user asked of one container port (`-p`): where it should answer on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortBinding {
    /// Port inside the container.
    pub container_port: u16,
    /// Transport.
    pub protocol: PortProtocol,
    /// Address asked for; `None` is every address of the host.
    #[schema(value_type = Option<String>)]
    pub host_ip: Option<IpAddr>,
    /// Port asked for; `None` lets the store pick a free one at each start.
    pub host_port: Option<u16>,
    /// Instead of one port the first free one of a range, from and to, at each start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_range: Option<(u16, u16)>,
}

/// A port that is published now: a row with a unique constraint on (host, protocol, port).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct PublishedPort {
    /// Port inside the container.
    pub container_port: u16,
    /// Transport.
    pub protocol: PortProtocol,
    /// Address on the host; `None` is every address.
    #[schema(value_type = Option<String>)]
    pub host_ip: Option<IpAddr>,
    /// Port on the host.
    pub host_port: u16,
}
