//! Hostile tenants on one host: ids of their own, limits of their own, and nothing of the host's. Ids
//! in names are of the attack catalogue, `docs/isolation.md` has the list. Every refusal stands beside the
//! same thing succeeding where it may.

mod devices;
mod images;
mod kernel;
mod privileges;
mod processes;
mod races;
mod system_calls;

use tests::{Docker, Suite, unique};

/// A container of each project that sleeps. Dropping it removes both.
struct Two {
    name: String,
    one: Docker,
    two: Docker,
}

impl Two {
    fn run() -> Self {
        let suite = Suite::here();
        let (one, two) = (suite.docker(), suite.docker_as(suite.var("WHARFAGE_TOKEN_2")));
        let name = unique("apart");
        for docker in [&one, &two] {
            let _ = docker.ok(&["run", "-d", "--name", &name, "busybox", "sleep", "600"]);
        }
        Self { name, one, two }
    }
}

impl Drop for Two {
    fn drop(&mut self) {
        self.one.remove(&[&self.name]);
        self.two.remove(&[&self.name]);
    }
}

fn sh(docker: &Docker, script: &str) -> String {
    docker.ok(&["run", "--rm", "busybox", "sh", "-c", script])
}

/// First id on the host, of the container's whole range.
fn range(docker: &Docker, name: &str) -> u32 {
    let map = docker.ok(&["exec", name, "cat", "/proc/self/uid_map"]);
    let numbers: Vec<u32> = map.split_whitespace().map(|n| n.parse().expect("a number")).collect();
    assert_eq!((numbers[0], numbers[2], numbers.len()), (0, 65_536, 3), "{map}");
    numbers[1]
}

#[test]
fn every_project_has_users_of_its_own_and_keeps_them() {
    let both = Two::run();
    let (one, two) = (range(&both.one, &both.name), range(&both.two, &both.name));
    assert!(one.abs_diff(two) >= 65_536 && one >= 1_048_576 && two >= 1_048_576, "{one} {two}");
    let pid: u32 = both.one.ok(&["inspect", "-f", "{{.State.Pid}}", &both.name]).parse().expect("a pid");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs here");
    assert!(status.contains(&format!("Uid:\t{one}\t{one}\t{one}\t{one}\n")), "{status}");
    let hosts = std::fs::read_link("/proc/self/ns/user").expect("ours");
    assert_ne!(std::fs::read_link(format!("/proc/{pid}/ns/user")).expect("its own"), hosts);
    // The next container of the project is in the same range.
    assert_eq!(sh(&both.one, "cat /proc/self/uid_map").split_whitespace().nth(1), Some(one.to_string().as_str()));
}

#[test]
fn files_belong_to_whom_the_container_says_and_what_is_on_disk_is_not_shifted() {
    let docker = Suite::here().docker();
    let script = "touch /new; chown 33:34 /new; rm /bin/yes; mv /bin/zcat /bin/moved; \
        echo x >>/etc/passwd; stat -c %u:%g /new /bin/sh /bin/moved /etc/passwd /etc/hosts /etc/resolv.conf /; [ -e /bin/yes ] || echo gone";
    assert_eq!(sh(&docker, script), "33:34\n0:0\n0:0\n0:0\n0:0\n0:0\n0:0\ngone");
    // A layer is shared: what one project did to its copy is nobody else's business.
    let other = Suite::here().docker_as(Suite::here().var("WHARFAGE_TOKEN_2"));
    assert_eq!(sh(&other, "ls /bin/yes /bin/zcat"), "/bin/yes\n/bin/zcat");
}

#[test]
fn root_of_a_container_rules_its_own_network_and_its_own_streams() {
    let docker = Suite::here().docker();
    let script = "nc -l -p 80 & sleep 0.2; netstat -ltn | grep -c :80; ping -c 1 127.0.0.1 >/dev/null && echo pinged; \
        echo out >/dev/stdout; echo err >/dev/stderr; ls /sys/class/net";
    let outcome = docker.run(&["run", "--rm", "busybox", "sh", "-c", script]);
    assert_eq!(
        (outcome.stdout.as_str(), outcome.stderr.as_str()),
        ("1\npinged\nout\neth0\nlo\n", "err\n"),
        "{outcome:?}"
    );
    let as_user = docker.run(&[
        "run",
        "--rm",
        "-u",
        "1000:1000",
        "busybox",
        "sh",
        "-c",
        "echo out >/dev/stdout; nc -l -p 81 & sleep 0.2; netstat -ltn | grep -c :81",
    ]);
    assert_eq!(as_user.stdout, "out\n1\n", "{as_user:?}");
}

#[test]
fn a_domain_name_is_set_though_its_file_is_the_hosts() {
    let docker = Suite::here().docker();
    let args = ["run", "--rm", "--hostname", "ship", "--domainname", "harbour.example", "busybox", "cat"];
    let names = docker.ok(&[&args[..], &["/proc/sys/kernel/domainname", "/proc/sys/kernel/hostname"]].concat());
    assert_eq!(names, "harbour.example\nship");
}

#[test]
fn a_user_the_range_does_not_have_is_refused_by_number() {
    let docker = Suite::here().docker();
    let outcome = docker.run(&["run", "--rm", "-u", "65536", "busybox", "true"]);
    assert!(outcome.code != 0 && outcome.stderr.contains("uid 65536 is not in the range 0-65535"), "{outcome:?}");
    assert_eq!(docker.ok(&["run", "--rm", "-u", "65535:65535", "busybox", "id", "-u"]), "65535");
}

#[test]
fn settings_of_its_own_kernel_namespaces_are_honoured() {
    let docker = Suite::here().docker();
    let settings: [(&str, &str, &str); 6] = [
        ("net.ipv4.ip_local_port_range", "20000 30000", "/proc/sys/net/ipv4/ip_local_port_range"),
        ("net.core.somaxconn", "321", "/proc/sys/net/core/somaxconn"),
        ("net.ipv4.ping_group_range", "0 2147483647", "/proc/sys/net/ipv4/ping_group_range"),
        ("kernel.shm_rmid_forced", "1", "/proc/sys/kernel/shm_rmid_forced"),
        ("kernel.sem", "250 32000 100 128", "/proc/sys/kernel/sem"),
        ("fs.mqueue.msg_max", "20", "/proc/sys/fs/mqueue/msg_max"),
    ];
    let mut args = vec!["run".to_owned(), "--rm".into()];
    args.extend(settings.iter().flat_map(|(name, value, _)| ["--sysctl".to_owned(), format!("{name}={value}")]));
    args.extend(["busybox", "cat"].map(str::to_owned));
    args.extend(settings.iter().map(|(_, _, file)| (*file).to_owned()));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let told = docker.ok(&args).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(told, "20000 30000 321 0 65535 1 250 32000 100 128 20");
}

#[test]
fn shared_memory_the_oom_killers_queue_and_harmless_devices_are_the_users_to_choose() {
    let docker = Suite::here().docker();
    let run = |options: &[&str], script: &str| {
        docker.ok(&[&["run", "--rm"], options, &["busybox", "sh", "-c", script]].concat())
    };
    assert_eq!(run(&["--ipc", "none"], "grep -c ' /dev/shm ' /proc/mounts; true"), "0");
    assert_eq!(run(&["--ipc", "shareable"], "grep -c ' /dev/shm ' /proc/mounts"), "1");
    assert_eq!(run(&["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj"), "500");
    assert_eq!(run(&["--device", "/dev/zero"], "head -c 3 /dev/zero | wc -c"), "3");
    let swappiness = "cat /sys/fs/cgroup/memory/memory.swappiness 2>/dev/null || echo 7";
    assert_eq!(run(&["--memory-swappiness", "7", "-m", "64m"], swappiness), "7");
    assert_eq!(
        run(
            &["--cpuset-mems", "0", "--cpuset-cpus", "0"],
            "grep -E '^(Cpus|Mems)_allowed_list' /proc/self/status | tr -d '\\t'"
        ),
        "Cpus_allowed_list:0\nMems_allowed_list:0"
    );
}

#[test]
fn the_hosts_own_device_files_cannot_be_changed_through_a_container() {
    use std::os::unix::fs::MetadataExt as _;

    let docker = Suite::here().docker();
    let devices = ["/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/random", "/dev/urandom"];
    let state = || devices.map(|d| std::fs::metadata(d).map(|m| (m.mode(), m.uid(), m.gid())).expect("a device"));
    let before = state();
    let script = format!("chmod 0 {0}; chown 1 {0}; mv /dev/null /dev/nil; true", devices.join(" "));
    for runtime in [&["run", "--rm"][..], &["run", "--rm", "-i"], &["run", "--rm", "-t"]] {
        let _ = docker.run(&[runtime, &["busybox", "sh", "-c", &script]].concat());
    }
    assert_eq!(state(), before);
}

#[test]
fn e01_a_fork_bomb_is_held_and_its_neighbour_does_not_notice() {
    let both = Two::run();
    let bomb = unique("bomb");
    let script = "f() { f | f & }; f; sleep 3; echo survived";
    let _ = both.one.ok(&["run", "-d", "--name", &bomb, "--pids-limit", "64", "busybox", "sh", "-c", script]);
    for _ in 0..10 {
        assert_eq!(both.two.ok(&["exec", &both.name, "echo", "here"]), "here");
    }
    let limit = "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max";
    assert_eq!(both.two.ok(&["exec", &both.name, "sh", "-c", limit]), "4096", "who asks for none has one all the same");
    both.one.remove(&[&bomb]);
}

#[test]
fn b27_a_user_of_the_host_sees_no_file_of_a_project() {
    let suite = Suite::here();
    let both = Two::run();
    let mounts = std::fs::read_to_string("/proc/mounts").expect("mounts");
    let pins: Vec<_> =
        mounts.lines().filter_map(|l| l.split(' ').nth(1)).filter(|p| p.contains("/agent/namespaces/")).collect();
    let run_dir = pins.iter().find_map(|p| p.split_once("/namespaces/")).expect("a project is here").0;
    let data_dir = suite.root.join(".wharfage/host-1");
    let files = |user: &str| {
        let find = [
            "--clear-groups",
            "find",
            run_dir,
            data_dir.to_str().expect("a path"),
            "-type",
            "f",
            "-o",
            "-name",
            "busybox",
        ];
        let output = std::process::Command::new("setpriv")
            .args([&format!("--reuid={user}"), &format!("--regid={user}")])
            .args(find)
            .output()
            .expect("setpriv");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(files("65534"), "");
    // The control: root finds what there is of both projects' containers, and the programs of their layers.
    let seen = files("0");
    for docker in [&both.one, &both.two] {
        let id = docker.ok(&["inspect", "-f", "{{.Id}}", &both.name]);
        assert!(seen.contains(id.trim()), "root sees nothing of {id}");
    }
    assert!(seen.contains("/layers/"), "root sees no layer");
    drop(both);
}
