//! Which of the hosts that can take a container is best: the lowest score. Spread by free resources,
//! then by number of containers; a host that has the image wins between equals; what is left is
//! settled by rendezvous hashing, so that equal hosts share equally and nobody needs a counter.

use model::{ContainerId, HostId};

use crate::{Demand, HostView};

/// Compared field by field, lower is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Score {
    /// Ports it wants that are taken there now, ranges of which none is free included. Soft: the owner may be gone by the time it starts.
    port_conflicts: usize,
    /// The fuller of CPU and memory once it is there, in millionths.
    reserved_ppm: u64,
    containers: u32,
    image_is_missing: bool,
    rendezvous: u64,
}

pub(crate) fn score(demand: &Demand, id: HostId, host: &HostView) -> Score {
    let cpu = fraction_ppm((host.reserved_nano_cpus + demand.nano_cpus).0, host.capacity.nano_cpus.0);
    let memory = fraction_ppm((host.reserved_memory + demand.memory).0, host.capacity.memory_bytes.0);
    Score {
        port_conflicts: host.ports_for(demand).1,
        reserved_ppm: cpu.max(memory),
        containers: host.containers,
        image_is_missing: !demand.image.as_ref().is_some_and(|image| host.local_images.contains(image)),
        rendezvous: rendezvous(id, &demand.container),
    }
}

fn fraction_ppm(part: u64, whole: u64) -> u64 {
    if whole == 0 {
        return if part == 0 { 0 } else { u64::MAX };
    }
    u64::try_from(u128::from(part) * 1_000_000 / u128::from(whole)).unwrap_or(u64::MAX)
}

/// A hash of the pair that is the same on every machine and in every release (FNV-1a, then the
/// finisher of splitmix64 because FNV alone leaves neighbours together).
fn rendezvous(host: HostId, container: &ContainerId) -> u64 {
    let bytes = host.0.as_bytes().iter().chain(container.as_str().as_bytes());
    let mut hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_hosts_share_about_equally() {
        let hosts: Vec<HostId> =
            (0..4).map(|n| format!("0190b0a0-0000-7000-8000-00000000000{n}").parse().expect("a uuid")).collect();
        let mut wins = [0_u32; 4];
        for n in 0..1_000_u32 {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            let container = ContainerId::from_bytes(bytes);
            let best = (0..4).min_by_key(|i| rendezvous(hosts[*i], &container)).expect("four hosts");
            wins[best] += 1;
        }
        assert!(wins.iter().all(|n| (200..300).contains(n)), "{wins:?}");
    }

    #[test]
    fn a_fraction_of_nothing_is_full_unless_nothing_is_asked() {
        assert_eq!(fraction_ppm(0, 0), 0);
        assert_eq!(fraction_ppm(1, 0), u64::MAX);
        assert_eq!(fraction_ppm(u64::MAX, u64::MAX), 1_000_000);
    }
}
