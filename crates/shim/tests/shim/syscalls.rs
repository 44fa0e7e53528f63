//! The system-call filter as a program meets it (B15, B21, B22): a hand-made executable makes one
//! call and exits with its errno.

use std::{fs, os::unix::fs::PermissionsExt as _};

use runtime::protocol::ExecBy;

use crate::harness::{Container, container, started_by_both};

started_by_both! {
    calls_that_break_out_fail_and_clone3_makes_libc_fall_back,
    only_the_families_of_ordinary_programs_have_sockets,
    a_new_user_namespace_by_clone_is_refused,
    the_32_bit_abi_kills,
    b15_every_system_call_has_the_result_that_was_reviewed,
    b15_positive_control_without_the_filter_the_calls_get_through,
}

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;
/// 128 + SIGSYS.
const KILLED: i32 = 159;

/// A 64-bit executable of nothing but `code`.
fn executable(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let size = HEADERS + code.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend([2u16, 62].iter().flat_map(|n| n.to_le_bytes()));
    elf.extend(1u32.to_le_bytes());
    elf.extend([BASE + HEADERS, 64, 0].iter().flat_map(|n| n.to_le_bytes()));
    elf.extend(0u32.to_le_bytes());
    elf.extend([64u16, 56, 1, 0, 0, 0].iter().flat_map(|n| n.to_le_bytes()));
    elf.extend([1u32, 5].iter().flat_map(|n| n.to_le_bytes()));
    elf.extend([0, BASE, BASE, size, size, 0x1000].iter().flat_map(|n: &u64| n.to_le_bytes()));
    elf.extend(code);
    elf
}

/// `exit(-syscall(number, first, 1, 0))`.
fn one_call(number: u32, first: u64) -> Vec<u8> {
    let mut code = vec![0xb8];
    code.extend(number.to_le_bytes());
    code.extend([0x48, 0xbf]);
    code.extend(first.to_le_bytes());
    code.extend([0xbe, 1, 0, 0, 0, 0x31, 0xd2, 0x4d, 0x31, 0xd2, 0x0f, 0x05]);
    // neg eax; mov edi, eax; mov eax, 60 (exit); syscall
    code.extend([0xf7, 0xd8, 0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]);
    executable(&code)
}

fn with_programs(programs: &[(String, Vec<u8>)], without_seccomp: bool) -> Container {
    let script: String = programs.iter().map(|(name, _)| format!("/{name}; echo {name} $?;")).collect();
    container(&["sh", "-c", &script], |r| {
        r.without_seccomp = without_seccomp;
        for (name, bytes) in programs {
            let path = r.rootfs.join(name);
            fs::write(&path, bytes).expect("program");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permissions");
        }
    })
}

fn codes(programs: &[(String, Vec<u8>)]) -> Vec<(String, i32)> {
    codes_of(with_programs(programs, false))
}

fn codes_of(container: Container) -> Vec<(String, i32)> {
    let (out, _, _) = container.run_attached();
    let parse = |line: &str| {
        let (name, code) = line.split_once(' ')?;
        Some((name.to_owned(), code.parse().ok()?))
    };
    out.lines().filter_map(parse).collect()
}

fn calls_that_break_out_fail_and_clone3_makes_libc_fall_back() {
    let table = [
        ("ptrace-free-getpid", 39, 0),
        ("mount", 165, EPERM),
        ("umount2", 166, EPERM),
        ("pivot_root", 155, EPERM),
        ("unshare", 272, EPERM),
        ("setns", 308, EPERM),
        ("bpf", 321, EPERM),
        ("perf_event_open", 298, EPERM),
        ("userfaultfd", 323, EPERM),
        ("io_uring_setup", 425, EPERM),
        ("keyctl", 250, EPERM),
        ("add_key", 248, EPERM),
        ("request_key", 249, EPERM),
        ("open_by_handle_at", 304, EPERM),
        ("name_to_handle_at", 303, EPERM),
        ("process_vm_writev", 311, EPERM),
        ("kcmp", 312, EPERM),
        ("pidfd_getfd", 438, EPERM),
        ("init_module", 175, EPERM),
        ("kexec_load", 246, EPERM),
        ("syslog", 103, EPERM),
        ("modify_ldt", 154, EPERM),
        ("open_tree", 428, EPERM),
        ("fsopen", 430, EPERM),
        ("clone3", 435, ENOSYS),
    ];
    let programs: Vec<_> = table.iter().map(|(name, nr, _)| ((*name).to_owned(), one_call(*nr, 0))).collect();
    let mut got = codes(&programs);
    // getpid returns a PID, which is no errno; that it comes back at all is what counts.
    assert_ne!(got.remove(0).1, KILLED);
    let want: Vec<_> = table[1..].iter().map(|(name, _, errno)| ((*name).to_owned(), *errno)).collect();
    assert_eq!(got, want);
}

fn only_the_families_of_ordinary_programs_have_sockets() {
    let table: [(&str, u64, bool); 9] = [
        ("unix", 1, true),
        ("inet", 2, true),
        ("inet6", 10, true),
        ("netlink", 16, true),
        ("alg", 38, false),
        ("vsock", 40, false),
        // The kernel looks at 32 bits; a filter that compares 64 lets these through.
        ("alg-in-disguise", (1 << 32) | 38, false),
        ("vsock-in-disguise", (1 << 32) | 40, false),
        ("tipc", 30, false),
    ];
    let programs: Vec<_> = table.iter().map(|(name, family, _)| ((*name).to_owned(), one_call(41, *family))).collect();
    for ((name, code), (_, _, allowed)) in codes(&programs).into_iter().zip(table) {
        assert_eq!(code != EPERM, allowed, "{name} {code}");
    }
}

fn a_new_user_namespace_by_clone_is_refused() {
    let flags = 0x1000_0000 | 17;
    assert_eq!(codes(&[("clone-newuser".to_owned(), one_call(56, flags))]), [("clone-newuser".to_owned(), EPERM)]);
}

fn the_32_bit_abi_kills() {
    // mov eax, 20 (getpid); int 0x80; exit(0)
    let code = [0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];
    assert_eq!(codes(&[("int80".to_owned(), executable(&code))]), [("int80".to_owned(), KILLED)]);
}

/// `exit(e)` where the call failed with `e`, else `exit(0)`. All arguments are -1: almost every call
/// that gets through the filter fails harmlessly on them.
fn probing_call(number: u32) -> Vec<u8> {
    let mut code = vec![0xb8];
    code.extend(number.to_le_bytes());
    code.extend([
        0x48, 0xc7, 0xc7, 0xff, 0xff, 0xff, 0xff, // mov rdi, -1
        0x48, 0x89, 0xfe, 0x48, 0x89, 0xfa, // mov rsi, rdi; mov rdx, rdi
        0x49, 0x89, 0xfa, 0x49, 0x89, 0xf8, 0x49, 0x89, 0xf9, // r10, r8, r9
        0x0f, 0x05, // syscall
        0x31, 0xff, // xor edi, edi
        0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff, // cmp rax, -4096
        0x76, 0x04, // jbe: no error
        0xf7, 0xd8, 0x89, 0xc7, // neg eax; mov edi, eax
        0xb8, 60, 0, 0, 0, 0x0f, 0x05, // exit
    ]);
    executable(&code)
}

/// What a caller sees of a call, as far as the filter decides it.
fn result_class(code: i32) -> &'static str {
    match code {
        EPERM => "refused",
        ENOSYS => "absent",
        KILLED => "kills",
        _ => "passes",
    }
}

/// Every system call of x86-64 that Linux has, or had, or will have next: number, name, what happens.
const TABLE: &str = include_str!("../golden/syscalls-x86_64.txt");

fn b15_every_system_call_has_the_result_that_was_reviewed() {
    table_as(|container, _| {
        let (out, err, _) = container.run_attached();
        out + &err
    });
}

/// Has `run` run the script that makes every call, and compares what it printed with the table.
pub(crate) fn table_as(run: impl FnOnce(&Container, &str) -> String) {
    let rows: Vec<(u32, &str, &str)> = TABLE
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let mut words = line.split_whitespace();
            let number = words.next().and_then(|w| w.parse().ok()).expect("a number first");
            (number, words.next().expect("a name"), words.next().expect("a result"))
        })
        .collect();
    assert!(rows.len() > 380, "{} calls", rows.len());
    // A call that waits (pause) is ended after a second: it got through.
    let script = rows.iter().fold(String::new(), |mut script, (number, _, _)| {
        use std::fmt::Write as _;
        writeln!(script, "timeout -s KILL 1 /calls/{number} </dev/null >/dev/null 2>&1; echo {number} $?")
            .expect("a string takes it");
        script
    });
    let container = container(&["sh", "-c", "[ -e /calls/wait ] && sleep 60; sh /calls/all"], |r| {
        r.config.runtime.exec = ExecBy::Shim;
        let dir = r.rootfs.join("calls");
        fs::create_dir(&dir).expect("directory");
        fs::write(dir.join("all"), script).expect("script");
        for (number, _, _) in &rows {
            let path = dir.join(number.to_string());
            fs::write(&path, probing_call(*number)).expect("program");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permissions");
        }
    });
    let out = run(&container, "/calls/all");
    let seen: std::collections::BTreeMap<u32, i32> = out
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(number, code)| Some((number.parse().ok()?, code.parse().ok()?)))
        .collect();
    assert_eq!(seen.len(), rows.len(), "{out}");
    let got: String = rows.iter().map(|(n, name, _)| format!("{n} {name} {}\n", result_class(seen[n]))).collect();
    let comments: String = TABLE.lines().filter(|l| l.starts_with('#')).map(|l| format!("{l}\n")).collect();
    expect_test::expect_file!["../golden/syscalls-x86_64.txt"].assert_eq(&(comments + &got));
}

fn b15_positive_control_without_the_filter_the_calls_get_through() {
    let calls = [("unshare", 272), ("keyctl", 250), ("io_uring_setup", 425), ("process_vm_writev", 311), ("kcmp", 312)];
    let programs: Vec<_> = calls.iter().map(|(name, nr)| ((*name).to_owned(), probing_call(*nr))).collect();
    let without = codes_of(with_programs(&programs, true));
    assert!(without.len() == calls.len() && without.iter().all(|(_, code)| *code != EPERM), "{without:?}");
    assert!(codes(&programs).iter().all(|(_, code)| *code == EPERM));
}
