//! What a container uses, in Docker's stats document: read from its cgroup (v1 or v2) and its
//! network devices, once or every second.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use futures::Stream;
use model::Phase;
use runtime::cgroup;
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{host::SharedHost, keeper::Handle};

const EVERY: Duration = Duration::from_secs(1);
const CGROUPS: &str = "/sys/fs/cgroup";

/// Documents, one a line. Without `stream` there is one: with `one_shot` at once, otherwise after a
/// second, so that it has two samples. It ends when the run does.
pub(crate) fn stream(
    host: &SharedHost,
    keeper: &Handle,
    stream: bool,
    one_shot: bool,
) -> impl Stream<Item = io::Result<Bytes>> + use<> {
    let (cgroup_path, observed) = (host.cgroup_path(&keeper.id), keeper.observed());
    let name = keeper.plan().map(|p| format!("/{}", p.name)).unwrap_or_default();
    let head = json!({ "id": keeper.id, "name": name, "os_type": "linux" });
    futures::stream::unfold((0_u32, None::<Value>), move |(count, mut before)| {
        let (cgroup_path, mut observed, head) = (cgroup_path.clone(), observed.clone(), head.clone());
        async move {
            if count > 0 && !stream {
                return None;
            }
            let pid = |o: &model::Observed| o.pid.filter(|_| o.progress.phase == Phase::Running);
            let Some(mut first) = pid(&observed.borrow_and_update()) else {
                return (count == 0).then(|| (Ok(document(&head, &Value::Null, &Value::Null)), (count + 1, None)));
            };
            let wait_for_second = count > 0 || (!stream && !one_shot);
            if wait_for_second {
                if before.is_none() {
                    before = Some(sample(&cgroup_path, first));
                }
                tokio::time::sleep(EVERY).await;
                match pid(&observed.borrow_and_update()) {
                    Some(pid) => first = pid,
                    None => return None,
                }
            }
            let now = sample(&cgroup_path, first);
            let line = document(&head, &now, before.as_ref().unwrap_or(&Value::Null));
            Some((Ok(line), (count + 1, Some(now))))
        }
    })
}

/// Docker's shape: the sample, and of the one before its CPU times.
fn document(head: &Value, now: &Value, before: &Value) -> Bytes {
    let mut all = head.as_object().cloned().unwrap_or_default();
    let zero_time = "0001-01-01T00:00:00Z";
    let empty = json!({
        "read": zero_time, "pids_stats": {}, "blkio_stats": empty_blkio(), "num_procs": 0, "storage_stats": {},
        "cpu_stats": empty_cpu(), "memory_stats": {}
    });
    let now = if now.is_null() { &empty } else { now };
    all.extend(now.as_object().cloned().unwrap_or_default());
    all.insert("preread".into(), before.get("read").cloned().unwrap_or_else(|| zero_time.into()));
    all.insert("precpu_stats".into(), before.get("cpu_stats").cloned().unwrap_or_else(empty_cpu));
    let mut line = Value::Object(all).to_string().into_bytes();
    line.push(b'\n');
    line.into()
}

fn empty_cpu() -> Value {
    json!({
        "cpu_usage": { "total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0 },
        "throttling_data": { "periods": 0, "throttled_periods": 0, "throttled_time": 0 }
    })
}

fn empty_blkio() -> Value {
    json!({
        "io_service_bytes_recursive": null, "io_serviced_recursive": null, "io_queue_recursive": null,
        "io_service_time_recursive": null, "io_wait_time_recursive": null, "io_merged_recursive": null,
        "io_time_recursive": null, "sectors_recursive": null
    })
}

fn sample(cgroup_path: &str, pid: u32) -> Value {
    let group = Group { inner: cgroup_path.trim_start_matches('/').to_owned(), unified: cgroup::is_unified() };
    let (current, limit) = group.pids();
    let mut pids = json!({ "current": current });
    if let Some(limit) = limit {
        pids["limit"] = limit.into();
    }
    json!({
        "read": OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
        "pids_stats": pids,
        "blkio_stats": group.blkio(),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": group.cpu(),
        "memory_stats": group.memory(),
        "networks": networks(pid),
    })
}

/// A cgroup's files.
struct Group {
    inner: String,
    unified: bool,
}

impl Group {
    fn file(&self, controller: &str, name: &str) -> PathBuf {
        let root = Path::new(CGROUPS);
        if self.unified {
            root.join(&self.inner).join(name)
        } else {
            root.join(controller).join(&self.inner).join(name)
        }
    }

    fn text(&self, controller: &str, name: &str) -> String {
        fs::read_to_string(self.file(controller, name)).unwrap_or_default()
    }

    fn number(&self, controller: &str, name: &str) -> Option<u64> {
        self.text(controller, name).trim().parse().ok()
    }

    fn table(&self, controller: &str, name: &str) -> Map<String, Value> {
        let text = self.text(controller, name);
        let row = |line: &str| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse::<u64>().ok()?.into()))
        };
        text.lines().filter_map(row).collect()
    }

    fn pids(&self) -> (u64, Option<u64>) {
        (self.number("pids", "pids.current").unwrap_or(0), self.number("pids", "pids.max"))
    }

    fn cpu(&self) -> Value {
        let of = |table: &Map<String, Value>, key: &str| table.get(key).and_then(Value::as_u64).unwrap_or(0);
        let stat = self.table("cpu", "cpu.stat");
        let (usage, throttled_ns) = if self.unified {
            let ns = |key: &str| of(&stat, key) * 1000;
            let usage = json!({
                "total_usage": ns("usage_usec"), "usage_in_kernelmode": ns("system_usec"), "usage_in_usermode": ns("user_usec")
            });
            (usage, ns("throttled_usec"))
        } else {
            let ticks = self.table("cpuacct", "cpuacct.stat");
            let per_cpu: Vec<u64> = self
                .text("cpuacct", "cpuacct.usage_percpu")
                .split_whitespace()
                .filter_map(|n| n.parse().ok())
                .collect();
            let usage = json!({
                "total_usage": self.number("cpuacct", "cpuacct.usage").unwrap_or(0),
                "percpu_usage": per_cpu,
                "usage_in_kernelmode": of(&ticks, "system") * 10_000_000,
                "usage_in_usermode": of(&ticks, "user") * 10_000_000,
            });
            (usage, of(&stat, "throttled_time"))
        };
        json!({
            "cpu_usage": usage,
            "system_cpu_usage": system_cpu_ns(),
            "online_cpus": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            "throttling_data": {
                "periods": of(&stat, "nr_periods"), "throttled_periods": of(&stat, "nr_throttled"), "throttled_time": throttled_ns
            }
        })
    }

    fn memory(&self) -> Value {
        if self.unified {
            return json!({
                "usage": self.number("", "memory.current").unwrap_or(0),
                "stats": self.table("", "memory.stat"),
                "limit": self.number("", "memory.max").unwrap_or_else(host_memory_bytes),
            });
        }
        let limit = self.number("memory", "memory.limit_in_bytes").unwrap_or(u64::MAX);
        json!({
            "usage": self.number("memory", "memory.usage_in_bytes").unwrap_or(0),
            "max_usage": self.number("memory", "memory.max_usage_in_bytes").unwrap_or(0),
            "stats": self.table("memory", "memory.stat"),
            // Without a limit the file says nearly 2^63, where Docker shows the host's memory.
            "limit": limit.min(host_memory_bytes()),
        })
    }

    fn blkio(&self) -> Value {
        let mut all = empty_blkio();
        if self.unified {
            let rows: Vec<Value> = self.text("", "io.stat").lines().flat_map(unified_io).collect();
            all["io_service_bytes_recursive"] = rows.into();
            return all;
        }
        // Those that the kernel counts only under its proportional scheduler: read, and nothing there.
        for of_scheduler in [
            "io_queue_recursive",
            "io_service_time_recursive",
            "io_wait_time_recursive",
            "io_merged_recursive",
            "io_time_recursive",
            "sectors_recursive",
        ] {
            all[of_scheduler] = json!([]);
        }
        let rows = |name: &str| -> Vec<Value> { self.text("blkio", name).lines().filter_map(legacy_io).collect() };
        all["io_service_bytes_recursive"] = rows("blkio.throttle.io_service_bytes_recursive").into();
        all["io_serviced_recursive"] = rows("blkio.throttle.io_serviced_recursive").into();
        all
    }
}

/// `254:0 Read 4096`.
fn legacy_io(line: &str) -> Option<Value> {
    let mut words = line.split_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    let (op, value) = (words.next()?, words.next()?);
    Some(json!({
        "major": major.parse::<u64>().ok()?, "minor": minor.parse::<u64>().ok()?, "op": op, "value": value.parse::<u64>().ok()?
    }))
}

/// `254:0 rbytes=4096 wbytes=0 …`.
fn unified_io(line: &str) -> Vec<Value> {
    let mut words = line.split_whitespace();
    let device = words.next().and_then(|d| d.split_once(':'));
    let Some((major, minor)) = device.and_then(|(a, b)| Some((a.parse::<u64>().ok()?, b.parse::<u64>().ok()?))) else {
        return Vec::new();
    };
    let row = |word: &str| {
        let (key, value) = word.split_once('=')?;
        let op = match key {
            "rbytes" => "read",
            "wbytes" => "write",
            _ => return None,
        };
        Some(json!({ "major": major, "minor": minor, "op": op, "value": value.parse::<u64>().ok()? }))
    };
    words.filter_map(row).collect()
}

/// All CPUs of the host, as Docker counts it: user, nice, system, idle, iowait, irq, softirq.
fn system_cpu_ns() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let Some(line) = text.lines().find_map(|l| l.strip_prefix("cpu ")) else { return 0 };
    let ticks: u64 = line.split_whitespace().take(7).filter_map(|n| n.parse::<u64>().ok()).sum();
    ticks * 10_000_000
}

fn host_memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// The devices in the container's namespace, but for `lo`.
fn networks(pid: u32) -> Value {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let row = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let n: Vec<u64> = rest.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let at = |i: usize| n.get(i).copied().unwrap_or(0);
        let numbers = json!({
            "rx_bytes": at(0), "rx_packets": at(1), "rx_errors": at(2), "rx_dropped": at(3),
            "tx_bytes": at(8), "tx_packets": at(9), "tx_errors": at(10), "tx_dropped": at(11)
        });
        (name.trim() != "lo").then(|| (name.trim().to_owned(), numbers))
    };
    Value::Object(text.lines().skip(2).filter_map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_numbers_of_both_hierarchies_read_alike() {
        let v1 = legacy_io("254:0 Read 4096").expect("a row");
        assert_eq!(v1, json!({"major": 254, "minor": 0, "op": "Read", "value": 4096}));
        assert!(legacy_io("Total 4096").is_none());
        let v2 = unified_io("254:0 rbytes=1 wbytes=2 rios=3");
        assert_eq!(v2.len(), 2);
        assert_eq!(v2[1]["value"], 2);
    }

    #[test]
    fn a_document_of_nothing_has_zeroes_and_its_name() {
        let line = document(&json!({"id": "x", "name": "/web"}), &Value::Null, &Value::Null);
        let value: Value = serde_json::from_slice(&line).expect("is JSON");
        assert_eq!(value["name"], "/web");
        assert_eq!(value["precpu_stats"]["cpu_usage"]["total_usage"], 0);
    }
}
