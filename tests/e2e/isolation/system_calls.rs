//! Calls that make namespaces, mounts, keys, rings and handles (B19, B21, B22, B25). Every call of the
//! kernel's stands in the golden table of the shim's tests (B15); here the ones with a history are made
//! with arguments that work, which they do on the host.

use tests::{Cell, Suite, probe};

const EPERM: &str = "errno 1";
const ENOSYS: &str = "errno 38";

/// Makes each call in a container, where it must end as said, and on the host, where it must not.
fn refused(rows: &[(&str, &str, &str)]) {
    let docker = Suite::here().docker();
    for options in [&[][..], &["--cap-add", "ALL"], &["-u", "1000"]] {
        let cell = Cell::start(&docker, options);
        for (what, call, end) in rows {
            let args: Vec<&str> = call.split(' ').collect();
            assert_eq!(cell.told(&args), *end, "{what} with {options:?}");
        }
    }
    for (what, call, end) in rows {
        let args: Vec<&str> = call.split(' ').collect();
        let told = probe::on_host(&args);
        assert!(!told.is_empty() && told != *end, "{what}: the control cannot do it either: {told:?}");
    }
}

#[test]
fn b19_keys_of_the_kernel_are_out_of_reach() {
    refused(&[
        ("add_key", "call 248 s:user s:wharfage-probe s:x 1 -2", EPERM),
        ("request_key", "call 249 s:user s:wharfage-nobodys 0 -2", EPERM),
        ("keyctl(GET_KEYRING_ID, session)", "call 250 0 -3 1", EPERM),
        ("keyctl(JOIN_SESSION_KEYRING)", "call 250 1 0", EPERM),
    ]);
}

#[test]
fn b21_no_namespace_is_made_or_joined_and_nothing_mounted() {
    refused(&[
        ("unshare(NEWUSER)", "call 272 268435456", EPERM),
        ("unshare(NEWNS)", "call 272 131072", EPERM),
        ("unshare(NEWNET)", "call 272 1073741824", EPERM),
        ("unshare(NEWPID)", "call 272 536870912", EPERM),
        ("unshare(NEWCGROUP)", "call 272 33554432", EPERM),
        ("clone(NEWUSER)", "call 56 268435473", EPERM),
        ("clone(NEWNS)", "call 56 131089", EPERM),
        // Its flags are behind a pointer that a filter cannot follow: it is not there, and libc falls back.
        ("clone3", "call 435 b:64 64", ENOSYS),
        ("setns", "call 308 o:/proc/self/ns/uts 0", EPERM),
        ("mount", "call 165 s:none s:/tmp s:tmpfs 0 0", EPERM),
        ("umount2", "call 166 s:/proc 2", EPERM),
        ("fsopen", "call 430 s:tmpfs 0", EPERM),
        ("open_tree(CLONE)", "call 428 -100 s:/ 1", EPERM),
        ("mount_setattr", "call 442 -100 s:/ 0 b:32 32", EPERM),
    ]);
}

#[test]
fn b22_rings_faults_programs_counters_and_odd_sockets_are_refused() {
    refused(&[
        ("io_uring_setup", "call 425 4 b:256", EPERM),
        ("userfaultfd", "call 323 0", EPERM),
        ("bpf(MAP_CREATE)", "call 321 0 b:128 72", EPERM),
        ("perf_event_open", "call 298 b:128 0 -1 -1 0", EPERM),
        ("socket(AF_ALG)", "call 41 38 5 0", EPERM),
        ("socket(AF_VSOCK)", "call 41 40 1 0", EPERM),
        ("modify_ldt", "call 154 0 b:16 16", EPERM),
    ]);
}

#[test]
fn b22_a_32_bit_call_ends_the_process() {
    let cell = Cell::start(&Suite::here().docker(), &[]);
    let outcome = cell.attempt(&["int80"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (128 + 31, ""), "{outcome:?}");
    assert_eq!(probe::on_host(&["int80"]), "ok alive", "the control");
}

#[test]
fn b25_a_file_of_the_host_is_not_opened_by_its_handle() {
    let suite = Suite::here();
    let cell = Cell::start(&suite.docker(), &["--cap-add", "ALL"]);
    // On the file system that the container's own /etc/hosts is a file of.
    let secret = suite.root.join(".wharfage").join(tests::unique("tripwire"));
    std::fs::write(&secret, "a secret of the host").expect("writes");
    let told = probe::on_host(&["handle", &secret.display().to_string()]);
    let (kind, hex) = told.strip_prefix("ok ").and_then(|t| t.split_once(' ')).expect("a handle");
    let dir = suite.root.join(".wharfage/host-1").display().to_string();
    assert_eq!(probe::on_host(&["open-handle", &dir, kind, hex]), "ok a secret of the host", "the control");
    for mount in ["/etc/hosts", "/", "/etc/resolv.conf"] {
        assert_eq!(cell.told(&["open-handle", mount, kind, hex]), EPERM, "{mount}");
        assert_eq!(cell.told(&["handle", mount]), EPERM, "{mount}");
    }
    std::fs::remove_file(&secret).expect("removes");
}
