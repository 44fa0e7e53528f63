//! The processes of a container as `ps -ef` on the host would show them, read from `/proc`. No
//! program of the host is run with a tenant's arguments.

use std::{collections::BTreeMap, fs};

use contract::agent::TopReply;
use model::{Error, Result};
use runtime::cgroup;
use time::{OffsetDateTime, macros::format_description};

/// One process, as `/proc` tells it.
struct Process {
    pid: u32,
    ppid: u32,
    uid: u32,
    tty: u64,
    cpu_s: u64,
    started: OffsetDateTime,
    resident_kib: u64,
    virtual_kib: u64,
    state: char,
    command: String,
}

/// Clock ticks a second, the same on every Linux.
const TICKS_PER_SECOND: u64 = 100;
const PAGE_KIB: u64 = 4;

/// The table for `ps_args`, one of the common ones.
///
/// # Errors
/// Arguments of `ps` that are not known.
pub(crate) fn top(cgroup_path: &str, ps_args: &str) -> Result<TopReply> {
    let words: Vec<&str> = ps_args.split_whitespace().collect();
    let render: fn(&Process, &Names) -> Vec<String> = match words.as_slice() {
        [] | ["-ef"] | ["-e", "-f"] => full,
        ["aux" | "-aux"] => aux,
        _ => {
            return Err(Error::InvalidArgument(format!("ps arguments `{ps_args}` are not supported: use -ef or aux")));
        }
    };
    let titles: &[&str] = if words.first().is_some_and(|w| w.ends_with("aux")) {
        &["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND"]
    } else {
        &["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    };
    let (boot, mut names) = (boot_time(), Names::default());
    let processes: Vec<Process> = cgroup::pids_in(cgroup_path).into_iter().filter_map(|pid| read(pid, boot)).collect();
    names.learn(processes.iter().map(|p| p.uid));
    Ok(TopReply {
        titles: titles.iter().map(|t| (*t).to_owned()).collect(),
        processes: processes.iter().map(|p| render(p, &names)).collect(),
    })
}

/// User names of the host, as dockerd's `ps` shows them.
#[derive(Default)]
struct Names(BTreeMap<u32, String>);

impl Names {
    fn learn(&mut self, uids: impl Iterator<Item = u32>) {
        for uid in uids {
            self.0.entry(uid).or_insert_with(|| {
                let known = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
                known.map_or_else(|| uid.to_string(), |user| user.name)
            });
        }
    }

    fn of(&self, uid: u32) -> String {
        self.0.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }
}

fn full(p: &Process, names: &Names) -> Vec<String> {
    let age_s = (OffsetDateTime::now_utc() - p.started).whole_seconds().max(1).cast_unsigned();
    vec![
        names.of(p.uid),
        p.pid.to_string(),
        p.ppid.to_string(),
        (p.cpu_s * 100 / age_s).to_string(),
        start_time(p.started),
        terminal(p.tty),
        clock(p.cpu_s),
        p.command.clone(),
    ]
}

fn aux(p: &Process, names: &Names) -> Vec<String> {
    let age_s = (OffsetDateTime::now_utc() - p.started).whole_seconds().max(1).cast_unsigned();
    let total_kib = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()
    });
    let share = |part: u64, whole: u64| format!("{:.1}", part as f64 * 100.0 / whole.max(1) as f64);
    vec![
        names.of(p.uid),
        p.pid.to_string(),
        share(p.cpu_s, age_s),
        share(p.resident_kib, total_kib.unwrap_or(u64::MAX)),
        p.virtual_kib.to_string(),
        p.resident_kib.to_string(),
        terminal(p.tty),
        p.state.to_string(),
        start_time(p.started),
        format!("{}:{:02}", p.cpu_s / 60, p.cpu_s % 60),
        p.command.clone(),
    ]
}

fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn start_time(started: OffsetDateTime) -> String {
    let today = OffsetDateTime::now_utc().date() == started.date();
    let format =
        if today { format_description!("[hour]:[minute]") } else { format_description!("[month repr:short][day]") };
    started.format(format).unwrap_or_default()
}

fn terminal(device: u64) -> String {
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00);
    match major {
        0 => "?".to_owned(),
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 => format!("tty{minor}"),
        _ => format!("{major}:{minor}"),
    }
}

fn boot_time() -> i64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    text.lines().find_map(|l| l.strip_prefix("btime ")?.parse().ok()).unwrap_or(0)
}

/// `None` if it ended meanwhile.
fn read(pid: u32, boot: i64) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let uid = status.lines().find_map(|l| l.strip_prefix("Uid:")?.split_whitespace().nth(1)?.parse().ok())?;
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap_or_default();
    parse(pid, &stat, &arguments, inside(uid, &map), boot)
}

/// A user's id as its container knows it: the range on the host is nobody's business.
fn inside(uid: u32, map: &str) -> u32 {
    let ranges = map.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?))
    });
    let of = |(inner, outer, count): (u32, u32, u32)| {
        let nth = uid.checked_sub(outer).filter(|n| *n < count)?;
        inner.checked_add(nth)
    };
    ranges.filter_map(of).next().unwrap_or(uid)
}

/// The name in `stat` may hold blanks and brackets: what counts begins after the last bracket.
fn parse(pid: u32, stat: &str, arguments: &[u8], uid: u32, boot: i64) -> Option<Process> {
    let (head, rest) = stat.rsplit_once(") ")?;
    let name = head.split_once('(')?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |n: usize| fields.get(n)?.parse::<u64>().ok();
    let started_s = boot.saturating_add_unsigned(number(19)? / TICKS_PER_SECOND);
    let words: Vec<_> = arguments.split(|b| *b == 0).filter(|w| !w.is_empty()).map(String::from_utf8_lossy).collect();
    Some(Process {
        pid,
        ppid: u32::try_from(number(1)?).ok()?,
        uid,
        tty: number(4)?,
        cpu_s: (number(11)? + number(12)?) / TICKS_PER_SECOND,
        started: OffsetDateTime::from_unix_timestamp(started_s).ok()?,
        resident_kib: number(21)? * PAGE_KIB,
        virtual_kib: number(20)? / 1024,
        state: fields.first()?.chars().next()?,
        command: if words.is_empty() { format!("[{name}]") } else { words.join(" ") },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let stat = "42 (a) b (c) S 7 42 42 34816 42 4194560 100 0 0 0 150 50 0 0 20 0 1 0 12300 8192000 256 184467";
        let p = parse(42, stat, b"sh\0-c\0true\0", 0, 1_000_000).expect("parses");
        assert_eq!((p.ppid, p.cpu_s, p.command.as_str()), (7, 2, "sh -c true"));
        assert_eq!((p.started.unix_timestamp(), terminal(p.tty).as_str()), (1_000_123, "pts/0"));
        assert_eq!((p.virtual_kib, p.resident_kib), (8000, 1024));
    }

    #[test]
    fn users_are_those_of_the_container() {
        let map = "         0    1048576      65536\n";
        assert_eq!([1_048_576, 1_048_609, 1_114_112, 7].map(|uid| inside(uid, map)), [0, 33, 1_114_112, 7]);
        assert_eq!(inside(33, "         0          0 4294967295\n"), 33);
    }

    #[test]
    fn unknown_arguments_are_refused_by_name() {
        assert!(top("/none", "-o pid,comm").expect_err("refused").to_string().contains("-o pid,comm"));
        assert_eq!(top("/none", "aux").expect("known").titles[0], "USER");
        assert_eq!(top("/none", "").expect("known").titles[0], "UID");
    }
}
