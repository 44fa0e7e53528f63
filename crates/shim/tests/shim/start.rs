//! A container that the shim starts beside one that runc starts, from the same configuration: from inside,
//! the kernel tells the same of both.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
};

use model::{MemoryBytes, NanoCpus, SecuritySpec, TmpfsMount, Ulimit};
use runtime::{
    BindMount,
    protocol::{ExecBy, ExitRecord, Reply, StartBy},
};

use crate::{
    harness::{Container, Recipe, container},
    users::{FIRST_ID, Users},
};

/// Everything a container is told about itself, one fact a line or several.
const FACTS: &str = r"
    show() { echo; echo '##' $1; }
    show status; cat /proc/self/status
    show mounts; cat /proc/self/mountinfo
    show limits; cat /proc/self/limits
    show cgroup; cat /proc/self/cgroup
    show maps; cat /proc/self/uid_map /proc/self/gid_map /proc/self/oom_score_adj /proc/self/loginuid
    show descriptors; ls -l /proc/1/fd
    show dev; ls -lnR /dev
    show places; ls -ldn / /* /etc/* /data/* 2>/dev/null
    show hidden; for f in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts; do ls -ln $f; head -c 20 $f; done; ls -a /sys/firmware /proc/acpi 2>&1
    show devices; for d in null zero full random urandom; do head -c 1 /dev/$d 2>&1 | wc -c; (echo x >/dev/$d) 2>&1; done; tty; (echo to the terminal >/dev/tty) 2>&1; stty size 2>&1
    show own; env; pwd; umask; id; hostname; readlink /proc/1/cwd /proc/1/root
    show session; cut -d' ' -f5-8 /proc/1/stat
    show sysctl; cat /proc/sys/net/ipv4/ping_group_range /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmax /proc/sys/net/core/somaxconn /proc/sys/kernel/domainname
    show links; ip addr 2>/dev/null | grep -v 'link/\|valid_lft'
    show walls; for f in /proc/sys/kernel/shmmax /proc/sysrq-trigger /sys/kernel/uevent_seqnum /ro/x /new; do (echo 1 >$f) 2>&1; done
    show limits of the group; cd /sys/fs/cgroup; for f in memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes memory/memory.soft_limit_in_bytes memory/memory.swappiness cpu/cpu.shares cpu/cpu.cfs_* cpuset/cpuset.cpus cpuset/cpuset.mems pids/pids.max blkio/blkio.*weight freezer/freezer.state; do echo $f; cat $f; done
    show devices of the group; sort devices/devices.list
    show keys; cat /proc/keys
";

fn by(start: StartBy, change: &dyn Fn(&mut Recipe)) -> Container {
    container(&["sh", "-c", FACTS], |r| {
        r.config.runtime.exec = ExecBy::Shim;
        r.config.runtime.start = start;
        change(r);
    })
}

/// What the container tells, without what is different from one to the next.
fn facts(start: StartBy, change: &dyn Fn(&mut Recipe)) -> Vec<String> {
    let container = by(start, change);
    let attached = container.attach(false);
    let mut events = container.subscribe();
    let reply = container.start();
    assert!(matches!(reply, Reply::Started { .. }), "{reply:?}");
    assert_eq!(container.run_dir.is_started_by_shim(), start == StartBy::Shim, "who started it");
    let ExitRecord { exit_code, .. } = events.wait_exit();
    assert_eq!(exit_code, 0);
    let text = if container.tty() {
        String::from_utf8_lossy(&attached.read_raw()).replace('\r', "")
    } else {
        let (out, err) = attached.read_frames();
        out + &err
    };
    let own = container.path().to_string_lossy().into_owned();
    lasting(&text.replace(&own, "OWN").replace(container.id(), "ID"))
}

/// Lines of `/proc/self/status` that are of the moment, or of how the caller of runc was run.
pub(crate) const PASSING: [&str; 20] = [
    "Pid:",
    "PPid:",
    "Tgid:",
    "Ngid:",
    "NSpid:",
    "NStgid:",
    "NSpgid:",
    "NSsid:",
    "Vm",
    "Rss",
    "Hugetlb",
    "voluntary_ctxt",
    "nonvoluntary_ctxt",
    "Cpus_allowed",
    "Mems_allowed",
    "SigQ:",
    "SigIgn:",
    "Threads:",
    "CoreDumping",
    "total ",
];

fn lasting(text: &str) -> Vec<String> {
    let (mut facts, mut mounts) = (Vec::new(), BTreeSet::new());
    let paths: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, words.nth(3)?))
        })
        .collect();
    for line in text.lines().filter(|line| PASSING.iter().all(|start| !line.starts_with(start))) {
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            // Numbers of mounts and file systems are the moment's, their order is the runtime's.
            [id, parent, _, rest @ ..] if id.parse::<u32>().is_ok() && parent.parse::<u32>().is_ok() => {
                mounts.insert(format!("{} {}", paths.get(parent).unwrap_or(&"-"), rest.join(" ")));
            }
            _ => facts.push(without_numbers(line)),
        }
    }
    facts.extend(mounts);
    facts
}

/// Times, numbers of links and of pipes.
fn without_numbers(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        [mode, _links, user, group, rest @ ..] if mode.len() == 10 && rest.len() >= 5 => {
            let name =
                rest.iter().skip(if rest[0].ends_with(',') { 5 } else { 4 }).copied().collect::<Vec<_>>().join(" ");
            let name = name.split_once("pipe:").map_or(name.as_str(), |(head, _)| head).to_owned();
            let size = if rest[0].ends_with(',') { &rest[..2] } else { &[][..] };
            format!("{mode} {user} {group} {size:?} {name}")
        }
        _ => line.to_owned(),
    }
}

/// Where ours is not runc's, on purpose (docs/decisions/0010-start-by-the-shim.md).
fn as_ours(line: &String) -> Option<String> {
    if line == "c 10:200 rwm" {
        return None;
    }
    let cgroups = line.replace("/ /sys/fs/cgroup rw,", "/ /sys/fs/cgroup ro,");
    let queues = ["65534 65534 [] mqueue", "65534 65534 [] /dev/mqueue"]
        .iter()
        .fold(cgroups, |line, theirs| line.replace(theirs, &theirs.replace("65534 65534", "0 0")));
    Some(queues)
}

fn assert_alike(change: impl Fn(&mut Recipe)) -> Vec<String> {
    let users = Users::new();
    let change = |r: &mut Recipe| {
        users.own(r);
        change(r);
    };
    let (runc, shim) = (facts(StartBy::Runtime, &change), facts(StartBy::Shim, &change));
    let runc: Vec<String> = runc.iter().filter_map(as_ours).collect();
    let only = |a: &[String], b: &[String]| a.iter().filter(|line| !b.contains(line)).cloned().collect::<Vec<_>>();
    assert_eq!(
        (only(&runc, &shim), only(&shim, &runc)),
        (vec![], vec![]),
        "what runc's alone says, what ours alone says"
    );
    assert_eq!(runc, shim);
    assert!(shim.len() > 200, "{shim:?}");
    shim
}

fn has(facts: &[String], line: &str) {
    assert!(facts.iter().any(|fact| fact.contains(line)), "{line:?} is not in {facts:#?}");
}

#[test]
fn a_plain_one_is_alike() {
    let facts = assert_alike(|_| {});
    for line in
        ["CapEff:\t00000000a80425fb", "CapInh:\t0000000000000000", "Seccomp:\t2", "NoNewPrivs:\t0", "0022", "4096"]
    {
        has(&facts, line);
    }
}

#[test]
fn with_limits_a_user_and_no_new_privileges_it_is_alike() {
    let facts = assert_alike(|r| {
        let ulimit = |name: &str, soft, hard| Ulimit { name: name.into(), soft, hard };
        r.sandbox.resources.ulimits = vec![ulimit("nofile", 200, 200), ulimit("core", 0, 0), ulimit("nproc", 300, 400)];
        r.sandbox.resources.memory_bytes = Some(MemoryBytes(64 << 20));
        r.sandbox.resources.memory_swap_bytes = Some(MemoryBytes(96 << 20));
        r.sandbox.resources.memory_reservation_bytes = Some(MemoryBytes(32 << 20));
        r.sandbox.resources.memory_swappiness = Some(10);
        r.sandbox.resources.nano_cpus = Some(NanoCpus(500_000_000));
        r.sandbox.resources.cpu_shares = Some(300);
        r.sandbox.resources.cpuset_cpus = Some("0".into());
        r.sandbox.resources.pids_limit = Some(77);
        r.sandbox.oom_score_adj = Some(321);
        r.sandbox.user = "web".into();
        r.sandbox.cwd = "/tmp".into();
        r.sandbox.env = vec!["COLOUR=red".into(), "HOME=".into()];
        r.sandbox.security = SecuritySpec {
            cap_drop: vec!["ALL".parse().expect("a name")],
            cap_add: vec!["CHOWN".parse().expect("a name")],
            no_new_privileges: true,
            ..SecuritySpec::default()
        };
    });
    for line in
        ["67108864", "100663296", "50000", "77", "321", "COLOUR=red", "HOME=/tmp", "uid=1000(web)", "NoNewPrivs:\t1"]
    {
        has(&facts, line);
    }
}

#[test]
fn with_a_terminal_it_is_alike() {
    let facts = assert_alike(|r| {
        r.config.tty = true;
        r.config.console_size = Some((33, 99));
        r.sandbox.user = "web".into();
    });
    has(&facts, "/dev/console");
    has(&facts, "/dev/pts/0");
}

#[test]
fn with_volumes_tmpfs_and_a_read_only_root_it_is_alike() {
    let facts = assert_alike(|r| {
        let source = |name: &str| {
            let dir = r.rootfs.with_file_name(name);
            fs::create_dir(&dir).expect("creates");
            fs::write(dir.join("x"), "x").expect("writes");
            chown(&dir, Some(FIRST_ID), Some(FIRST_ID)).expect("is root");
            dir
        };
        let volume =
            |source: std::path::PathBuf, path: &str, read_only| BindMount { source, path: path.into(), read_only };
        let (one, two, three) = (source("one"), source("two"), source("three"));
        std::os::unix::fs::symlink("/srv", r.rootfs.join("link")).expect("links");
        r.sandbox.volumes = vec![
            volume(one, "/data/rw", false),
            volume(two.clone(), "/ro", true),
            volume(three, "/link/deep/er", false),
            volume(two.join("x"), "/etc/file", true),
            volume(two.join("x"), "/link/file", false),
        ];
        r.sandbox.tmpfs = vec![
            TmpfsMount { path: "/tmp".into(), size_bytes: Some(1 << 20), exec: true, ..TmpfsMount::default() },
            TmpfsMount {
                path: "/data/new".into(),
                mode: Some(0o1750),
                uid: Some(5),
                gid: Some(6),
                ..TmpfsMount::default()
            },
            TmpfsMount { path: "/data/rw/in".into(), read_only: true, inodes: Some(50), ..TmpfsMount::default() },
        ];
        fs::write(r.rootfs.with_file_name("names"), "box").expect("writes");
        r.sandbox.hostname_file = Some(r.rootfs.with_file_name("names"));
        r.sandbox.hosts_file = Some(r.rootfs.with_file_name("names"));
        r.sandbox.resolv_conf = Some(r.rootfs.with_file_name("names"));
        r.sandbox.security.readonly_rootfs = true;
    });
    for line in ["/srv/deep/er", "/srv/file", "/etc/resolv.conf", "Read-only file system"] {
        has(&facts, line);
    }
}

#[test]
fn with_settings_of_the_kernel_and_no_ipc_it_is_alike() {
    let facts = assert_alike(|r| {
        let settings =
            [("net.core.somaxconn", "77"), ("kernel.shmmax", "12345"), ("net.ipv4.ping_group_range", "0 50")];
        r.sandbox.sysctls = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        r.sandbox.ipc = model::IpcMode::None;
        r.sandbox.hostname = "other".into();
        r.sandbox.cwd = "/made/for/it".into();
    });
    for line in ["77", "12345", "other", "/made/for/it"] {
        has(&facts, line);
    }
    assert!(!facts.iter().any(|fact| fact.contains("/dev/shm")));
}

/// The whole answer to a start that is refused.
fn refusal(start: StartBy, change: &dyn Fn(&mut Recipe)) -> (String, Option<i32>) {
    let container = by(start, change);
    let reply = container.start();
    let Reply::Failed { message, exit_code, .. } = reply else { panic!("{reply:?}") };
    assert_eq!(runtime::cgroup::parts(&container.cgroup_path), 0, "its cgroup is left");
    let own = container.path().to_string_lossy().into_owned();
    (message.replace(&own, "OWN").replace(container.id(), "ID"), exit_code)
}

#[test]
fn what_cannot_be_started_is_refused_in_the_same_words() {
    let users = Users::new();
    let argv =
        |argv: &'static [&str]| move |r: &mut Recipe| r.sandbox.argv = argv.iter().map(|a| (*a).to_owned()).collect();
    let cwd = |cwd: &'static str| move |r: &mut Recipe| r.sandbox.cwd = cwd.into();
    let program = |r: &mut Recipe| {
        fs::write(r.rootfs.join("bin/text"), "\u{1}\u{2}").expect("writes");
        fs::set_permissions(r.rootfs.join("bin/text"), fs::Permissions::from_mode(0o755)).expect("permissions");
        fs::write(r.rootfs.join("bin/no"), "").expect("writes");
    };
    let volume = |path: &'static str| {
        move |r: &mut Recipe| {
            let source = r.rootfs.with_file_name("volume");
            fs::create_dir(&source).expect("creates");
            r.sandbox.volumes = vec![BindMount { source, path: path.into(), read_only: false }];
        }
    };
    type Change<'a> = Box<dyn Fn(&mut Recipe) + 'a>;
    let cases: Vec<(i32, Change<'_>)> = vec![
        (127, Box::new(argv(&["nope"]))),
        (127, Box::new(argv(&["/no/pe"]))),
        (127, Box::new(argv(&[""]))),
        (126, Box::new(argv(&["/etc"]))),
        (126, Box::new(argv(&["/etc/passwd"]))),
        (127, Box::new(argv(&["no"]))),
        (126, Box::new(cwd("/etc/passwd"))),
        (128, Box::new(|r: &mut Recipe| r.sandbox.sysctls = [("net.core.somaxconn".into(), "no".into())].into())),
        (127, Box::new(|r: &mut Recipe| r.sandbox.sysctls = [("net.core.nothing".into(), "1".into())].into())),
        (128, Box::new(|r: &mut Recipe| r.sandbox.resources.cpuset_cpus = Some("500".into()))),
        (126, Box::new(volume("/etc/passwd"))),
        (126, Box::new(volume("/etc/passwd/below"))),
    ];
    for (code, case) in cases {
        let change = |r: &mut Recipe| {
            program(r);
            case(r);
            users.own(r);
        };
        let (runc, shim) = (refusal(StartBy::Runtime, &change), refusal(StartBy::Shim, &change));
        assert_eq!((runc.1, shim.1), (Some(code), Some(code)), "{} {}", runc.0, shim.0);
        // Of a mount that does not fit, runc tells the numbers of its descriptors.
        let words = |message: &str| match message.split_once(" to rootfs at ") {
            Some((head, tail)) => format!("{head} {}", tail.rsplit(": ").nth(1).unwrap_or_default()),
            None => message.to_owned(),
        };
        assert_eq!(words(&runc.0), words(&shim.0));
    }
}

#[test]
fn a_limit_of_one_process_is_kept_and_lets_the_one_run() {
    let users = Users::new();
    let container = container(&[], |r| {
        r.config.runtime.exec = ExecBy::Shim;
        r.config.runtime.start = StartBy::Shim;
        users.own(r);
        r.sandbox.resources.pids_limit = Some(1);
        r.sandbox.argv = ["sh", "-c", "read limit </sys/fs/cgroup/pids/pids.max; echo $limit; (:) && echo forked"]
            .map(str::to_owned)
            .to_vec();
    });
    let (out, _, _) = container.run_attached();
    assert!(container.run_dir.is_started_by_shim());
    assert_eq!(out, "1\n");
}
