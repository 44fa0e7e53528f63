//! `docker update`: a change laid over what a container was created with, by dockerd's rules. A field
//! that is zero or empty changes nothing. Pure.

use model::{Error, Resources, RestartPolicy, Result};

use super::{super::host_config::HostConfig, policy, resources, restart};

/// A container's `HostConfig` after a change, and what it means.
#[derive(Debug)]
pub(crate) struct Updated {
    pub(crate) host_config: HostConfig,
    pub(crate) resources: Resources,
    pub(crate) restart: RestartPolicy,
    pub(crate) warnings: Vec<String>,
}

/// Lays `asked` over `known`.
pub(crate) fn update(known: &HostConfig, asked: &HostConfig) -> Result<Updated> {
    policy::check(asked)?;
    resources::check(asked)?;
    restart(asked)?;
    conflicts(known, asked)?;
    let mut host = known.clone();
    for (field, value) in [
        (&mut host.blkio_weight, asked.blkio_weight),
        (&mut host.cpu_shares, asked.cpu_shares),
        (&mut host.nano_cpus, asked.nano_cpus),
        (&mut host.cpu_period, asked.cpu_period),
        (&mut host.cpu_quota, asked.cpu_quota),
        (&mut host.memory, asked.memory),
        (&mut host.memory_swap, asked.memory_swap),
        (&mut host.memory_reservation, asked.memory_reservation),
    ] {
        if value != 0 {
            *field = value;
        }
    }
    if !asked.cpuset_cpus.is_empty() {
        host.cpuset_cpus.clone_from(&asked.cpuset_cpus);
    }
    if !asked.cpuset_mems.is_empty() {
        host.cpuset_mems.clone_from(&asked.cpuset_mems);
    }
    if asked.pids_limit.is_some() {
        host.pids_limit = asked.pids_limit;
    }
    if !asked.restart_policy.name.is_empty() {
        host.restart_policy = asked.restart_policy.clone();
    }
    let mut warnings = Vec::new();
    let limits = resources::resources(&host, &mut warnings)?;
    if asked.memory_swap == 0 {
        // Said when it was asked for.
        warnings.clear();
    }
    Ok(Updated { resources: limits, restart: restart(&host)?, host_config: host, warnings })
}

/// What cannot be changed beside what is there, in dockerd's words.
fn conflicts(known: &HostConfig, asked: &HostConfig) -> Result<()> {
    let already = |set: &str, other: &str| {
        Err(Error::Conflict(format!("Conflicting options: {set} cannot be updated as {other} has already been set")))
    };
    if asked.nano_cpus > 0 && known.cpu_period > 0 {
        return already("Nano CPUs", "CPU Period");
    }
    if asked.nano_cpus > 0 && known.cpu_quota > 0 {
        return already("Nano CPUs", "CPU Quota");
    }
    if asked.cpu_period > 0 && known.nano_cpus > 0 {
        return already("CPU Period", "NanoCPUs");
    }
    if asked.cpu_quota > 0 && known.nano_cpus > 0 {
        return already("CPU Quota", "NanoCPUs");
    }
    if asked.memory != 0 && asked.memory > known.memory_swap && asked.memory_swap == 0 {
        return Err(Error::Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
                .into(),
        ));
    }
    let restarts = !matches!(asked.restart_policy.name.as_str(), "" | "no");
    if known.auto_remove && restarts {
        return Err(Error::Conflict(
            "Restart policy cannot be updated because AutoRemove is enabled for the container".into(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use model::{MemoryBytes, NanoCpus};

    use super::*;
    use crate::docker::containers::host_config::RestartPolicy as Written;

    const MIB: i64 = 1 << 20;

    fn limited() -> HostConfig {
        HostConfig { memory: 64 * MIB, memory_swap: 128 * MIB, cpu_shares: 512, ..HostConfig::default() }
    }

    fn refusal(known: &HostConfig, asked: HostConfig) -> String {
        update(known, &asked).expect_err("refused").to_string()
    }

    #[test]
    fn what_is_not_named_stays() {
        let asked = HostConfig { memory: 100 * MIB, pids_limit: Some(20), ..HostConfig::default() };
        let updated = update(&limited(), &asked).expect("granted");
        assert_eq!(updated.resources.memory_bytes, Some(MemoryBytes(100 << 20)));
        assert_eq!(updated.resources.memory_swap_bytes, Some(MemoryBytes(128 << 20)));
        assert_eq!((updated.resources.cpu_shares, updated.resources.pids_limit), (Some(512), Some(20)));
        assert_eq!((updated.host_config.memory, updated.restart), (100 * MIB, RestartPolicy::No));
        let nano = HostConfig { nano_cpus: 500_000_000, ..HostConfig::default() };
        let updated = update(&limited(), &nano).expect("granted");
        assert_eq!(updated.resources.nano_cpus, Some(NanoCpus(500_000_000)));
    }

    #[test]
    fn memory_above_its_swap_needs_the_swap_too() {
        let asked = HostConfig { memory: 200 * MIB, ..HostConfig::default() };
        assert!(refusal(&limited(), asked.clone()).starts_with("Memory limit should be smaller than already set"));
        assert!(refusal(&HostConfig::default(), asked.clone()).contains("update the memoryswap at the same time"));
        let both = HostConfig { memory_swap: -1, ..asked };
        let updated = update(&limited(), &both).expect("granted");
        assert!(updated.warnings[0].contains("MemorySwap=-1"), "{:?}", updated.warnings);
    }

    #[test]
    fn what_does_not_fit_what_is_there_is_a_conflict_in_dockerds_words() {
        let known = HostConfig { nano_cpus: 1_000_000_000, ..HostConfig::default() };
        assert_eq!(
            refusal(&known, HostConfig { cpu_quota: 50_000, ..HostConfig::default() }),
            "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set"
        );
        let removed = HostConfig { auto_remove: true, ..HostConfig::default() };
        let always = Written { name: "always".into(), maximum_retry_count: 0 };
        assert_eq!(
            refusal(&removed, HostConfig { restart_policy: always, ..HostConfig::default() }),
            "Restart policy cannot be updated because AutoRemove is enabled for the container"
        );
        let low = HostConfig { memory: 1, ..HostConfig::default() };
        assert_eq!(refusal(&limited(), low), "Minimum memory limit allowed is 6MB");
    }
}
