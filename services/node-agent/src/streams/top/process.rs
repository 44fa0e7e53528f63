//! A process as `/proc` tells it, and what of the host goes into showing it.

use std::{collections::BTreeMap, fs};

use nix::unistd::{Gid, Group, Uid, User};
use time::OffsetDateTime;

/// Clock ticks a second, the same on every Linux.
const TICKS_PER_SECOND: u64 = 100;
const PAGE_KIB: u64 = 4;

/// One process.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) ppid: u32,
    pub(super) group: u64,
    pub(super) session: u64,
    /// -1: no terminal.
    pub(super) foreground_group: i64,
    pub(super) uid: u32,
    pub(super) real_uid: u32,
    pub(super) gid: u32,
    pub(super) terminal: u64,
    pub(super) flags: u64,
    pub(super) minor_faults: u64,
    pub(super) major_faults: u64,
    pub(super) cpu_s: u64,
    pub(super) priority: i64,
    pub(super) nice: i64,
    pub(super) threads: u64,
    pub(super) processor: u64,
    pub(super) started: OffsetDateTime,
    pub(super) resident_kib: u64,
    pub(super) virtual_kib: u64,
    pub(super) locked_kib: u64,
    pub(super) state: char,
    pub(super) name: String,
    pub(super) command: String,
}

/// What is the same for all of them.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) now: OffsetDateTime,
    pub(super) memory_kib: u64,
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
}

impl Host {
    /// Looks up what these processes need: the names of the host, as dockerd's `ps` shows them.
    pub(super) fn of(processes: &[Process]) -> Self {
        let known = |uid: u32| User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| (uid, user.name));
        let known_group = |gid: u32| Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|group| (gid, group.name));
        let mut uids: Vec<u32> = processes.iter().flat_map(|p| [p.uid, p.real_uid]).collect();
        let mut gids: Vec<u32> = processes.iter().map(|p| p.gid).collect();
        uids.sort_unstable();
        uids.dedup();
        gids.sort_unstable();
        gids.dedup();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        Self {
            now: OffsetDateTime::now_utc(),
            memory_kib: total.and_then(|t| t.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(u64::MAX),
            users: uids.into_iter().filter_map(known).collect(),
            groups: gids.into_iter().filter_map(known_group).collect(),
        }
    }

    pub(super) fn user(&self, uid: u32) -> String {
        self.users.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }

    pub(super) fn group(&self, gid: u32) -> String {
        self.groups.get(&gid).cloned().unwrap_or_else(|| gid.to_string())
    }
}

/// When the host was started, in seconds since 1970.
pub(super) fn boot_time() -> i64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    text.lines().find_map(|l| l.strip_prefix("btime ")?.parse().ok()).unwrap_or(0)
}

/// `None` if it ended meanwhile.
pub(super) fn read(pid: u32, boot: i64) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut process = parse(pid, &stat, &status, &arguments, boot)?;
    let inside = |file: &str, id: u32| match fs::read_to_string(format!("/proc/{pid}/{file}")) {
        Ok(map) => seen_inside(&map, id),
        Err(_) => id,
    };
    process.uid = inside("uid_map", process.uid);
    process.real_uid = inside("uid_map", process.real_uid);
    process.gid = inside("gid_map", process.gid);
    Some(process)
}

/// An id of the host as the process' own user namespace has it: a tenant never sees the host's.
fn seen_inside(map: &str, outside: u32) -> u32 {
    let ranges = map.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map_while(|n| n.parse::<u32>().ok());
        Some((numbers.next()?, numbers.next()?, numbers.next()?))
    });
    let within = |(inside, first, count): (u32, u32, u32)| {
        let offset = outside.checked_sub(first).filter(|offset| *offset < count)?;
        inside.checked_add(offset)
    };
    ranges.into_iter().find_map(within).unwrap_or(outside)
}

/// The name in `stat` may hold blanks and brackets: what counts begins after the last bracket.
pub(super) fn parse(pid: u32, stat: &str, status: &str, arguments: &[u8], boot: i64) -> Option<Process> {
    let (head, rest) = stat.rsplit_once(") ")?;
    let name = head.split_once('(')?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |n: usize| fields.get(n)?.parse::<u64>().ok();
    let signed = |n: usize| fields.get(n)?.parse::<i64>().ok();
    let line = |key: &str| status.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
    let id = |key: &str, n: usize| line(key)?.split_whitespace().nth(n)?.parse::<u32>().ok();
    let locked = line("VmLck").and_then(|text| text.trim().trim_end_matches("kB").trim().parse().ok());
    let started_s = boot.saturating_add_unsigned(number(19)? / TICKS_PER_SECOND);
    let words: Vec<_> = arguments.split(|b| *b == 0).filter(|w| !w.is_empty()).map(String::from_utf8_lossy).collect();
    Some(Process {
        pid,
        ppid: u32::try_from(number(1)?).ok()?,
        group: number(2)?,
        session: number(3)?,
        terminal: number(4)?,
        foreground_group: signed(5)?,
        flags: number(6)?,
        minor_faults: number(7)?,
        major_faults: number(9)?,
        cpu_s: (number(11)? + number(12)?) / TICKS_PER_SECOND,
        priority: signed(15)?,
        nice: signed(16)?,
        threads: number(17)?,
        started: OffsetDateTime::from_unix_timestamp(started_s).ok()?,
        virtual_kib: number(20)? / 1024,
        resident_kib: number(21)? * PAGE_KIB,
        processor: number(36).unwrap_or(0),
        uid: id("Uid", 1)?,
        real_uid: id("Uid", 0)?,
        gid: id("Gid", 1)?,
        locked_kib: locked.unwrap_or(0),
        state: fields.first()?.chars().next()?,
        command: if words.is_empty() { format!("[{name}]") } else { words.join(" ") },
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::{super::column::terminal, *};

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let stat = "42 (a) b (c) S 7 42 42 34816 42 4194560 100 0 3 0 150 50 0 0 20 0 1 0 12300 8192000 256 184467";
        let status = "Name:\ta) b (c\nUid:\t5\t6\t6\t6\nGid:\t7\t8\t8\t8\nVmLck:\t       4 kB\n";
        let p = parse(42, stat, status, b"sh\0-c\0true\0", 1_000_000).expect("parses");
        assert_eq!((p.ppid, p.cpu_s, p.command.as_str(), p.name.as_str()), (7, 2, "sh -c true", "a) b (c"));
        assert_eq!((p.started.unix_timestamp(), terminal(p.terminal).as_str()), (1_000_123, "pts/0"));
        assert_eq!((p.virtual_kib, p.resident_kib, p.locked_kib), (8000, 1024, 4));
        assert_eq!((p.real_uid, p.uid, p.gid, p.nice, p.threads), (5, 6, 8, 0, 1));
    }
}
