//! Addresses and ports: what the store allocates and netd compiles into the kernel.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Error, NetworkId};

/// The address of a link: chosen by the user, or derived from its IPv4 address, as Docker derives it:
/// `02:42` and the four bytes. Deriving makes it unique in its network for the same reason the address
/// is: a database constraint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The MAC that belongs to an address.
    #[must_use]
    pub fn of(ip: Ipv4Addr) -> Self {
        let [a, b, c, d] = ip.octets();
        Self([0x02, 0x42, a, b, c, d])
    }

    /// Whether a link may have it: not that of a group, and not none.
    #[must_use]
    pub fn is_of_a_link(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl FromStr for MacAddress {
    type Err = Error;

    /// `02:42:ac:11:00:02`, also with dashes, or `0242.ac11.0002`.
    fn from_str(written: &str) -> Result<Self, Error> {
        let is_group =
            |group: &str, digits: usize| group.len() == digits && group.bytes().all(|byte| byte.is_ascii_hexdigit());
        let groups = |separator: char, count: usize, digits: usize| {
            let groups: Vec<&str> = written.split(separator).collect();
            (groups.len() == count && groups.iter().all(|group| is_group(group, digits))).then(|| groups.concat())
        };
        let mut bytes = [0; 6];
        let digits = groups(':', 6, 2).or_else(|| groups('-', 6, 2)).or_else(|| groups('.', 3, 4));
        let read = digits.and_then(|digits| hex::decode_to_slice(digits, &mut bytes).ok());
        read.map(|()| Self(bytes)).ok_or_else(|| Error::InvalidArgument(format!("invalid MAC address {written}")))
    }
}

impl TryFrom<String> for MacAddress {
    type Error = Error;

    fn try_from(written: String) -> Result<Self, Error> {
        written.parse()
    }
}

impl From<MacAddress> for String {
    fn from(address: MacAddress) -> Self {
        address.to_string()
    }
}

/// `other`, `other:alias` or, as inspect shows it, `/other:/me/alias`, as the other's name and its alias.
///
/// # Errors
/// `InvalidArgument` in dockerd's words; an alias stands in `/etc/hosts` and is one word for that.
pub fn parse_link(written: &str) -> Result<(&str, &str), Error> {
    if written.is_empty() {
        return Err(Error::InvalidArgument("empty string specified for links".into()));
    }
    let (target, alias) = match written.split_once(':') {
        None => (written, written.trim_start_matches('/')),
        Some((target, alias)) if target.starts_with('/') => (target, alias.rsplit('/').next().unwrap_or(alias)),
        Some(both) => both,
    };
    let is_word = |alias: &str| {
        (1..=253).contains(&alias.len()) && alias.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    if target.trim_start_matches('/').is_empty() || !is_word(alias) {
        return Err(Error::InvalidArgument(format!("bad format for links: {written}")));
    }
    Ok((target.trim_start_matches('/'), alias))
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
    /// The address of that link, if it was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub mac: Option<MacAddress>,
    /// `other:alias`: names that the container alone sees there, and what they stand for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<String>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_has_three_spellings_and_is_one_links() {
        for written in ["02:42:ac:11:00:0A", "02-42-AC-11-00-0a", "0242.ac11.000a"] {
            assert_eq!(written.parse::<MacAddress>().expect("an address").to_string(), "02:42:ac:11:00:0a");
        }
        for bad in ["", "02:42", "02:42:ac:11:00:0g", "02:42:ac:11:00:0a:00", "0242ac11000a", "02:42-ac:11:00:0a"] {
            assert_eq!(bad.parse::<MacAddress>().expect_err(bad).to_string(), format!("invalid MAC address {bad}"));
        }
        assert!(!"01:42:ac:11:00:0a".parse::<MacAddress>().expect("read").is_of_a_link());
        assert!(!MacAddress([0; 6]).is_of_a_link() && MacAddress::of([10, 0, 0, 1].into()).is_of_a_link());
    }

    #[test]
    fn a_link_is_read_as_dockerd_reads_it() {
        assert_eq!(parse_link("db"), Ok(("db", "db")));
        assert_eq!(parse_link("db:store"), Ok(("db", "store")));
        assert_eq!(parse_link("/db:/web/store"), Ok(("db", "store")));
        for bad in ["", ":", "db:", ":x", "a:b:c", "db:x y", "db:x\ty"] {
            assert!(parse_link(bad).is_err(), "{bad:?}");
        }
    }
}
