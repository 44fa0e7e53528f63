//! The subnet a client chose, checked and turned into what the store allocates from. Pure.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use model::{Error, Result};
use store::ChosenSubnet;

use super::create::{Ipam, IpamConfig};

/// Larger ones are no tenant's; smaller ones have no room.
const PREFIXES: std::ops::RangeInclusive<u8> = 16..=29;

/// What is asked of IPAM; `None` if nothing is.
pub(super) fn chosen(ipam: &Ipam) -> Result<Option<ChosenSubnet>> {
    let asked: Vec<&IpamConfig> = ipam.config.iter().filter(|config| !is_empty(config)).collect();
    match asked.as_slice() {
        [] => Ok(None),
        [one] => subnet(one).map(Some),
        _ => Err(Error::NotImplemented(
            "IPAM.Config: several subnets for a network are not built yet on Wharfage".into(),
        )),
    }
}

fn is_empty(config: &IpamConfig) -> bool {
    let IpamConfig { subnet, ip_range, gateway, auxiliary_addresses } = config;
    subnet.is_empty() && ip_range.is_empty() && gateway.is_empty() && auxiliary_addresses.is_empty()
}

fn subnet(asked: &IpamConfig) -> Result<ChosenSubnet> {
    let invalid = |text: String| Error::InvalidArgument(format!("invalid network config:\n{text}"));
    if asked.subnet.contains(':') {
        return Err(Error::NotImplemented("IPAM.Config.Subnet: IPv6 is not built yet on Wharfage".into()));
    }
    let subnet: Ipv4Net = asked
        .subnet
        .parse()
        .map_err(|_| invalid(format!("invalid subnet {}: invalid CIDR block notation", asked.subnet)))?;
    if subnet != subnet.trunc() {
        return Err(invalid(format!("invalid subnet {subnet}: it should be {}", subnet.trunc())));
    }
    if !PREFIXES.contains(&subnet.prefix_len()) {
        return Err(invalid(format!(
            "invalid subnet {subnet}: it must be from /{} to /{}",
            PREFIXES.start(),
            PREFIXES.end()
        )));
    }
    let address = |what: &str, written: &str| -> Result<Ipv4Addr> {
        let address: Ipv4Addr =
            written.parse().map_err(|_| invalid(format!("invalid {what} {written}: invalid address")))?;
        let usable = subnet.contains(&address) && address != subnet.network() && address != subnet.broadcast();
        if usable { Ok(address) } else { Err(invalid(format!("invalid {what} {written}: parent subnet is {subnet}"))) }
    };
    let first = Ipv4Addr::from(u32::from(subnet.network()) + 1);
    let gateway = if asked.gateway.is_empty() { first } else { address("gateway address", &asked.gateway)? };
    let reserved = asked.auxiliary_addresses.values();
    let reserved = reserved.map(|written| address("auxiliary address", written)).collect::<Result<_>>()?;
    let range = match asked.ip_range.as_str() {
        "" => subnet,
        written => {
            let range: Ipv4Net = written
                .parse()
                .map_err(|_| invalid(format!("invalid ip-range {written}: invalid CIDR block notation")))?;
            if !subnet.contains(&range.trunc()) || !subnet.contains(&range.broadcast()) {
                return Err(invalid(format!("invalid ip-range {written}: parent subnet is {subnet}")));
            }
            range.trunc()
        }
    };
    let base = u32::from(subnet.network());
    let last = u32::from(subnet.broadcast()) - base - 1;
    let offsets = ((u32::from(range.network()) - base).max(1), (u32::from(range.broadcast()) - base).min(last));
    Ok(ChosenSubnet { subnet, gateway, reserved, offsets })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(subnet: &str, ip_range: &str, gateway: &str) -> Ipam {
        let config = IpamConfig {
            subnet: subnet.into(),
            ip_range: ip_range.into(),
            gateway: gateway.into(),
            ..IpamConfig::default()
        };
        Ipam { config: vec![config], ..Ipam::default() }
    }

    #[test]
    fn a_range_bounds_what_is_given() {
        let whole = chosen(&asked("172.28.0.0/16", "", "")).expect("fine").expect("chosen");
        assert_eq!((whole.gateway, whole.offsets), ([172, 28, 0, 1].into(), (1, 65_534)));
        let part = chosen(&asked("172.28.0.0/16", "172.28.5.0/24", "172.28.5.254")).expect("fine").expect("chosen");
        assert_eq!((part.gateway, part.offsets), ([172, 28, 5, 254].into(), (1_280, 1_535)));
        assert_eq!(chosen(&Ipam { config: vec![IpamConfig::default()], ..Ipam::default() }), Ok(None));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_reason() {
        for (subnet, range, gateway, text) in [
            ("172.28.0.0", "", "", "invalid CIDR block notation"),
            ("172.28.0.1/16", "", "", "it should be 172.28.0.0/16"),
            ("10.0.0.0/8", "", "", "from /16 to /29"),
            ("172.28.0.0/16", "172.29.0.0/24", "", "invalid ip-range 172.29.0.0/24: parent subnet is 172.28.0.0/16"),
            ("172.28.0.0/16", "", "172.29.0.1", "invalid gateway address 172.29.0.1: parent subnet is 172.28.0.0/16"),
            ("", "", "172.29.0.1", "invalid subnet"),
        ] {
            let error = chosen(&asked(subnet, range, gateway)).expect_err("refused").to_string();
            assert!(error.contains(text), "{error}");
        }
        assert!(matches!(chosen(&asked("fd00::/64", "", "")), Err(Error::NotImplemented(_))));
    }
}
