//! The options of `docker run`: each does what it says.

use tests::{Suite, unique};

#[test]
fn environment_directory_user_entrypoint_and_hostname_reach_the_process() {
    let docker = Suite::here().docker();
    let script = "echo $A $PWD $(id -u):$(id -g) $(hostname)";
    let args = [
        "run",
        "--rm",
        "-e",
        "A=b",
        "-w",
        "/tmp",
        "-u",
        "1000:1001",
        "--hostname",
        "ship",
        "--entrypoint",
        "sh",
        "busybox",
        "-c",
        script,
    ];
    assert_eq!(docker.ok(&args), "b /tmp 1000:1001 ship");
}

#[test]
fn the_memory_limit_is_enforced_and_an_overrun_is_reported() {
    let docker = Suite::here().docker();
    let name = unique("oom");
    let script = "x=$(head -c 200000000 /dev/zero | tr '\\0' a)";
    let outcome = docker.run(&["run", "--name", &name, "-m", "32m", "busybox", "sh", "-c", script]);
    assert_eq!(outcome.code, 137, "{outcome:?}");
    assert_eq!(docker.ok(&["inspect", "-f", "{{.State.OOMKilled}} {{.HostConfig.Memory}}", &name]), "true 33554432");
    docker.remove(&[&name]);
}

#[test]
fn the_pids_limit_is_enforced() {
    let docker = Suite::here().docker();
    let script = "for i in $(seq 1 40); do sleep 5 & done; echo made-all";
    let outcome = docker.run(&["run", "--rm", "--pids-limit", "16", "busybox", "sh", "-c", script]);
    assert!(outcome.stderr.contains("can't fork"), "{outcome:?}");
    assert!(!outcome.stdout.contains("made-all"), "{outcome:?}");
}

#[test]
fn the_cpu_limit_is_what_was_asked() {
    let docker = Suite::here().docker();
    let name = unique("cpus");
    let _ = docker.ok(&["run", "-d", "--name", &name, "--cpus", "0.5", "busybox", "sleep", "600"]);
    assert_eq!(docker.ok(&["inspect", "-f", "{{.HostConfig.NanoCpus}}", &name]), "500000000");
    let v1 = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us 2>/dev/null || cat /sys/fs/cgroup/cpu.max";
    let limits = docker.ok(&["exec", &name, "sh", "-c", v1]);
    assert_eq!(limits.split_whitespace().collect::<Vec<_>>(), ["50000", "100000"]);
    docker.remove(&[&name]);
}

#[test]
fn labels_are_kept_and_shown() {
    let docker = Suite::here().docker();
    let name = unique("labels");
    let _ = docker.ok(&["create", "--name", &name, "-l", "a=b", "-l", "c", "busybox"]);
    let format = "{{index .Config.Labels \"a\"}}|{{index .Config.Labels \"c\"}}|{{json .Config.Cmd}}";
    assert_eq!(docker.ok(&["inspect", "--format", format, &name]), "b||[\"sh\"]");
    docker.remove(&[&name]);
}

#[test]
fn what_would_open_the_host_is_refused_by_name() {
    let docker = Suite::here().docker();
    let refused: [(&[&str], &str); 9] = [
        (&["--privileged"], "rivileged"),
        (&["-v", "/etc:/host"], "/etc"),
        (&["-v", "/var/run:/var/run"], "/var/run"),
        (&["--pid", "host"], "PidMode"),
        (&["--network", "host"], "host"),
        (&["--ipc", "host"], "IpcMode"),
        (&["--device", "/dev/kmsg"], "Devices"),
        (&["--cap-add", "SYS_ADMIN"], "SYS_ADMIN"),
        (&["--security-opt", "seccomp=unconfined"], "seccomp"),
    ];
    for (option, named) in refused {
        let mut args = vec!["create"];
        args.extend(option);
        args.extend(["busybox", "true"]);
        let outcome = docker.run(&args);
        assert_ne!(outcome.code, 0, "{option:?} was accepted");
        assert!(outcome.stderr.contains(named), "{option:?} is refused without its name: {outcome:?}");
    }
}

#[test]
fn a_container_is_shut_in() {
    let docker = Suite::here().docker();
    for escape in [
        "mount -t tmpfs none /mnt",
        "unshare -m true",
        "cat /proc/kcore | head -c 1 | grep -q .",
        "echo 1 > /proc/sys/kernel/panic",
        "mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk",
        "echo b > /proc/sysrq-trigger",
        "mkdir /sys/fs/cgroup/memory/x",
    ] {
        let outcome = docker.run(&["run", "--rm", "busybox", "sh", "-c", escape]);
        assert_ne!(outcome.code, 0, "{escape:?} worked: {outcome:?}");
    }
}
