//! Other processes: through descriptors left open, sockets without a file, signals and traces (B02, B11, B20).

use std::os::{
    linux::net::SocketAddrExt as _,
    unix::net::{SocketAddr, UnixListener},
};

use tests::{Cell, Suite, probe, unique};

use super::{Two, sh};

#[test]
fn b02_no_working_directory_leads_out() {
    let docker = Suite::here().docker();
    let tripwire = std::env::temp_dir().join(unique("tripwire"));
    std::fs::write(&tripwire, "host").expect("writes");
    let look = format!("cat ../../../../../../../..{} 2>&1; ls -d /proc/self/fd/* | wc -l", tripwire.display());
    let name = unique("cwd");
    let _ = docker.ok(&["run", "-d", "--name", &name, "busybox", "sleep", "600"]);
    let mut tried = 0;
    for n in 0..20 {
        let dir = format!("/proc/self/fd/{n}");
        for outcome in [
            docker.run(&["exec", "-w", &dir, &name, "sh", "-c", &look]),
            docker.run(&["run", "--rm", "-w", &dir, "busybox", "sh", "-c", &look]),
        ] {
            let shown = outcome.stdout + &outcome.stderr;
            assert!(!shown.lines().any(|line| line == "host"), "{dir}: {shown}");
            tried += 1;
        }
    }
    assert_eq!(tried, 40);
    docker.remove(&[&name]);
    // Positive control: the file is there for whoever is on the host.
    assert_eq!(std::fs::read_to_string(&tripwire).expect("reads"), "host");
    std::fs::remove_file(&tripwire).expect("removes");
}

#[test]
fn b02_every_process_begins_with_three_descriptors() {
    let docker = Suite::here().docker();
    let cell = Cell::start(&docker, &[]);
    // As the host sees them: init, and a further process of each way to make one.
    let descriptors = |pid: u32| {
        let dir = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs here");
        let mut all: Vec<u32> = dir.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(descriptors(cell.pid()), [0, 1, 2]);
    for options in [&[][..], &["-i"], &["-t"], &["-u", "1000"], &["-d"]] {
        let marker = unique("sleeper");
        let mark = format!("MARK={marker}");
        let args = [&["exec"][..], options, &[&cell.name, "env", &mark, "sleep", "30"]].concat();
        let mut client = docker.piped(&args);
        let find = || {
            std::fs::read_dir("/proc").expect("procfs").flatten().find_map(|e| {
                let pid = e.file_name().to_str()?.parse().ok()?;
                let of = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                let marked = String::from_utf8_lossy(&of("environ")).contains(&marker);
                (marked && of("comm") == b"sleep\n").then_some(pid)
            })
        };
        let mut found = None;
        tests::eventually("it sleeps", std::time::Duration::from_secs(10), || {
            found = find();
            found.is_some()
        });
        assert_eq!(descriptors(found.expect("just found")), [0, 1, 2], "{options:?}");
        client.kill().ok();
        let _ = client.wait();
    }
    // The control: the host's own processes have more, and they are seen.
    assert!(descriptors(std::process::id()).len() > 3);
}

#[test]
fn b11_no_socket_of_the_host_without_a_file_is_reached_from_inside() {
    let suite = Suite::here();
    let docker = suite.docker();
    let name = unique("bait");
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let _bait = UnixListener::bind_addr(&address).expect("binds");
    for options in [&[][..], &["--network", "none"], &["-v", "/var/run/docker.sock:/var/run/docker.sock"]] {
        let cell = Cell::start(&docker, options);
        assert_eq!(cell.told(&["connect", &name]), "errno 111", "{options:?}");
        assert_eq!(cell.sh("grep -c @ /proc/net/unix; true"), "0", "{options:?}");
    }
    assert_eq!(probe::on_host(&["connect", &name]), "ok connected", "the control");
    // And there is nothing to be reached: no part of the suite listens on such a socket.
    let all = std::fs::read_to_string("/proc/net/unix").expect("procfs");
    let ours: Vec<_> = all.lines().filter(|line| line.contains('@') && line.contains("wharfage")).collect();
    assert_eq!(ours, [""; 0]);
}

#[test]
fn b20_processes_of_another_container_are_out_of_reach() {
    let both = Two::run();
    let pid = both.two.ok(&["inspect", "-f", "{{.State.Pid}}", &both.name]);
    let own = both.one.ok(&["inspect", "-f", "{{.State.Pid}}", &both.name]);
    for victim in [&pid, &own] {
        let script = format!(
            "kill -9 {victim}; nsenter -t {victim} -m true; cat /proc/{victim}/environ; ls /proc/{victim}/root"
        );
        let outcome = both.one.run(&["run", "--rm", "busybox", "sh", "-c", &script]);
        assert!(outcome.stdout.is_empty() && outcome.code != 0, "{outcome:?}");
    }
    assert_eq!(both.two.ok(&["inspect", "-f", "{{.State.Running}}", &both.name]), "true");
    assert_eq!(both.one.ok(&["inspect", "-f", "{{.State.Running}}", &both.name]), "true");
    // Positive control: inside its own container a process is in reach.
    assert_eq!(sh(&both.one, "sleep 60 & kill -9 $! && wait $!; echo $?"), "137");
}

#[test]
fn b20_no_process_outside_is_traced_read_or_signalled_whosever_it_is() {
    let both = Two::run();
    let cell = Cell::start(&both.one, &[]);
    let of = |docker: &tests::Docker| docker.ok(&["inspect", "-f", "{{.State.Pid}}", &both.name]);
    let (same_project, other_project, host) = (of(&both.one), of(&both.two), std::process::id().to_string());
    for victim in [&same_project, &other_project, &host] {
        for (what, args, refused) in attempts(victim) {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            assert_eq!(cell.told(&args), format!("errno {refused}"), "{what} at {victim}");
        }
    }
    // The control: root of the host does all of it to the same process.
    for (what, args, _) in attempts(&other_project) {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let told = probe::on_host(&args);
        // What is read of its memory is an address where it has none.
        assert!(told.starts_with("ok ") || (args[0] == "peek" && told == "errno 14"), "{what}: {told}");
    }
    assert_eq!(both.two.ok(&["exec", &both.name, "echo", "lives"]), "lives");
}

/// What one process may do to another, and how it is refused inside: by the filter, or because in its
/// PID namespace there is nobody of that number.
fn attempts(pid: &str) -> [(&'static str, Vec<String>, i32); 6] {
    let (nobody, filtered) = (3, 1);
    let call = |args: &[&str]| [&["call"], args].concat().into_iter().map(str::to_owned).collect();
    [
        ("kill", call(&["62", pid, "0"]), nobody),
        ("ptrace(SEIZE)", call(&["101", "16902", pid, "0", "0"]), nobody),
        ("pidfd_open", call(&["434", pid, "0"]), nobody),
        ("process_vm_readv", vec!["peek".to_owned(), pid.to_owned()], nobody),
        ("kcmp", call(&["312", pid, pid, "0", "0", "0"]), filtered),
        ("getpriority", call(&["140", "0", pid]), nobody),
    ]
}
