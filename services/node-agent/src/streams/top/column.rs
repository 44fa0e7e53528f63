//! The columns of `ps`: their names, titles, and what each shows of a process.

use time::{OffsetDateTime, macros::format_description};

use super::process::{Host, Process};

/// What a column shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Pid,
    ParentPid,
    Group,
    Session,
    ForegroundGroup,
    User,
    RealUser,
    Uid,
    RealUid,
    GroupName,
    Gid,
    Name,
    Command,
    Utilization,
    PercentCpu,
    PercentMemory,
    CpuClock,
    CpuSeconds,
    CpuMinutes,
    Elapsed,
    ElapsedSeconds,
    StartTime,
    StartDay,
    StartLong,
    Terminal,
    State,
    StateLong,
    VirtualKib,
    ResidentKib,
    SizePages,
    Nice,
    /// Higher is more important: `pri`.
    Priority,
    /// As the kernel has it: `priority`.
    KernelPriority,
    /// From 60 on, as `-l` shows it.
    OldPriority,
    Threads,
    Processor,
    Flags,
    MajorFaults,
    MinorFaults,
    /// What nobody outside the kernel can tell.
    Nothing,
}

/// A column with its title.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) column: Column,
    pub(super) title: String,
}

/// The names `-o` takes.
const NAMES: &[(&str, Column, &str)] = &[
    ("pid", Column::Pid, "PID"),
    ("tgid", Column::Pid, "TGID"),
    ("lwp", Column::Pid, "LWP"),
    ("tid", Column::Pid, "TID"),
    ("spid", Column::Pid, "SPID"),
    ("ppid", Column::ParentPid, "PPID"),
    ("pgid", Column::Group, "PGID"),
    ("pgrp", Column::Group, "PGRP"),
    ("sid", Column::Session, "SID"),
    ("sess", Column::Session, "SESS"),
    ("session", Column::Session, "SESS"),
    ("tpgid", Column::ForegroundGroup, "TPGID"),
    ("user", Column::User, "USER"),
    ("euser", Column::User, "EUSER"),
    ("uname", Column::User, "USER"),
    ("ruser", Column::RealUser, "RUSER"),
    ("uid", Column::Uid, "UID"),
    ("euid", Column::Uid, "EUID"),
    ("ruid", Column::RealUid, "RUID"),
    ("group", Column::GroupName, "GROUP"),
    ("egroup", Column::GroupName, "EGROUP"),
    ("gid", Column::Gid, "GID"),
    ("egid", Column::Gid, "EGID"),
    ("comm", Column::Name, "COMMAND"),
    ("ucomm", Column::Name, "COMMAND"),
    ("ucmd", Column::Name, "CMD"),
    ("args", Column::Command, "COMMAND"),
    ("command", Column::Command, "COMMAND"),
    ("cmd", Column::Command, "CMD"),
    ("c", Column::Utilization, "C"),
    ("pcpu", Column::PercentCpu, "%CPU"),
    ("%cpu", Column::PercentCpu, "%CPU"),
    ("pmem", Column::PercentMemory, "%MEM"),
    ("%mem", Column::PercentMemory, "%MEM"),
    ("time", Column::CpuClock, "TIME"),
    ("cputime", Column::CpuClock, "TIME"),
    ("times", Column::CpuSeconds, "TIME"),
    ("cputimes", Column::CpuSeconds, "TIME"),
    ("bsdtime", Column::CpuMinutes, "TIME"),
    ("etime", Column::Elapsed, "ELAPSED"),
    ("etimes", Column::ElapsedSeconds, "ELAPSED"),
    ("stime", Column::StartDay, "STIME"),
    ("start_time", Column::StartDay, "START"),
    ("bsdstart", Column::StartDay, "START"),
    ("start", Column::StartTime, "STARTED"),
    ("lstart", Column::StartLong, "STARTED"),
    ("tty", Column::Terminal, "TT"),
    ("tt", Column::Terminal, "TT"),
    ("tname", Column::Terminal, "TTY"),
    ("s", Column::State, "S"),
    ("state", Column::State, "S"),
    ("stat", Column::StateLong, "STAT"),
    ("vsz", Column::VirtualKib, "VSZ"),
    ("vsize", Column::VirtualKib, "VSZ"),
    ("rss", Column::ResidentKib, "RSS"),
    ("rssize", Column::ResidentKib, "RSS"),
    ("rsz", Column::ResidentKib, "RSZ"),
    ("sz", Column::SizePages, "SZ"),
    ("ni", Column::Nice, "NI"),
    ("nice", Column::Nice, "NI"),
    ("pri", Column::Priority, "PRI"),
    ("priority", Column::KernelPriority, "PRI"),
    ("opri", Column::OldPriority, "PRI"),
    ("nlwp", Column::Threads, "NLWP"),
    ("thcount", Column::Threads, "THCNT"),
    ("psr", Column::Processor, "PSR"),
    ("f", Column::Flags, "F"),
    ("flag", Column::Flags, "F"),
    ("flags", Column::Flags, "F"),
    ("maj_flt", Column::MajorFaults, "MAJFL"),
    ("majflt", Column::MajorFaults, "MAJFLT"),
    ("min_flt", Column::MinorFaults, "MINFL"),
    ("minflt", Column::MinorFaults, "MINFLT"),
    ("wchan", Column::Nothing, "WCHAN"),
    ("addr", Column::Nothing, "ADDR"),
    ("label", Column::Nothing, "LABEL"),
];

/// The column `-o` calls so.
pub(super) fn named(name: &str) -> Option<Shown> {
    let found = NAMES.iter().find(|(known, ..)| *known == name);
    found.map(|(_, column, title)| Shown { column: *column, title: (*title).to_owned() })
}

impl Column {
    /// What it shows of a process.
    pub(super) fn of(self, p: &Process, host: &Host) -> String {
        let age_s = (host.now - p.started).whole_seconds().max(1).cast_unsigned();
        let share = |part: u64, whole: u64| format!("{:.1}", part as f64 * 100.0 / whole.max(1) as f64);
        match self {
            Self::Pid => p.pid.to_string(),
            Self::ParentPid => p.ppid.to_string(),
            Self::Group => p.group.to_string(),
            Self::Session => p.session.to_string(),
            Self::ForegroundGroup => p.foreground_group.to_string(),
            Self::User => host.user(p.uid),
            Self::RealUser => host.user(p.real_uid),
            Self::Uid => p.uid.to_string(),
            Self::RealUid => p.real_uid.to_string(),
            Self::GroupName => host.group(p.gid),
            Self::Gid => p.gid.to_string(),
            Self::Name => p.name.clone(),
            Self::Command => p.command.clone(),
            Self::Utilization => (p.cpu_s * 100 / age_s).to_string(),
            Self::PercentCpu => share(p.cpu_s, age_s),
            Self::PercentMemory => share(p.resident_kib, host.memory_kib),
            Self::CpuClock => clock(p.cpu_s),
            Self::CpuSeconds => p.cpu_s.to_string(),
            Self::CpuMinutes => format!("{}:{:02}", p.cpu_s / 60, p.cpu_s % 60),
            Self::Elapsed => elapsed(age_s),
            Self::ElapsedSeconds => age_s.to_string(),
            Self::StartDay => start_day(p.started, host.now),
            Self::StartTime => start_time(p.started, host.now),
            Self::StartLong => {
                let format = format_description!(
                    "[weekday repr:short] [month repr:short] [day padding:space] [hour]:[minute]:[second] [year]"
                );
                p.started.format(format).unwrap_or_default()
            }
            Self::Terminal => terminal(p.terminal),
            Self::State => p.state.to_string(),
            Self::StateLong => state(p),
            Self::VirtualKib => p.virtual_kib.to_string(),
            Self::ResidentKib => p.resident_kib.to_string(),
            Self::SizePages => (p.virtual_kib / 4).to_string(),
            Self::Nice => p.nice.to_string(),
            Self::Priority => (39 - p.priority).to_string(),
            Self::KernelPriority => p.priority.to_string(),
            Self::OldPriority => (60 + p.priority).to_string(),
            Self::Threads => p.threads.to_string(),
            Self::Processor => p.processor.to_string(),
            // Forked without exec, and had root's rights: all that ps shows of them.
            Self::Flags => (p.flags >> 6 & 7).to_string(),
            Self::MajorFaults => p.major_faults.to_string(),
            Self::MinorFaults => p.minor_faults.to_string(),
            Self::Nothing => "-".to_owned(),
        }
    }
}

fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// `05:07`, `03:05:07`, `2-03:05:07`.
fn elapsed(seconds: u64) -> String {
    let (days, hours, rest) =
        (seconds / 86_400, seconds / 3600 % 24, format!("{:02}:{:02}", seconds / 60 % 60, seconds % 60));
    match (days, hours) {
        (0, 0) => rest,
        (0, hours) => format!("{hours:02}:{rest}"),
        (days, hours) => format!("{days}-{hours:02}:{rest}"),
    }
}

fn start_day(started: OffsetDateTime, now: OffsetDateTime) -> String {
    let format = if now.date() == started.date() {
        format_description!("[hour]:[minute]")
    } else {
        format_description!("[month repr:short][day]")
    };
    started.format(format).unwrap_or_default()
}

fn start_time(started: OffsetDateTime, now: OffsetDateTime) -> String {
    let format = if now - started < time::Duration::DAY {
        format_description!("[hour]:[minute]:[second]")
    } else {
        format_description!("[month repr:short] [day]")
    };
    started.format(format).unwrap_or_default()
}

/// `?`, `pts/0`, `tty1`.
pub(super) fn terminal(device: u64) -> String {
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00);
    match major {
        0 => "?".to_owned(),
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 => format!("tty{minor}"),
        _ => format!("{major}:{minor}"),
    }
}

/// The state and what ps adds to it.
fn state(p: &Process) -> String {
    let marks = [
        (p.nice < 0, '<'),
        (p.nice > 0, 'N'),
        (p.locked_kib > 0, 'L'),
        (u64::from(p.pid) == p.session, 's'),
        (p.threads > 1, 'l'),
        (p.foreground_group > 0 && p.foreground_group.cast_unsigned() == p.group, '+'),
    ];
    std::iter::once(p.state).chain(marks.into_iter().filter(|(holds, _)| *holds).map(|(_, mark)| mark)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_look_as_in_ps() {
        assert_eq!((clock(3_725).as_str(), elapsed(65).as_str()), ("01:02:05", "01:05"));
        assert_eq!((elapsed(3_725).as_str(), elapsed(180_065).as_str()), ("01:02:05", "2-02:01:05"));
    }

    #[test]
    fn every_column_is_named_once() {
        for (at, (name, ..)) in NAMES.iter().enumerate() {
            assert!(NAMES[at + 1..].iter().all(|(other, ..)| other != name), "{name}");
        }
    }
}
