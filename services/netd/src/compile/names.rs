//! Names of what netd makes. Fifteen bytes at most, and a prefix each that nft rules match on: the
//! rules need not change when a network comes or goes.

use model::{ContainerId, MacAddress};
use std::net::Ipv4Addr;

/// Bridges: `wb<vni>`.
pub const BRIDGE_PREFIX: &str = "wb";
/// Tunnels: `wx<vni>`.
pub const TUNNEL_PREFIX: &str = "wx";
/// The host's ends of veth pairs: `wv<11 hex digits of the container id>`.
pub const VETH_PREFIX: &str = "wv";
/// Link group every link of ours is born with ("WHRF"); the alias is added once it is complete.
pub const LINK_MARK: u32 = 0x5748_5246;
/// First two bytes of every gateway's MAC; containers' begin with `02:42`. Rules match on it.
pub const GATEWAY_MAC_PREFIX: [u8; 2] = [0x02, 0x57];

/// The host's end for a container. A container that is restarted at once may find the name still
/// held by the pair of its last run, which the kernel takes apart in its own time: then the next
/// `attempt` gives another name.
#[must_use]
pub fn veth_name(container: &ContainerId, attempt: u8) -> String {
    let digits = &container.as_str()[..11];
    match attempt {
        0 => format!("{VETH_PREFIX}{digits}"),
        n => format!("{VETH_PREFIX}{digits}{}", char::from(b'a' + (n - 1) % 26)),
    }
}

/// The MAC a gateway has on every host.
pub(super) fn gateway_mac(gateway: Ipv4Addr) -> MacAddress {
    let [a, b, c, d] = gateway.octets();
    MacAddress([GATEWAY_MAC_PREFIX[0], GATEWAY_MAC_PREFIX[1], a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_fits_the_kernel() {
        let id = ContainerId::from_bytes([0xab; 32]);
        for attempt in 0..40 {
            assert!(veth_name(&id, attempt).len() <= 15);
        }
        assert!(format!("{BRIDGE_PREFIX}{}", (1_u32 << 24) - 1).len() <= 15);
    }

    #[test]
    fn attempts_give_different_names() {
        let id = ContainerId::from_bytes([0xab; 32]);
        assert_eq!(veth_name(&id, 0), "wvabababababa");
        assert_eq!(veth_name(&id, 1), "wvabababababaa");
        assert_ne!(veth_name(&id, 1), veth_name(&id, 2));
    }
}
