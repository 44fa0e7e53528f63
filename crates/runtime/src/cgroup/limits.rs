//! Limits as an OCI resources document has them, written to the files of cgroup v1. A document that asks
//! for something not known here is no [`Limits`]: then the OCI runtime, which knows it, is asked.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use super::{ROOT, is_unified};
use crate::words;

/// What a container may use, all of it understood.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    devices: Option<Vec<DeviceRule>>,
    memory: Memory,
    cpu: Cpu,
    pids: Pids,
    #[serde(rename = "blockIO")]
    block_io: BlockIo,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceRule {
    allow: bool,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    major: Option<u32>,
    #[serde(default)]
    minor: Option<u32>,
    access: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Memory {
    limit: Option<i64>,
    reservation: Option<i64>,
    swap: Option<i64>,
    swappiness: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Cpu {
    shares: Option<u64>,
    quota: Option<i64>,
    period: Option<u64>,
    cpus: Option<String>,
    mems: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Pids {
    limit: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct BlockIo {
    weight: Option<u16>,
}

/// What runtimes allow of themselves: making any node, which a device cgroup does not open, and the
/// default devices with the terminals.
const ALWAYS_ALLOWED: [&str; 10] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

impl Limits {
    /// The document, if all of it is understood and this host's cgroups are those that are written here.
    #[must_use]
    pub fn known(document: &Value) -> Option<Self> {
        if is_unified() {
            // Its device list is a program.
            return None;
        }
        let limits: Self = serde_json::from_value(document.clone()).ok()?;
        let mut rules = limits.devices.as_deref().unwrap_or_default().iter();
        let denies = rules.next().is_none_or(|first| first.denies_all() && Path::new(ROOT).join("devices").is_dir());
        (denies && rules.all(|rule| rule.allowed().is_some())).then_some(limits)
    }

    /// Writes what is asked; what is not asked stays as it is.
    ///
    /// # Errors
    /// The kernel refuses, in the words of runc.
    pub fn apply(&self, cgroup_path: &str) -> Result<(), String> {
        self.apply_amounts(cgroup_path)?;
        self.apply_processes(cgroup_path)
    }

    /// Bounds the number of processes alone: who makes a first one counts beside it, and is let go first.
    ///
    /// # Errors
    /// The kernel refuses, in the words of runc.
    pub fn apply_processes(&self, cgroup_path: &str) -> Result<(), String> {
        let group = Group { inner: cgroup_path.trim_start_matches('/') };
        // Nought is "as it is" for runc.
        let limit = self.pids.limit.filter(|limit| *limit != 0);
        group.write_some("pids/pids.max", limit.map(or_max))
    }

    /// All but the number of processes.
    pub(super) fn apply_amounts(&self, cgroup_path: &str) -> Result<(), String> {
        let group = Group { inner: cgroup_path.trim_start_matches('/') };
        self.memory(&group)?;
        group.write_some("cpuset/cpuset.cpus", self.cpu.cpus.as_ref().filter(|cpus| !cpus.is_empty()))?;
        group.write_some("cpuset/cpuset.mems", self.cpu.mems.as_ref().filter(|mems| !mems.is_empty()))?;
        self.cpu(&group)?;
        let weight = self.block_io.weight.filter(|weight| *weight != 0);
        let own = group.path("blkio/blkio.weight").exists();
        group.write_some(if own { "blkio/blkio.weight" } else { "blkio/blkio.bfq.weight" }, weight)
    }

    /// Denies all devices but those allowed. For a group nobody is in.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn apply_devices(&self, cgroup_path: &str) -> Result<(), String> {
        let Some(rules) = &self.devices else { return Ok(()) };
        let group = Group { inner: cgroup_path.trim_start_matches('/') };
        group.write("devices/devices.deny", "a")?;
        let mut allowed: Vec<String> = ALWAYS_ALLOWED.iter().map(|rule| (*rule).to_owned()).collect();
        for rule in rules.iter().filter_map(DeviceRule::allowed) {
            if !allowed.contains(&rule) {
                allowed.push(rule);
            }
        }
        allowed.iter().try_for_each(|rule| group.write("devices/devices.allow", rule))
    }

    fn memory(&self, group: &Group<'_>) -> Result<(), String> {
        const LIMIT: &str = "memory/memory.limit_in_bytes";
        const SWAP: &str = "memory/memory.memsw.limit_in_bytes";
        let set = |value: Option<i64>| value.filter(|value| *value != 0);
        let (limit, mut swap) = (set(self.memory.limit), set(self.memory.swap));
        if limit == Some(-1) && swap.is_none() && group.path(SWAP).exists() {
            swap = Some(-1);
        }
        // The kernel keeps the limit at most the limit with swap, whichever is written first.
        let now = || fs::read_to_string(group.path(LIMIT)).ok()?.trim().parse::<i64>().ok();
        let swap_first = match (limit, swap) {
            (Some(_), Some(swap)) => swap == -1 || now().is_some_and(|now| now < swap),
            _ => false,
        };
        let order = if swap_first { [(SWAP, swap), (LIMIT, limit)] } else { [(LIMIT, limit), (SWAP, swap)] };
        for (file, value) in order {
            let Some(value) = value else { continue };
            match group.try_write(file, &value.to_string()) {
                Err(e) if file == LIMIT && e.raw_os_error() == Some(libc::EBUSY) => {
                    let told = |file: &str| fs::read_to_string(group.path(file)).unwrap_or_default().trim().to_owned();
                    return Err(format!(
                        "unable to set memory limit to {value} (current usage: {}, peak usage: {})",
                        told("memory/memory.usage_in_bytes"),
                        told("memory/memory.max_usage_in_bytes")
                    ));
                }
                written => written.map_err(|e| group.refused(file, &value.to_string(), &e))?,
            }
        }
        group.write_some("memory/memory.soft_limit_in_bytes", set(self.memory.reservation))?;
        group.write_some("memory/memory.swappiness", self.memory.swappiness)
    }

    fn cpu(&self, group: &Group<'_>) -> Result<(), String> {
        const PERIOD: &str = "cpu/cpu.cfs_period_us";
        group.write_some("cpu/cpu.shares", self.cpu.shares.filter(|shares| *shares != 0))?;
        let period = self.cpu.period.filter(|period| *period != 0).map(|period| period.to_string());
        let quota = self.cpu.quota.filter(|quota| *quota != 0);
        // A period that does not go with the quota there is goes with the one that comes.
        let mut late = None;
        if let Some(period) = &period {
            match group.try_write(PERIOD, period) {
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) && quota.is_some() => late = Some(period),
                written => written.map_err(|e| group.refused(PERIOD, period, &e))?,
            }
        }
        group.write_some("cpu/cpu.cfs_quota_us", quota)?;
        group.write_some(PERIOD, late)
    }
}

impl DeviceRule {
    fn denies_all(&self) -> bool {
        let all = self.kind.as_deref().is_none_or(|kind| kind == "a");
        !self.allow && all && self.major.is_none() && self.minor.is_none() && self.access == "rwm"
    }

    /// As the kernel reads it, if it allows one character device.
    fn allowed(&self) -> Option<String> {
        let plain = self.allow && self.kind.as_deref() == Some("c");
        let access = !self.access.is_empty() && self.access.chars().all(|right| "rwm".contains(right));
        Some(format!("c {}:{} {}", self.major?, self.minor?, self.access)).filter(|_| plain && access)
    }
}

fn or_max(limit: i64) -> String {
    if limit > 0 { limit.to_string() } else { "max".to_owned() }
}

/// One group in all hierarchies; files are named `<hierarchy>/<file>`.
struct Group<'a> {
    inner: &'a str,
}

impl Group<'_> {
    fn path(&self, file: &str) -> PathBuf {
        let (hierarchy, file) = file.split_once('/').unwrap_or_default();
        Path::new(ROOT).join(hierarchy).join(self.inner).join(file)
    }

    fn try_write(&self, file: &str, value: &str) -> io::Result<()> {
        write(&self.path(file), value)
    }

    fn write(&self, file: &str, value: &str) -> Result<(), String> {
        self.try_write(file, value).map_err(|e| self.refused(file, value, &e))
    }

    fn write_some<T: ToString>(&self, file: &str, value: Option<T>) -> Result<(), String> {
        value.map_or(Ok(()), |value| self.write(file, &value.to_string()))
    }

    fn refused(&self, file: &str, value: &str, e: &io::Error) -> String {
        let path = self.path(file);
        format!("failed to write {value:?}: write {}: {}", path.display(), words(e))
    }
}

/// Without creating: what is no file of the kernel's is an error.
pub(super) fn write(path: &Path, value: &str) -> io::Result<()> {
    io::Write::write_all(&mut fs::OpenOptions::new().write(true).open(path)?, value.as_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Value {
        json!({"devices": [{"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}],
            "memory": {"limit": 5, "swap": 10, "reservation": 4, "swappiness": 0},
            "cpu": {"shares": 2, "quota": 1000, "period": 100_000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 7}, "blockIO": {"weight": 500}})
    }

    #[test]
    fn what_is_not_understood_is_left_to_the_runtime() {
        if is_unified() {
            assert_eq!(Limits::known(&document()), None);
            return;
        }
        assert!(Limits::known(&document()).is_some());
        assert!(Limits::known(&json!({})).is_some());
        for (path, value) in [
            ("/memory", json!({"kernel": 5})),
            ("/memory", json!({"disableOOMKiller": true})),
            ("/cpu", json!({"realtimeRuntime": 5})),
            ("/blockIO", json!({"weight": 10, "throttleReadBpsDevice": []})),
            ("/pids", json!({"limit": 1, "more": 1})),
            ("/devices", json!([{"allow": true, "access": "rwm"}])),
            ("/devices/0/access", json!("r")),
            ("/devices/1/type", json!("b")),
            ("/devices/1/allow", json!(false)),
            ("/devices/1/minor", json!(-1)),
            ("/devices/1/access", json!("rwx")),
        ] {
            let mut document = document();
            *document.pointer_mut(path).expect("is there") = value.clone();
            assert_eq!(Limits::known(&document), None, "{path} {value}");
        }
        let mut with = document();
        with["hugepageLimits"] = json!([]);
        assert_eq!(Limits::known(&with), None);
    }

    #[test]
    fn a_rule_is_as_the_kernel_reads_it() {
        let rule = |major, minor, access: &str| DeviceRule {
            allow: true,
            kind: Some("c".into()),
            major,
            minor,
            access: access.into(),
        };
        assert_eq!(rule(Some(1), Some(3), "rw").allowed().as_deref(), Some("c 1:3 rw"));
        assert_eq!(rule(None, Some(3), "rw").allowed(), None);
    }
}
