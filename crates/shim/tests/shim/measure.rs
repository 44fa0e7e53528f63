//! Figures, not assertions, taken only when asked for:
//! `WHARFAGE_MEASURE=1 WHARFAGE_SHIM=<release build> cargo test -p shim --test shim -- --nocapture --test-threads 1 measure`.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use runtime::{
    ExecProcess,
    protocol::{Reply, Request},
};

use crate::harness::{Recipe, StartBy, container, shell, started_by};

/// The median, and the least: on a busy machine the latter says more.
#[derive(Debug)]
#[expect(dead_code, reason = "printed")]
struct Taken {
    median: Duration,
    least: Duration,
}

fn median(mut times: Vec<Duration>) -> Taken {
    times.sort();
    Taken { median: times[times.len() / 2], least: times[0] }
}

fn rounds(change: impl Fn(&mut Recipe)) -> [Taken; 4] {
    let mut all: [Vec<Duration>; 4] = Default::default();
    for _ in 0..20 {
        let container = container(&["true"], &change);
        let mut events = container.subscribe();
        let begun = Instant::now();
        assert!(matches!(container.start(), Reply::Started { .. }));
        all[0].push(begun.elapsed());
        events.wait_exit();
        all[1].push(begun.elapsed());
        assert_eq!(container.ask(&Request::Bye), Reply::Done);
        all[2].push(begun.elapsed());
        all[3].push(container.spawned_in);
        thread::sleep(Duration::from_millis(120));
    }
    all.map(median)
}

fn asked_for() -> bool {
    std::env::var_os("WHARFAGE_MEASURE").is_some()
}

#[test]
fn measure_start() {
    if !asked_for() {
        return;
    }
    let report = |what: &str, [started, exited, gone, spawned]: [Taken; 4]| {
        println!("{what}: shim ready {spawned:?}, start {started:?}, until exit told {exited:?}, until bye {gone:?}");
    };
    println!("runc run --detach by itself: {:?}", runtime_alone());
    for (who, by) in [("runc", StartBy::Runtime), ("the shim", StartBy::Shim)] {
        started_by(by, || {
            report(&format!("by {who}, default profile"), rounds(|_| {}));
            report(&format!("by {who}, without seccomp"), rounds(|r| r.without_seccomp = true));
        });
    }
    started_by(StartBy::Runtime, || ());
    let container = shell("sleep 60");
    container.start();
    let mut times = Vec::new();
    for _ in 0..20 {
        let begun = Instant::now();
        let exec = ExecProcess { argv: vec!["true".into()], ..ExecProcess::default() };
        let (connection, _) = container.exec(&exec, [false, true, true]);
        connection.read_raw();
        times.push(begun.elapsed());
    }
    println!("exec true: {:?}", median(times));
}

/// The runtime by itself, on the same bundle: what the shim cannot be faster than.
fn runtime_alone() -> Taken {
    let times = (0..20).map(|_| {
        let container = container(&["true"], |_| {});
        let id = container.cgroup_path.rsplit('/').next().expect("has an id").to_owned();
        let root = container.path().join("runc");
        let runc = |args: &[&str]| {
            let mut command = Command::new("/usr/sbin/runc");
            command.arg("--root").arg(&root).args(args).stdin(Stdio::null()).stdout(Stdio::null());
            command
        };
        let begun = Instant::now();
        let status = runc(&["run", "--detach", "--bundle", &container.bundle.to_string_lossy(), &id]).status();
        let took = begun.elapsed();
        assert!(status.expect("runc runs").success());
        runc(&["delete", "--force", &id]).status().expect("runc runs");
        thread::sleep(Duration::from_millis(120));
        took
    });
    median(times.collect())
}

fn memory(pid: i32) -> String {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let wanted = ["Rss:", "Pss:", "Private_Clean:", "Private_Dirty:"];
    let lines = rollup.lines().filter(|l| wanted.iter().any(|w| l.starts_with(w)));
    lines.map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", ")
}

#[test]
fn measure_memory() {
    if !asked_for() {
        return;
    }
    let all: Vec<_> = (0..10).map(|_| shell("sleep 60")).collect();
    for container in &all {
        container.start();
    }
    thread::sleep(Duration::from_secs(2));
    println!("idle, one of ten: {}", memory(all[0].shim_pid()));
    let busy = shell("seq 1 200000; sleep 60");
    let attached = busy.attach(false);
    busy.start();
    let reader = thread::spawn(move || drop(attached));
    thread::sleep(Duration::from_secs(3));
    reader.join().expect("reads");
    println!("after a burst of output: {}", memory(busy.shim_pid()));
}

#[test]
fn measure_log() {
    if !asked_for() {
        return;
    }
    let line = "x".repeat(99);
    for (what, script) in [
        ("100 lines a write", format!("yes {line} | head -c 400000000")),
        ("the same into /dev/null", format!("yes {line} | head -c 400000000 >/dev/null")),
    ] {
        let container = container(&["sh", "-c", &script], |_| {});
        let mut events = container.subscribe();
        let begun = Instant::now();
        container.start();
        events.wait_exit();
        println!("{what}: {:.0} MB/s", 400.0 / begun.elapsed().as_secs_f64());
    }
}
