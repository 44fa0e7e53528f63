//! The system calls a container may make: default deny (EPERM), one architecture, an allow list
//! that is Docker's default minus what we chose to drop. A capability opens a call only where the
//! call is useless without it.
//!
//! Stricter than Docker's, each for a reason:
//! * one ABI: 32-bit and x32 calls kill the caller. Their `socketcall` hides its arguments from any
//!   filter, and a filter for one ABI compiles seven times faster;
//! * socket families by allow list, compared on 32 bits, since the kernel truncates what an
//!   inequality on 64 bits would let through (AF_VSOCK, AF_ALG and every rarely audited family);
//! * no io_uring, userfaultfd, `process_vm_writev`, `name_to_handle_at`, `modify_ldt`, `memfd_secret`.
//!
//! The rendered list is a reviewed file: `golden/seccomp-x86_64.txt`.

mod filter;

pub use filter::Filter;
use oci_spec::{
    OciSpecError,
    runtime::{
        Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
        LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
    },
};

#[cfg(target_arch = "x86_64")]
const ARCH: Arch = Arch::ScmpArchX86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: Arch = Arch::ScmpArchAarch64;

const FILES: &str = "close close_range copy_file_range dup dup3 faccessat faccessat2 fadvise64 fallocate fchmod \
    fchmodat fchmodat2 fchown fchownat fcntl fdatasync flock fstat fstatfs fsync ftruncate ioctl linkat lseek \
    mkdirat mknodat newfstatat openat openat2 pipe2 readlinkat renameat renameat2 statfs statx symlinkat sync \
    sync_file_range syncfs truncate umask unlinkat utimensat";
const DIRECTORIES: &str = "chdir fchdir getcwd getdents64";
const ATTRIBUTES: &str = "fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr \
    listxattrat llistxattr lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat";
const TRANSFER: &str = "cachestat pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readv sendfile \
    splice tee vmsplice write writev";
const ASYNC_IO: &str = "io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit";
const WAITING: &str = "epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 eventfd2 fanotify_mark inotify_add_watch \
    inotify_init1 inotify_rm_watch ppoll pselect6 signalfd4";
const MEMORY: &str = "brk madvise membarrier memfd_create mincore mlock mlock2 mlockall mmap mprotect mremap mseal \
    msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages";
const PROCESSES: &str = "execve execveat exit exit_group getpgid getpid getppid getrusage getsid gettid \
    get_robust_list pidfd_open pidfd_send_signal prctl process_vm_readv ptrace rseq setpgid setsid \
    set_robust_list set_tid_address tgkill tkill kill wait4 waitid";
const IDENTITY: &str = "capget capset getegid geteuid getgid getgroups getresgid getresuid getuid setfsgid setfsuid \
    setgid setgroups setregid setresgid setresuid setreuid setuid";
const LOCKS: &str = "futex futex_requeue futex_wait futex_waitv futex_wake";
const SIGNALS: &str = "restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn \
    rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sigaltstack";
const TIME: &str = "adjtimex clock_adjtime clock_getres clock_gettime clock_nanosleep getitimer gettimeofday \
    nanosleep setitimer timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create \
    timerfd_gettime timerfd_settime times";
const SCHEDULING: &str = "getcpu getpriority ioprio_get ioprio_set sched_get_priority_max sched_get_priority_min \
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity \
    sched_setattr sched_setparam sched_setscheduler sched_yield setpriority";
const LIMITS: &str = "getrlimit prlimit64 setrlimit sysinfo uname";
const SOCKETS: &str = "accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg \
    recvmsg sendmmsg sendmsg sendto setsockopt shutdown socketpair";
const IPC: &str = "mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv \
    msgsnd semctl semget semop semtimedop shmat shmctl shmdt shmget";
const HARDENING: &str = "getrandom landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp";

/// Calls that newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const LEGACY: &str = "access alarm arch_prctl chmod chown creat dup2 epoll_create epoll_ctl_old epoll_wait \
    epoll_wait_old eventfd fork futimesat getdents getpgrp get_thread_area inotify_init lchown link lstat mkdir \
    mknod open pause pipe poll readlink rename rmdir select set_thread_area signalfd stat symlink time unlink utime \
    utimes vfork";
#[cfg(target_arch = "aarch64")]
const LEGACY: &str = "";

/// `CLONE_NEW*` of `clone`: a container cannot make namespaces.
const CLONE_NEW_ANY: u64 = 0x7e02_0000;
/// `personality` values that change nothing dangerous: Linux, BSD-ish 16-bit stat, uname26, both, and asking.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// UNIX, INET, INET6, NETLINK, PACKET (which still needs `NET_RAW`).
const SOCKET_FAMILIES: [u64; 5] = [1, 2, 10, 16, 17];
const LOW_32_BITS: u64 = 0xffff_ffff;
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;

/// The profile for a container that holds `capabilities` (bare names).
///
/// # Errors
/// Only if a builder of `oci-spec` refuses, which it has no reason to.
pub fn profile(capabilities: &[String]) -> Result<LinuxSeccomp, OciSpecError> {
    let mut rules = vec![allow(allowed_always())?];
    if capabilities.iter().any(|c| c == "SYS_CHROOT") {
        rules.push(allow(vec!["chroot".into()])?);
    }
    for family in SOCKET_FAMILIES {
        rules.push(allow_when("socket", masked(LOW_32_BITS, family)?)?);
    }
    for value in PERSONALITIES {
        rules.push(allow_when("personality", equal(value)?)?);
    }
    rules.push(allow_when("clone", masked(CLONE_NEW_ANY, 0)?)?);
    // Its flags are behind a pointer; ENOSYS makes every libc fall back to clone.
    rules.push(
        LinuxSyscallBuilder::default()
            .names(vec!["clone3".to_owned()])
            .action(LinuxSeccompAction::ScmpActErrno)
            .errno_ret(ENOSYS)
            .build()?,
    );
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(EPERM)
        .architectures(vec![ARCH])
        .syscalls(rules)
        .build()
}

fn allowed_always() -> Vec<String> {
    let groups = [
        FILES,
        DIRECTORIES,
        ATTRIBUTES,
        TRANSFER,
        ASYNC_IO,
        WAITING,
        MEMORY,
        PROCESSES,
        IDENTITY,
        LOCKS,
        SIGNALS,
        TIME,
        SCHEDULING,
        LIMITS,
        SOCKETS,
        IPC,
        HARDENING,
        LEGACY,
    ];
    let mut names: Vec<String> = groups.iter().flat_map(|g| g.split_whitespace()).map(str::to_owned).collect();
    names.sort_unstable();
    names
}

fn allow(names: Vec<String>) -> Result<LinuxSyscall, OciSpecError> {
    LinuxSyscallBuilder::default().names(names).action(LinuxSeccompAction::ScmpActAllow).build()
}

fn allow_when(name: &str, condition: LinuxSeccompArg) -> Result<LinuxSyscall, OciSpecError> {
    LinuxSyscallBuilder::default()
        .names(vec![name.to_owned()])
        .action(LinuxSeccompAction::ScmpActAllow)
        .args(vec![condition])
        .build()
}

fn equal(value: u64) -> Result<LinuxSeccompArg, OciSpecError> {
    LinuxSeccompArgBuilder::default().index(0usize).value(value).op(LinuxSeccompOperator::ScmpCmpEq).build()
}

fn masked(mask: u64, value: u64) -> Result<LinuxSeccompArg, OciSpecError> {
    LinuxSeccompArgBuilder::default()
        .index(0usize)
        .value(mask)
        .value_two(value)
        .op(LinuxSeccompOperator::ScmpCmpMaskedEq)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(profile: &LinuxSeccomp) -> Vec<String> {
        let rules = profile.syscalls().as_ref().expect("has rules");
        rules.iter().flat_map(|r| r.names().clone()).collect()
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_profile_is_the_reviewed_one() {
        use std::fmt::Write as _;

        let profile = profile(&["SYS_CHROOT".into()]).expect("builds");
        let mut text = format!("default {} {:?}\n", profile.default_action(), profile.default_errno_ret());
        writeln!(text, "architectures {:?}", profile.architectures()).expect("a string takes it");
        for rule in profile.syscalls().iter().flatten() {
            for name in rule.names() {
                write!(text, "{name} {}", rule.action()).expect("a string takes it");
                for arg in rule.args().iter().flatten() {
                    write!(text, " arg{} {} {:#x} {:x?}", arg.index(), arg.op(), arg.value(), arg.value_two())
                        .expect("a string takes it");
                }
                text.push('\n');
            }
        }
        expect_test::expect_file!["../golden/seccomp-x86_64.txt"].assert_eq(&text);
    }

    #[test]
    fn what_breaks_out_of_containers_is_not_allowed() {
        let listed = names(&profile(&["SYS_CHROOT".into(), "SYS_ADMIN".into()]).expect("builds"));
        let denied = "mount umount2 mount_setattr move_mount open_tree fsopen fsmount fsconfig fspick pivot_root \
            unshare setns bpf perf_event_open io_uring_setup io_uring_enter io_uring_register userfaultfd keyctl \
            add_key request_key open_by_handle_at name_to_handle_at process_vm_writev process_madvise pidfd_getfd \
            kcmp init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff quotactl \
            acct iopl ioperm settimeofday clock_settime syslog sethostname setdomainname fanotify_init modify_ldt \
            memfd_secret lookup_dcookie vhangup statmount listmount get_mempolicy mbind set_mempolicy move_pages \
            migrate_pages nfsservctl uselib ustat sysfs create_module";
        for name in denied.split_whitespace() {
            assert!(!listed.iter().any(|n| n == name), "{name} is allowed");
        }
    }

    #[test]
    fn chroot_comes_with_its_capability_only() {
        assert!(!names(&profile(&[]).expect("builds")).contains(&"chroot".to_owned()));
    }

    #[test]
    fn no_call_is_listed_twice() {
        let mut listed = allowed_always();
        listed.dedup();
        assert_eq!(listed.len(), allowed_always().len());
    }
}
