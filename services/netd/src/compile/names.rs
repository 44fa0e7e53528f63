//! Names of what netd makes. Fifteen bytes at most, and a prefix each that nft rules match on: the
//! rules need not change when a network comes or goes.

use model::{ContainerId, MacAddress};
use std::net::Ipv4Addr;

/// Bridges: `wb<vni>`.
pub const BRIDGE_PREFIX: &str = "wb";
/// Bridges that lead nowhere: `wbi<vni>`. What goes for bridges goes for them too.
pub const INTERNAL_BRIDGE_PREFIX: &str = "wbi";
/// Tunnels: `wx<vni>`.
pub const TUNNEL_PREFIX: &str = "wx";
/// The host's ends of veth pairs: `wv<11 hex digits of the container id>`.
pub const VETH_PREFIX: &str = "wv";
/// Link group every link of ours is born with ("WHRF"); the alias is added once it is complete.
pub const LINK_MARK: u32 = 0x5748_5246;
/// First two bytes of every gateway's MAC; containers' begin with `02:42`. Rules match on it.
pub const GATEWAY_MAC_PREFIX: [u8; 2] = [0x02, 0x57];

/// A network's bridge.
#[must_use]
pub fn bridge_name(vni: u32, internal: bool) -> String {
    let prefix = if internal { INTERNAL_BRIDGE_PREFIX } else { BRIDGE_PREFIX };
    format!("{prefix}{vni}")
}

/// The host's end of a container's link `eth<interface>`. A container that is restarted at once may
/// find the name still held by the pair of its last run, which the kernel takes apart in its own
/// time: then the next `attempt` gives another name.
#[must_use]
pub fn veth_name(container: &ContainerId, interface: u8, attempt: u8) -> String {
    // In upper case, so that it is never taken for an attempt.
    const INTERFACES: &[u8; 35] = b"123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut name = format!("{VETH_PREFIX}{}", &container.as_str()[..11]);
    if let Some(before) = interface.checked_sub(1) {
        name.push(char::from(INTERFACES[usize::from(before) % INTERFACES.len()]));
    }
    if let Some(before) = attempt.checked_sub(1) {
        name.push(char::from(b'a' + before % 26));
    }
    name
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
            assert!(veth_name(&id, model::NETWORKS_PER_CONTAINER, attempt).len() <= 15);
        }
        assert!(bridge_name((1_u32 << 24) - 1, true).len() <= 15);
    }

    #[test]
    fn attempts_give_different_names() {
        let id = ContainerId::from_bytes([0xab; 32]);
        assert_eq!(veth_name(&id, 0, 0), "wvabababababa");
        assert_eq!(veth_name(&id, 0, 1), "wvabababababaa");
        assert_ne!(veth_name(&id, 0, 1), veth_name(&id, 0, 2));
    }

    #[test]
    fn every_link_of_a_container_has_its_own_name() {
        let id = ContainerId::from_bytes([0xab; 32]);
        let names: std::collections::BTreeSet<_> = (0..model::NETWORKS_PER_CONTAINER)
            .flat_map(|interface| [veth_name(&id, interface, 0), veth_name(&id, interface, 1)])
            .collect();
        assert_eq!(names.len(), 2 * usize::from(model::NETWORKS_PER_CONTAINER));
    }
}
