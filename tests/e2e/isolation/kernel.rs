//! The kernel's switches and what it tells about the host (B12, B13, B14, B26).

use std::{fs, process::Command};

use tests::{Cell, Suite, probe};

use super::sh;

/// A script in the host's own shell: the control.
fn on_host(script: &str) -> String {
    let output = Command::new("busybox").args(["sh", "-c", script]).output().expect("busybox is installed");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn b12_b13_nothing_of_the_hosts_kernel_can_be_written() {
    let docker = Suite::here().docker();
    // Opened for writing, not written: what opens is the finding.
    let script = "tried=0; for f in $(find /proc/sys /proc/irq /proc/bus /proc/fs /sys -type f 2>/dev/null | head -n 4000) \
        /proc/sysrq-trigger /proc/kcore /proc/timer_list /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/*/cgroup.procs \
        /sys/fs/cgroup/devices/devices.allow; do tried=$((tried+1)); (: >>$f) 2>/dev/null && echo OPENED $f; done; echo $tried";
    let told = sh(&docker, script);
    // Masked files are /dev/null.
    let opened: Vec<_> = told
        .lines()
        .filter(|l| l.starts_with("OPENED") && !l.ends_with("/kcore") && !l.ends_with("/timer_list"))
        .collect();
    assert_eq!(opened, [""; 0], "{told}");
    let tried: u32 = told.lines().last().and_then(|n| n.parse().ok()).expect("a count");
    assert!(tried > 300, "only {tried} files");
    // Positive control.
    let open = |path| std::fs::OpenOptions::new().append(true).open(path).map(drop);
    open("/proc/sys/kernel/core_pattern").expect("root of the host may");
}

#[test]
fn b12_no_hierarchy_of_cgroups_can_be_mounted_or_left() {
    let cell = Cell::start(&Suite::here().docker(), &[]);
    let mount = |kind: &str, options: &str| {
        let (kind, options) = (format!("s:{kind}"), format!("s:{options}"));
        ["call", "165", "s:none", "s:/mnt", &kind, "0", &options].map(str::to_owned)
    };
    let agents = || fs::read_to_string("/sys/fs/cgroup/memory/release_agent").unwrap_or_default();
    let before = agents();
    let mut worked_on_host = 0;
    let _ = cell.sh("mkdir -p /mnt");
    for (kind, options) in [("cgroup", "memory"), ("cgroup", "rdma"), ("cgroup2", "")] {
        let args = mount(kind, options);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        assert_eq!(cell.told(&args), "errno 1", "{kind} {options}");
        worked_on_host += u32::from(probe::on_host(&args) == "ok 0");
    }
    assert!(worked_on_host > 0, "the host cannot mount cgroups either");
    let script = "for d in /sys/fs/cgroup/*; do [ -d $d ] || d=/sys/fs/cgroup; mkdir $d/out 2>/dev/null && echo made $d; \
        for f in release_agent notify_on_release cgroup.procs tasks devices.allow memory.limit_in_bytes pids.max; do \
        [ -e $d/$f ] && (echo 1 >$d/$f) 2>/dev/null && echo wrote $d/$f; done; done; cat /proc/1/cgroup | grep -c wharfage; true";
    assert_eq!(cell.sh(script), "0", "nothing was written, and where it is is not told");
    assert_eq!(agents(), before);
    let own = fs::read_to_string(format!("/proc/{}/cgroup", cell.pid())).expect("it runs here");
    assert!(own.contains("wharfage"), "the host sees where it is: {own}");
}

/// Kernel files that tell of the host and of its other tenants.
const TELLTALES: [&str; 17] = [
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/interrupts",
    "/proc/slabinfo",
    "/proc/vmallocinfo",
    "/proc/pagetypeinfo",
    "/proc/swaps",
    "/proc/mdstat",
    "/proc/latency_stats",
    "/proc/timer_stats",
    "/sys/kernel/debug/sched/debug",
    "/sys/kernel/security/lsm",
    "/sys/kernel/tracing/trace",
    "/sys/firmware/acpi/tables/DSDT",
];

#[test]
fn b14_what_tells_of_the_host_is_empty_or_not_there() {
    let docker = Suite::here().docker();
    let script = |path: &str| format!("head -c 16 {path} 2>/dev/null | wc -c");
    let all: Vec<String> = TELLTALES.iter().map(|path| format!("echo {path} $({})", script(path))).collect();
    let all = all.join("; ");
    let readable = |told: &str| -> Vec<String> {
        told.lines()
            .filter(|line| !line.ends_with(" 0"))
            .map(|l| l.split(' ').next().unwrap_or("").to_owned())
            .collect()
    };
    // Counts per user of the own user namespace: the container's business.
    let inside: Vec<_> = readable(&sh(&docker, &all)).into_iter().filter(|p| p != "/proc/key-users").collect();
    assert_eq!(inside, [""; 0]);
    let host = readable(&on_host(&all));
    assert!(host.len() >= 5, "the control finds too little on the host: {host:?}");
    let directories = "ls -A /proc/acpi /proc/asound /proc/scsi /sys/firmware /sys/devices/virtual/powercap 2>/dev/null | grep -v : | grep -c .";
    assert_eq!(sh(&docker, &format!("{directories}; true")), "0");
    assert_ne!(on_host(directories), "0");
}

#[test]
fn b26_nothing_of_the_hosts_state_can_be_read() {
    let docker = Suite::here().docker();
    assert_eq!(sh(&docker, "dmesg >/dev/null 2>&1 || echo refused"), "refused");
    // Addresses of the kernel are hidden, processes and sockets of the host are not there.
    assert_eq!(sh(&docker, "awk '$1 != \"0000000000000000\"' /proc/kallsyms 2>/dev/null | wc -l"), "0");
    assert_eq!(sh(&docker, "cat /proc/[0-9]*/comm | grep -cE 'systemd|node-agent|netd|postgres|wharfage'; true"), "0");
    assert_eq!(sh(&docker, "grep -c @ /proc/net/unix; true"), "0");
    assert_eq!(sh(&docker, "env | grep -c WHARFAGE; true"), "0");
    // The root file system does not tell where on the host it is.
    let root = sh(&docker, "grep ' / / ' /proc/self/mountinfo");
    assert!(root.contains("upperdir=/upper") && !root.contains("containers"), "{root}");
    // The controls: all of it is there for root of the host.
    assert_eq!(on_host("dmesg >/dev/null && echo read"), "read");
    assert_ne!(on_host("awk '$1 != \"0000000000000000\"' /proc/kallsyms | wc -l"), "0");
    assert_ne!(on_host("cat /proc/[0-9]*/comm | grep -cE 'node-agent|netd|postgres|wharfage'"), "0");
}

#[test]
fn b26_no_process_of_the_host_is_seen_or_read_through_procfs() {
    let cell = Cell::start(&Suite::here().docker(), &[]);
    let secret = tests::unique("host-only-token");
    let mut host = Command::new("sleep").arg("60").env("HOST_ONLY", &secret).spawn().expect("runs");
    let look = |pid: &str| format!("cat /proc/{pid}/environ 2>/dev/null | tr '\\0' '\\n' | grep -c {secret}; true");
    for pid in [host.id().to_string(), "[0-9]*".to_owned(), "1".to_owned()] {
        assert_eq!(cell.sh(&look(&pid)), "0", "{pid}");
    }
    // What another container's procfs is asked for through its root stays in that root.
    assert_eq!(cell.sh("ls -d /proc/1/root/work /proc/1/root/root/.cargo 2>/dev/null | wc -l"), "0");
    assert_eq!(cell.sh("ls -d /proc/[0-9]* | wc -l").len(), 1, "few processes, all its own");
    assert_eq!(on_host(&look(&host.id().to_string())), "1", "the control");
    host.kill().expect("ours");
    let _ = host.wait();
}
