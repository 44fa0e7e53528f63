//! The processes of a container as `ps` on the host would show them, read from `/proc`. No program
//! of the host is run with a tenant's arguments.

mod arguments;
mod column;
mod process;

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use arguments::{Asked, Order};
use column::Column;
use contract::agent::TopReply;
use model::Result;
use process::{Host, Process};
use runtime::cgroup;

/// The table for `ps_args`.
///
/// # Errors
/// Arguments that `ps` would not understand, or that are not available here.
pub(crate) fn top(cgroup_path: &str, ps_args: &str) -> Result<TopReply> {
    let asked = arguments::parse(ps_args)?;
    let boot = process::boot_time();
    let pids = cgroup::pids_in(cgroup_path);
    let processes: Vec<Process> = pids.into_iter().filter_map(|pid| process::read(pid, boot)).collect();
    let host = Host::of(&processes);
    Ok(table(&asked, processes, &host))
}

fn table(asked: &Asked, processes: Vec<Process>, host: &Host) -> TopReply {
    let row = |p: &Process| asked.columns.iter().map(|shown| shown.column.of(p, host)).collect();
    TopReply {
        titles: asked.columns.iter().map(|shown| shown.title.clone()).collect(),
        processes: ordered(processes, &asked.order, host).iter().map(row).collect(),
    }
}

fn ordered(mut processes: Vec<Process>, order: &Order, host: &Host) -> Vec<Process> {
    match order {
        Order::Pid => {}
        Order::Keys(keys) => processes.sort_by(|a, b| {
            let compared = keys.iter().map(|(column, downwards)| {
                let upwards = compare(*column, a, b, host);
                if *downwards { upwards.reverse() } else { upwards }
            });
            compared.fold(Ordering::Equal, Ordering::then)
        }),
        Order::Tree { drawn } => return tree(&processes, *drawn),
    }
    processes
}

/// Numbers as numbers, the rest as text.
fn compare(column: Column, a: &Process, b: &Process, host: &Host) -> Ordering {
    let (a, b) = (column.of(a, host), column.of(b, host));
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => a.total_cmp(&b),
        (Ok(_) | Err(_), Ok(_) | Err(_)) => a.cmp(&b),
    }
}

/// Children after their parents.
fn tree(processes: &[Process], drawn: bool) -> Vec<Process> {
    let here: BTreeSet<u32> = processes.iter().map(|p| p.pid).collect();
    let mut children: BTreeMap<Option<u32>, Vec<&Process>> = BTreeMap::new();
    for p in processes {
        children.entry(Some(p.ppid).filter(|parent| here.contains(parent))).or_default().push(p);
    }
    let mut sorted = Vec::with_capacity(processes.len());
    // What is still to be shown, the next one last, with the lines before it and those before its children.
    let roots = children.remove(&None).unwrap_or_default();
    let mut left: Vec<(&Process, String, String)> =
        roots.into_iter().rev().map(|p| (p, String::new(), String::new())).collect();
    while let Some((p, before, below)) = left.pop() {
        let mut shown = p.clone();
        if drawn {
            (shown.command, shown.name) = (format!("{before}{}", p.command), format!("{before}{}", p.name));
        }
        sorted.push(shown);
        let siblings = children.remove(&Some(p.pid)).unwrap_or_default();
        for (at, child) in siblings.iter().enumerate().rev() {
            let line = if at + 1 < siblings.len() { "| " } else { "" };
            left.push((child, format!("{below}\\_ "), format!("{below}{line}")));
        }
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, ppid: u32, resident_pages: u64) -> Process {
        let stat = format!("{pid} (p{pid}) S {ppid} 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 100 0 {resident_pages}");
        process::parse(pid, &stat, "Uid:\t0\t0\nGid:\t0\t0\n", b"", 0).expect("parses")
    }

    fn shown(ps_args: &str, processes: Vec<Process>) -> Vec<String> {
        let host = Host::of(&processes);
        table(&arguments::parse(ps_args).expect("known"), processes, &host)
            .processes
            .iter()
            .map(|r| r.join(" "))
            .collect()
    }

    #[test]
    fn processes_come_by_number_by_key_or_as_a_tree() {
        let all = || vec![process(10, 1, 5), process(11, 10, 9), process(12, 10, 7), process(13, 11, 100)];
        assert_eq!(shown("-o pid,ppid,rss", all()), ["10 1 20", "11 10 36", "12 10 28", "13 11 400"]);
        assert_eq!(shown("-o pid --sort -rss", all()), ["13", "11", "12", "10"]);
        let drawn = shown("fo pid,comm", all());
        assert_eq!(drawn, ["10 p10", "11 \\_ p11", "13 | \\_ p13", "12 \\_ p12"]);
        assert_eq!(shown("-H -o pid", all()), ["10", "11", "13", "12"]);
    }

    #[test]
    fn a_group_that_is_empty_has_titles_all_the_same() {
        let reply = top("/none", "aux").expect("known");
        assert_eq!((reply.titles[0].as_str(), reply.processes.len()), ("USER", 0));
    }
}
