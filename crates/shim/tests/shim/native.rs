//! A process that the shim makes beside one that runc makes, in the same container: as the kernel tells
//! it, they have the same identity, walls and limits.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, process::Command};

use model::{SecuritySpec, Ulimit};
use runtime::{
    ExecProcess,
    protocol::{ExecBy, Failure, Reply},
};

use crate::{
    harness::{Container, Recipe, container, until},
    start::PASSING,
    users::Users,
};

/// A running container whose execs are the shim's.
fn running(change: impl FnOnce(&mut Recipe)) -> Container {
    let container = container(&["sleep", "60"], |r| {
        r.config.runtime.exec = ExecBy::Shim;
        change(r);
    });
    assert!(matches!(container.start(), Reply::Started { .. }));
    container
}

fn command(argv: &[&str]) -> ExecProcess {
    ExecProcess { argv: argv.iter().map(|a| (*a).to_owned()).collect(), ..ExecProcess::default() }
}

fn by_shim(container: &Container, exec: &ExecProcess) -> String {
    let (connection, reply) = container.exec(exec, [false, true, true]);
    assert!(matches!(reply, Reply::ExecStarted { .. }), "{reply:?}");
    let (out, err) = connection.read_frames();
    out + &err
}

/// Straight by runc, from the same process document.
fn by_runc(container: &Container, exec: &ExecProcess) -> String {
    let document = container.path().join("process.json");
    let process = runtime::exec_process(&container.bundle, exec).expect("process document");
    fs::write(&document, process.to_string()).expect("writable");
    let id = container.cgroup_path.rsplit('/').next().expect("has an id");
    let mut runc = Command::new("/usr/sbin/runc");
    runc.arg("--root").arg(container.path().join("runc")).args(["exec", "--process"]).arg(&document).arg(id);
    let out = runc.stdin(std::process::Stdio::null()).output().expect("runc runs");
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

/// What is different from one process to the next, whoever makes it.
fn lasting(text: &str) -> BTreeMap<usize, String> {
    let lines = text.lines().filter(|line| !PASSING.iter().any(|start| line.starts_with(start)));
    lines.map(str::to_owned).enumerate().collect()
}

const FACTS: [&str; 8] = [
    "/proc/self/status",
    "/proc/self/limits",
    "/proc/self/cgroup",
    "/proc/self/uid_map",
    "/proc/self/gid_map",
    "/proc/self/oom_score_adj",
    "/proc/self/loginuid",
    "/proc/self/attr/current",
];

fn assert_alike(container: &Container, change: impl Fn(ExecProcess) -> ExecProcess) {
    let cat = |file: &str| change(command(&["cat", file]));
    for file in FACTS {
        let (shim, runc) = (by_shim(container, &cat(file)), by_runc(container, &cat(file)));
        assert!(!shim.is_empty() || runc.is_empty(), "{file}");
        assert_eq!(lasting(&shim), lasting(&runc), "{file}");
    }
    // Owners and targets, without the times of procfs entries and what a pipe is called.
    let links = |text: &str| -> Vec<String> {
        let target = |line: &str| {
            let (head, to) = line.split_once(" -> ")?;
            let name = head.rsplit(' ').next()?;
            // runc in the foreground gives its process a pipe where ours has the null device.
            let kind = to.split(':').next().filter(|kind| *kind == "pipe").unwrap_or(to);
            Some(if name == "0" { name.to_owned() } else { format!("{name} {kind}") })
        };
        text.lines().filter_map(target).filter(|l| !l.contains("/fd")).collect()
    };
    for dir in ["/proc/self/ns", "/proc/self/fd"] {
        let list = change(command(&["ls", "-l", dir]));
        let (shim, runc) = (links(&by_shim(container, &list)), links(&by_runc(container, &list)));
        assert!(shim.len() >= 3, "{shim:?}");
        assert_eq!(shim, runc, "{dir}");
    }
    // runc leaves what its caller ignores; ours begins with nothing ignored.
    assert!(by_shim(container, &cat("/proc/self/status")).contains("SigIgn:\t0000000000000000"));
    for argv in
        [vec!["env"], vec!["pwd"], vec!["id"], vec!["readlink", "/proc/self/exe", "/proc/self/root", "/proc/self/cwd"]]
    {
        let process = change(command(&argv));
        let sorted = |text: String| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(by_shim(container, &process)), sorted(by_runc(container, &process)), "{argv:?}");
    }
}

fn limited(r: &mut Recipe) {
    // One number for files: runc 1.1 raises the soft limit to the hard one.
    let ulimit = |name: &str, soft, hard| Ulimit { name: name.into(), soft, hard };
    r.sandbox.resources.ulimits = vec![ulimit("nofile", 200, 200), ulimit("core", 0, 0), ulimit("nproc", 300, 400)];
    r.sandbox.oom_score_adj = Some(321);
    r.sandbox.env = vec!["COLOUR=red".into()];
}

#[test]
fn in_a_user_namespace_they_are_alike_as_root_and_as_a_user() {
    let users = Users::new();
    let container = running(|r| {
        users.own(r);
        limited(r);
    });
    assert_alike(&container, |exec| exec);
    let as_user = |exec| ExecProcess { user: "web".into(), cwd: "/tmp".into(), env: vec!["A=b".into()], ..exec };
    assert_alike(&container, as_user);
}

#[test]
fn without_one_they_are_alike_too() {
    let container = running(limited);
    assert_alike(&container, |exec| exec);
    assert_alike(&container, |exec| ExecProcess { user: "1000:100".into(), ..exec });
}

#[test]
fn with_no_new_privileges_and_no_capabilities_they_are_alike() {
    let users = Users::new();
    let container = running(|r| {
        users.own(r);
        r.sandbox.security = SecuritySpec {
            cap_drop: vec!["ALL".parse().expect("a name")],
            no_new_privileges: true,
            ..SecuritySpec::default()
        };
    });
    assert_alike(&container, |exec| exec);
    let status = by_shim(&container, &command(&["cat", "/proc/self/status"]));
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line} is not in {status}");
    }
}

#[test]
fn what_cannot_be_run_is_refused_in_the_same_words() {
    let users = Users::new();
    let container = running(|r| {
        users.own(r);
        fs::write(r.rootfs.join("bin/text"), "\u{1}\u{2}").expect("writable");
        fs::set_permissions(r.rootfs.join("bin/text"), fs::Permissions::from_mode(0o755)).expect("permissions");
    });
    for (argv, cwd, code) in [
        ("nope", "", 127),
        ("/no/pe", "", 127),
        ("/etc", "", 126),
        ("/etc/passwd", "", 126),
        ("text", "", 126),
        ("true", "/not/there", 127),
        ("true", "/etc/passwd", 126),
    ] {
        let exec = ExecProcess { cwd: cwd.into(), ..command(&[argv]) };
        let (_, reply) = container.exec(&exec, [false, true, true]);
        let Reply::Failed { failure, message, exit_code } = reply else { panic!("{argv} in {cwd}: {reply:?}") };
        assert_eq!((failure, exit_code), (Failure::Runtime, Some(code)), "{message}");
        let runc = by_runc(&container, &exec);
        let cause = message.strip_prefix("OCI runtime exec failed: ").and_then(|m| m.strip_suffix(": unknown"));
        // runc finds out about a file that is no program too late for its own frame.
        let cause = cause.and_then(|m| m.strip_prefix("exec failed: unable to start container process: "));
        let cause = cause.expect("dockerd's frame");
        let logged = cause.replace('"', "\\\"");
        assert!(runc.contains(cause) || runc.contains(&logged), "ours {cause:?}, runc's {runc:?}");
    }
}

#[test]
fn b02_a_working_directory_behind_a_descriptor_is_refused_or_inside() {
    let container = running(|_| {});
    let host = fs::read_to_string("/etc/hostname").unwrap_or_default();
    for n in 0..16 {
        let exec = ExecProcess {
            cwd: format!("/proc/self/fd/{n}"),
            ..command(&["sh", "-c", "pwd; cat ../../../../../../../../etc/hostname 2>/dev/null"])
        };
        let (connection, reply) = container.exec(&exec, [false, true, true]);
        let out = if matches!(reply, Reply::ExecStarted { .. }) { connection.read_frames().0 } else { String::new() };
        assert!(host.trim().is_empty() || !out.contains(host.trim()), "descriptor {n} leaks the host: {out}");
        assert!(out.is_empty() || out.starts_with('/'), "{n}: {out}");
    }
}

#[test]
fn b03_the_shim_is_neither_run_nor_written_to_through_proc_self_exe() {
    let users = Users::new();
    let container = running(|r| {
        users.own(r);
        let script = "#!/proc/self/exe\n";
        fs::write(r.rootfs.join("bin/itself"), script).expect("writable");
        fs::set_permissions(r.rootfs.join("bin/itself"), fs::Permissions::from_mode(0o755)).expect("permissions");
    });
    let (_, reply) = container.exec(&command(&["/proc/self/exe"]), [false, true, true]);
    assert!(matches!(reply, Reply::Failed { exit_code: Some(126), .. }), "{reply:?}");
    // A script may name it where nobody looks; what it gets is a program without a task, and read-only.
    let (connection, reply) = container.exec(&command(&["itself"]), [false, true, true]);
    if matches!(reply, Reply::ExecStarted { .. }) {
        assert!(connection.read_frames().1.contains("usage:"));
    }
    // Watched from inside while many are made, nobody opens one that is not a program of the container's.
    let watch = "i=0; while [ $i -lt 400 ]; do for p in /proc/[0-9]*; do l=$(readlink $p/exe 2>/dev/null) && \
                 case $l in /bin/*) ;; ?*) echo saw $l; dd if=/dev/zero of=$p/exe bs=1 count=1 conv=notrunc 2>&1;; esac; \
                 done; i=$((i+1)); done; echo watched";
    let (watcher, _) = container.exec(&command(&["sh", "-c", watch]), [false, true, true]);
    for _ in 0..60 {
        by_shim(&container, &command(&["true"]));
    }
    let (seen, _) = watcher.read_frames();
    assert_eq!(seen, "watched\n", "{seen}");
}

#[test]
fn b15_the_filter_answers_every_call_as_it_was_reviewed() {
    crate::syscalls::table_as(|container, script| {
        fs::write(container.path().join("rootfs/calls/wait"), "").expect("writable");
        container.start();
        by_shim(container, &command(&["sh", script]))
    });
}

#[test]
fn a_terminal_is_the_containers_own_and_controls() {
    let users = Users::new();
    let container = running(|r| users.own(r));
    let script =
        "tty; ls -l $(tty) | cut -c1-10; echo to the terminal >/dev/tty; ps -o pid,tty | grep -c pts || true; id -u";
    let exec =
        ExecProcess { tty: true, console_size: Some((20, 70)), user: "web".into(), ..command(&["sh", "-c", script]) };
    let (connection, reply) = container.exec(&exec, [true, true, true]);
    assert!(matches!(reply, Reply::ExecStarted { .. }), "{reply:?}");
    let out = String::from_utf8(connection.read_raw()).expect("is text");
    assert!(out.starts_with("/dev/pts/") && out.contains("to the terminal") && out.contains("1000"), "{out}");
}

#[test]
fn a_replaced_multiplexer_gives_no_terminal_and_holds_nobody_up() {
    let users = Users::new();
    let container = running(|r| users.own(r));
    let replace = "mv /dev/ptmx /dev/old; mkfifo /dev/ptmx; echo done";
    assert_eq!(by_shim(&container, &command(&["sh", "-c", replace])), "done\n");
    let exec = ExecProcess { tty: true, ..command(&["tty"]) };
    let (connection, reply) = container.exec(&exec, [false, true, true]);
    assert!(matches!(reply, Reply::ExecStarted { .. }), "{reply:?}");
    assert!(String::from_utf8_lossy(&connection.read_raw()).starts_with("/dev/pts/"));
}

#[test]
fn a_container_that_may_look_into_the_hosts_processes_is_left_to_the_runtime() {
    // Without a user namespace of its own. The bundle never says so today; a shim does not depend on it.
    let container = running(|_| {});
    let mut request = container.exec_document("cap1", &command(&["true"]), [false, true, true]);
    request.process["capabilities"]["bounding"] = serde_json::json!(["CAP_SYS_PTRACE", "CAP_CHOWN"]);
    request.process["capabilities"]["permitted"] = serde_json::json!(["CAP_CHOWN"]);
    request.process["capabilities"]["effective"] = serde_json::json!(["CAP_CHOWN"]);
    let (connection, reply) = container.exec_request(request);
    assert!(matches!(reply, Reply::ExecStarted { .. }), "{reply:?}");
    connection.read_raw();
}

#[test]
fn execs_beyond_the_process_limit_fail_and_leave_nothing() {
    let container = running(|r| r.sandbox.resources.pids_limit = Some(3));
    let before = runtime::cgroup::pids_in(&container.cgroup_path).len();
    let many: Vec<_> = (0..6).map(|_| container.exec(&command(&["sleep", "1"]), [false, true, true])).collect();
    let refused = many.iter().filter(|(_, reply)| matches!(reply, Reply::Failed { .. })).count();
    assert!(refused >= 3, "{refused} of 6 were refused");
    drop(many);
    until(|| (runtime::cgroup::pids_in(&container.cgroup_path).len() == before).then_some(()));
}
