//! Limits, with dockerd's ranges and texts.

use model::{MemoryBytes, NanoCpus, Resources, Result, Ulimit};

use super::{super::host_config::HostConfig, forbidden, invalid, settings};

/// dockerd's floor for a memory limit.
const MEMORY_MIN: i64 = 6 * 1024 * 1024;
/// Most processes one container may be granted.
const PIDS_MAX: i64 = 32_768;
/// Most open files per process.
const NOFILE_MAX: i64 = 1_048_576;

const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Signals by number, from 1.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// `9`, `KILL`, `SIGKILL`, `RTMIN+3` as a number from 1 to 64.
pub(crate) fn signal_number(written: &str) -> Option<i32> {
    if let Ok(number) = written.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = written.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let realtime = |base: i32, offset: &str| {
        let offset: i32 = if offset.is_empty() { 0 } else { offset.parse().ok()? };
        let number = base + offset;
        (34..=64).contains(&number).then_some(number)
    };
    if let Some(offset) = name.strip_prefix("RTMIN") {
        return realtime(34, offset);
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        return realtime(64, offset);
    }
    match name {
        "IOT" => Some(6),
        "CLD" => Some(17),
        "POLL" => Some(29),
        _ => SIGNALS.iter().position(|s| *s == name).and_then(|i| i32::try_from(i + 1).ok()),
    }
}

/// The limits asked for, each in its range.
pub(super) fn resources(host: &HostConfig, warnings: &mut Vec<String>) -> Result<Resources> {
    if host.memory_swap > 0 && host.memory == 0 {
        return Err(invalid("You should always set the Memory limit when using Memoryswap limit, see usage"));
    }
    check(host)?;
    if host.memory_swap == -1 {
        warnings.push(
            "MemorySwap=-1: unlimited swap is not available on Wharfage; twice the memory limit is allowed".into(),
        );
    }
    let positive = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0);
    Ok(Resources {
        memory_bytes: positive(host.memory).map(MemoryBytes),
        memory_swap_bytes: positive(host.memory_swap).map(MemoryBytes),
        memory_reservation_bytes: positive(host.memory_reservation).map(MemoryBytes),
        nano_cpus: positive(host.nano_cpus).map(NanoCpus),
        cpu_shares: positive(host.cpu_shares),
        cpu_period_us: positive(host.cpu_period),
        cpu_quota_us: (host.cpu_quota > 0).then_some(host.cpu_quota),
        cpuset_cpus: cpuset(&host.cpuset_cpus, "cpus")?,
        cpuset_mems: cpuset(&host.cpuset_mems, "mems")?,
        memory_swappiness: swappiness(host.memory_swappiness)?,
        pids_limit: pids(host.pids_limit)?,
        blkio_weight: blkio_weight(host.blkio_weight)?,
        ulimits: ulimits(host)?,
        shm_size_bytes: shm_size(host.shm_size)?,
    })
}

/// The ranges of values, whether they are all that is asked for or a change.
pub(super) fn check(host: &HostConfig) -> Result<()> {
    check_memory(host)?;
    check_cpu(host)
}

fn check_memory(host: &HostConfig) -> Result<()> {
    let (memory, swap, reservation) = (host.memory, host.memory_swap, host.memory_reservation);
    if memory != 0 && memory < MEMORY_MIN {
        return Err(invalid("Minimum memory limit allowed is 6MB"));
    }
    if swap < -1 {
        return Err(invalid("invalid MemorySwap: it cannot be less than -1"));
    }
    if swap > 0 && swap < memory {
        return Err(invalid("Minimum memoryswap limit should be larger than memory limit, see usage"));
    }
    if reservation != 0 && reservation < MEMORY_MIN {
        return Err(invalid("Minimum memory reservation allowed is 6MB"));
    }
    if memory > 0 && reservation > memory {
        return Err(invalid("Minimum memory limit can not be less than memory reservation limit, see usage"));
    }
    Ok(())
}

fn check_cpu(host: &HostConfig) -> Result<()> {
    let nano = host.nano_cpus;
    if nano != 0 && nano < 10_000_000 {
        return Err(invalid("Range of CPUs is from 0.01 upwards"));
    }
    if nano > 0 && host.cpu_period != 0 {
        return Err(invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set"));
    }
    if nano > 0 && host.cpu_quota != 0 {
        return Err(invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set"));
    }
    if host.cpu_period != 0 && !(1_000..=1_000_000).contains(&host.cpu_period) {
        return Err(invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"));
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1_000 {
        return Err(invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)"));
    }
    if host.cpu_quota < -1 {
        return Err(invalid("invalid CpuQuota: it cannot be less than -1"));
    }
    if host.cpu_shares != 0 && !(2..=262_144).contains(&host.cpu_shares) {
        return Err(invalid("Range of cpu shares is from 2 to 262144"));
    }
    Ok(())
}

/// `0-2,4`.
fn cpuset(written: &str, what: &str) -> Result<Option<String>> {
    let number = |n: &str| n.parse::<u16>().is_ok_and(|n| n < 4096);
    let part = |p: &str| p.split_once('-').map_or_else(|| number(p), |(a, b)| number(a) && number(b));
    if written.is_empty() {
        return Ok(None);
    }
    if written.len() <= 1024 && written.split(',').all(part) {
        Ok(Some(written.to_owned()))
    } else {
        Err(invalid(format!("Invalid value {written} for cpuset {what}")))
    }
}

/// -1 is the host's own.
fn swappiness(asked: Option<i64>) -> Result<Option<u8>> {
    match asked {
        None | Some(-1) => Ok(None),
        Some(n) => match u8::try_from(n).ok().filter(|n| *n <= 100) {
            Some(n) => Ok(Some(n)),
            None => Err(invalid(format!("Invalid value: {n}, valid memory swappiness range is 0-100"))),
        },
    }
}

/// 0 and -1 are "unlimited": the host's own bound then.
fn pids(limit: Option<i64>) -> Result<Option<u64>> {
    match limit {
        None | Some(0 | -1) => Ok(None),
        Some(n) if (1..=PIDS_MAX).contains(&n) => Ok(u64::try_from(n).ok()),
        Some(n) if n > PIDS_MAX => {
            Err(forbidden(format!("PidsLimit {n}: at most {PIDS_MAX} processes are available on Wharfage")))
        }
        Some(n) => Err(invalid(format!("invalid PidsLimit: {n}"))),
    }
}

fn blkio_weight(weight: i64) -> Result<Option<u16>> {
    match weight {
        0 => Ok(None),
        10..=1000 => Ok(u16::try_from(weight).ok()),
        _ => Err(invalid("Range of blkio weight is from 10 to 1000")),
    }
}

fn shm_size(size: i64) -> Result<Option<u64>> {
    match size {
        0 => Ok(None),
        n if n < 0 => Err(invalid("SHM size can not be less than 0")),
        n => settings::memory_size("ShmSize", n.unsigned_abs()).map(Some),
    }
}

fn ulimits(host: &HostConfig) -> Result<Vec<Ulimit>> {
    host.ulimits
        .iter()
        .map(|u| {
            let name = u.name.to_ascii_lowercase();
            if !ULIMITS.contains(&name.as_str()) {
                return Err(invalid(format!("invalid ulimit type: {}", u.name)));
            }
            if u.soft < -1 || u.hard < -1 {
                return Err(invalid(format!("invalid ulimit {name}: less than -1")));
            }
            if u.hard != -1 && (u.soft == -1 || u.soft > u.hard) {
                return Err(invalid(format!(
                    "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                    u.soft, u.hard
                )));
            }
            if name == "nofile" && u.hard > NOFILE_MAX {
                return Err(forbidden(format!(
                    "Ulimits nofile {}: at most {NOFILE_MAX} are available on Wharfage",
                    u.hard
                )));
            }
            if name == "rtprio" && u.hard != 0 {
                return Err(forbidden(
                    "Ulimits rtprio is not available on Wharfage: realtime scheduling would starve other tenants",
                ));
            }
            Ok(Ulimit { name, soft: u.soft, hard: u.hard })
        })
        .collect()
}
