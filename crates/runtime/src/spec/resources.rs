//! Limits as the OCI document has them; the runtime writes them to cgroup v1 or v2 from the same
//! fields. A limit whose controller this host lacks is left out with Docker's warning, because the
//! runtime would fail on it.

use model::Resources;
use oci_spec::{
    OciSpecError,
    runtime::{
        LinuxBlockIo, LinuxBlockIoBuilder, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
        LinuxMemory, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder,
    },
};

use crate::cgroup::HostCgroups;

/// A fork bomb's bound where nobody set one: the host is shared.
const DEFAULT_PIDS_LIMIT: i64 = 4096;
const CFS_PERIOD_US: u64 = 100_000;
const NANOS_PER_CPU: u64 = 1_000_000_000;

/// All limits of one container.
pub(super) fn build(
    asked: &Resources,
    host: &HostCgroups,
    warnings: &mut Vec<String>,
) -> Result<LinuxResources, OciSpecError> {
    let mut out = LinuxResourcesBuilder::default().devices(devices()?).build()?;
    out.set_memory(Some(memory(asked, host, warnings)));
    out.set_cpu(Some(cpu(asked, host, warnings)));
    if host.pids {
        let limit = asked.pids_limit.map_or(DEFAULT_PIDS_LIMIT, signed);
        out.set_pids(Some(LinuxPidsBuilder::default().limit(limit).build()?));
    } else if asked.pids_limit.is_some() {
        warnings.push("Your kernel does not support PIDs limit capabilities. PIDs limit discarded.".into());
    }
    out.set_block_io(blkio(asked, host, warnings)?);
    Ok(out)
}

fn memory(asked: &Resources, host: &HostCgroups, warnings: &mut Vec<String>) -> LinuxMemory {
    let mut memory = LinuxMemory::default();
    let wants = asked.memory_bytes.is_some() || asked.memory_reservation_bytes.is_some();
    if !host.memory {
        if wants {
            warnings.push("Your kernel does not support memory limit capabilities. Limitation discarded.".into());
        }
        return memory;
    }
    memory.set_limit(asked.memory_bytes.map(|m| signed(m.0)));
    match asked.memory_swappiness {
        Some(_) if host.unified => {
            warnings.push("Your kernel does not support memory swappiness capabilities. Swappiness discarded.".into());
        }
        swappiness => {
            memory.set_swappiness(swappiness.map(u64::from));
        }
    }
    memory.set_reservation(asked.memory_reservation_bytes.map(|m| signed(m.0)));
    // Docker's rule: as much swap again as memory, unless said otherwise.
    let swap = asked.memory_swap_bytes.or(asked.memory_bytes.map(|m| m + m));
    if host.swap {
        memory.set_swap(swap.map(|m| signed(m.0)));
    } else if asked.memory_swap_bytes.is_some() {
        warnings.push(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. \
             Memory limited without swap."
                .into(),
        );
    }
    memory
}

fn cpu(asked: &Resources, host: &HostCgroups, warnings: &mut Vec<String>) -> LinuxCpu {
    let mut cpu = LinuxCpu::default();
    if host.cpu_shares {
        cpu.set_shares(asked.cpu_shares.filter(|s| *s != 0));
    } else if asked.cpu_shares.is_some() {
        warnings.push("Your kernel does not support CPU shares. Shares discarded.".into());
    }
    let (period, quota) = match asked.nano_cpus {
        Some(n) => (Some(CFS_PERIOD_US), Some(quota_us(n.0))),
        None => (asked.cpu_period_us.filter(|p| *p != 0), asked.cpu_quota_us.filter(|q| *q != 0)),
    };
    if host.cpu_quota {
        cpu.set_period(period).set_quota(quota);
    } else if quota.is_some() {
        warnings.push("Your kernel does not support CPU CFS scheduler. CPU quota discarded.".into());
    }
    if host.cpuset {
        cpu.set_cpus(asked.cpuset_cpus.clone().filter(|c| !c.is_empty()));
        cpu.set_mems(asked.cpuset_mems.clone().filter(|m| !m.is_empty()));
    } else if asked.cpuset_cpus.is_some() || asked.cpuset_mems.is_some() {
        warnings.push("Your kernel does not support cpuset. Cpuset discarded.".into());
    }
    cpu
}

/// The kernel takes no quota below 1 ms.
fn quota_us(nano_cpus: u64) -> i64 {
    let us = u128::from(nano_cpus) * u128::from(CFS_PERIOD_US) / u128::from(NANOS_PER_CPU);
    i64::try_from(us).unwrap_or(i64::MAX).max(1000)
}

fn blkio(
    asked: &Resources,
    host: &HostCgroups,
    warnings: &mut Vec<String>,
) -> Result<Option<LinuxBlockIo>, OciSpecError> {
    match asked.blkio_weight.filter(|w| *w != 0) {
        Some(weight) if host.blkio_weight => Ok(Some(LinuxBlockIoBuilder::default().weight(weight).build()?)),
        Some(_) => {
            warnings.push(
                "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.".into(),
            );
            Ok(None)
        }
        None => Ok(None),
    }
}

/// Everything is denied but the harmless six; the runtime adds pts and ptmx.
fn devices() -> Result<Vec<LinuxDeviceCgroup>, OciSpecError> {
    let deny = LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build()?;
    let allow = |(major, minor): (i64, i64)| {
        LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(LinuxDeviceType::C)
            .major(major)
            .minor(minor)
            .access("rwm")
            .build()
    };
    // null, zero, full, random, urandom, tty, console
    let harmless = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1)];
    let mut all = vec![deny];
    for device in harmless {
        all.push(allow(device)?);
    }
    Ok(all)
}

/// "Unlimited" is -1 for the kernel and beyond every real number for us.
fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use model::{MemoryBytes, NanoCpus};

    use super::*;

    const FULL: HostCgroups = HostCgroups {
        unified: false,
        memory: true,
        swap: true,
        cpu_shares: true,
        cpu_quota: true,
        cpuset: true,
        pids: true,
        blkio_weight: true,
    };

    #[test]
    fn swap_is_twice_the_memory_unless_said() {
        let asked = Resources { memory_bytes: Some(MemoryBytes(1 << 20)), ..Resources::default() };
        assert_eq!(memory(&asked, &FULL, &mut Vec::new()).swap(), Some(2 << 20));
        let unlimited = Resources { memory_swap_bytes: Some(MemoryBytes(u64::MAX)), ..asked };
        assert_eq!(memory(&unlimited, &FULL, &mut Vec::new()).swap(), Some(-1));
    }

    #[test]
    fn half_a_cpu_is_half_the_period() {
        let asked = Resources { nano_cpus: Some(NanoCpus(500_000_000)), ..Resources::default() };
        let cpu = cpu(&asked, &FULL, &mut Vec::new());
        assert_eq!((cpu.period(), cpu.quota()), (Some(100_000), Some(50_000)));
        assert_eq!(quota_us(1), 1000, "the kernel's least");
    }

    #[test]
    fn what_the_host_lacks_is_left_out_and_told() {
        let none = HostCgroups { memory: false, blkio_weight: false, pids: false, cpu_quota: false, ..FULL };
        let asked = Resources {
            memory_bytes: Some(MemoryBytes(1 << 20)),
            nano_cpus: Some(NanoCpus(1)),
            blkio_weight: Some(500),
            pids_limit: Some(5),
            ..Resources::default()
        };
        let mut warnings = Vec::new();
        let out = build(&asked, &none, &mut warnings).expect("builds");
        assert_eq!(out.memory().as_ref().and_then(LinuxMemory::limit), None);
        assert!(out.block_io().is_none() && out.pids().is_none());
        assert_eq!(warnings.len(), 4);
    }

    #[test]
    fn a_container_without_a_pids_limit_gets_one() {
        let out = build(&Resources::default(), &FULL, &mut Vec::new()).expect("builds");
        assert_eq!(out.pids().map(|p| p.limit()), Some(DEFAULT_PIDS_LIMIT));
    }
}
