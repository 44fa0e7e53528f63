//! The new process, inside the container, on its way from root of the container's user namespace (for an
//! exec: from the host's root in it) to exactly what the document says. The order is runc's: what needs privileges before they
//! are given up, the working directory tried as both, looked up last as the user who will be.

use std::{
    convert::Infallible,
    ffi::{CString, c_int, c_long},
    io,
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
};

use caps::{CapSet, CapsHashSet};
use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, SigmaskHow, sigprocmask},
        stat::{SFlag, fstat},
    },
    unistd::{self, Gid, Uid},
};
use runtime::{SystemCalls, words};

use super::{
    Program, document,
    join::{check, hide},
    lookup, terminal,
};

/// Highest capability number there will be: the sets are 64 bits.
const LAST_CAPABILITY: u32 = 63;
const STREAMS: [c_int; 3] = [0, 1, 2];

/// An exec: in the container's namespaces already, by the stand-in. Returns only if it could not: why.
pub(super) fn beside(program: &Program, own_users: bool, socket: &OwnedFd) -> String {
    let attempt = || {
        begin_session()?;
        join_keyring(&program.container)?;
        if own_users {
            // So far the user is one the namespace does not have.
            be(0, 0, &[])?;
        }
        become_the_programs(program, socket, |_| Ok(()))
    };
    match attempt() {
        Ok(never) => match never {},
        Err(why) => why,
    }
}

/// Sheds everything the document does not name, and executes the program. `prepare` is called when the
/// streams are final, with the terminal if that is what they are.
pub(super) fn become_the_programs(
    program: &Program,
    socket: &OwnedFd,
    prepare: impl FnOnce(Option<BorrowedFd<'_>>) -> Result<(), String>,
) -> Result<Infallible, String> {
    let process = &program.process;
    if process.terminal {
        terminal::take(process.console_size, process.user.uid, socket)?;
        prepare(Some(stream(0)))?;
    } else {
        hand_over_streams(process.user.uid);
        prepare(None)?;
    }
    let mut env = process.env.clone();
    if env.iter().all(|entry| !entry.starts_with("HOME=") || entry == "HOME=") {
        let home = runtime::user::home(Path::new("/"), process.user.uid).unwrap_or_else(|_| "/".to_owned());
        env.retain(|entry| entry != "HOME=");
        env.push(format!("HOME={home}"));
    }
    if process.no_new_privileges == Some(true) {
        control(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(|e| failed("set no_new_privs", e))?;
    }
    if let SystemCalls::Filtered(filter) = &program.calls {
        load(filter)?;
    }
    let entered = unistd::chdir(process.cwd.as_str());
    limit_capabilities(&process.capabilities)?;
    control(libc::PR_SET_KEEPCAPS, 1).map_err(|e| failed("keep capabilities", e))?;
    be(process.user.uid, process.user.gid, process.user.additional_gids.as_deref().unwrap_or_default())?;
    match entered {
        Ok(()) => {}
        // What root may not enter, its owner may.
        Err(Errno::EPERM | Errno::EACCES) => enter(&process.cwd)?,
        Err(e) => return Err(no_directory(&process.cwd, e)),
    }
    refuse_to_be_outside()?;
    control(libc::PR_SET_KEEPCAPS, 0).map_err(|e| failed("keep capabilities", e))?;
    reduce_capabilities(&process.capabilities)?;
    hide();
    execute(program, &env)
}

/// A session of its own, of which it is the leader.
pub(super) fn begin_session() -> Result<(), String> {
    unistd::setsid().map(drop).map_err(|e| failed("setsid", e.into()))
}

fn stream(number: c_int) -> BorrowedFd<'static> {
    #[expect(unsafe_code, reason = "streams are known by number")]
    // SAFETY: 0 to 2 are open until the program is executed.
    unsafe {
        BorrowedFd::borrow_raw(number)
    }
}

fn failed(what: &str, e: io::Error) -> String {
    format!("{what}: {}", words(&e))
}

fn control(option: c_int, value: libc::c_ulong) -> io::Result<()> {
    check(|| {
        #[expect(unsafe_code, reason = "prctl on numbers")]
        // SAFETY: numbers only.
        unsafe {
            libc::prctl(option, value, 0, 0, 0)
        }
    })?;
    Ok(())
}

/// The container's session keyring, as its first process has: never the host's.
fn join_keyring(container: &str) -> Result<Option<c_long>, String> {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
    let name = CString::new(format!("_ses.{container}")).map_err(|e| e.to_string())?;
    #[expect(unsafe_code, reason = "keyctl has no safe wrapper")]
    // SAFETY: the name is a C string that outlives the call.
    let got = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    match io::Error::last_os_error() {
        // A kernel without keys has no keyring to keep apart.
        e if got < 0 && e.raw_os_error() == Some(libc::ENOSYS) => Ok(None),
        e if got < 0 => Err(failed("unable to join session keyring", e)),
        _ => Ok(Some(got)),
    }
}

/// As [`join_keyring`] for who makes it: execs, which come from the host's side, may find it.
pub(super) fn own_keyring(container: &str) -> Result<(), String> {
    const KEYCTL_SETPERM: c_int = 5;
    /// All to its possessor, what a new keyring gives its owner, and finding it to everybody else.
    const PERMISSIONS: libc::c_uint = 0x3f13_0008;
    let Some(keyring) = join_keyring(container)? else { return Ok(()) };
    #[expect(unsafe_code, reason = "keyctl has no safe wrapper")]
    // SAFETY: numbers only.
    let got = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, keyring, PERMISSIONS) };
    if got < 0 { Err(failed("unable to mod keyring permissions", io::Error::last_os_error())) } else { Ok(()) }
}

/// Real, effective, saved and file-system ids, and exactly these groups.
pub(super) fn be(uid: u32, gid: u32, groups: &[u32]) -> Result<(), String> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    let changed = unistd::setgroups(&groups)
        .and_then(|()| unistd::setresgid(gid, gid, gid))
        .and_then(|()| unistd::setresuid(uid, uid, uid));
    // Whatever the change has made of it.
    hide();
    changed.map_err(|e| failed(&format!("set user {uid}:{gid}"), e.into()))
}

/// The streams become the user's, so that `/dev/stdout` can be opened. The null device is everybody's.
fn hand_over_streams(uid: u32) {
    for number in STREAMS {
        let stream = stream(number);
        let is_device =
            fstat(stream).is_ok_and(|s| SFlag::from_bits_truncate(s.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR);
        if !is_device {
            // A stream that cannot be given away can still be read and written.
            let _ = unistd::fchown(stream, Some(Uid::from_raw(uid)), None);
        }
    }
}

fn load(filter: &runtime::seccomp::Filter) -> Result<(), String> {
    let instructions = filter.instructions();
    let length = u16::try_from(instructions.len()).map_err(|e| e.to_string())?;
    let program = libc::sock_fprog { len: length, filter: instructions.as_ptr().cast_mut() };
    #[expect(unsafe_code, reason = "seccomp has no safe wrapper")]
    // SAFETY: the kernel reads `length` instructions, which the filter owns.
    let got = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if got == 0 { Ok(()) } else { Err(failed("error loading seccomp filter", io::Error::last_os_error())) }
}

fn enter(cwd: &str) -> Result<(), String> {
    unistd::chdir(cwd).map_err(|e| no_directory(cwd, e))
}

fn no_directory(cwd: &str, e: Errno) -> String {
    format!("chdir to cwd ({cwd:?}) set in config.json failed: {}", words(&e.into()))
}

/// A directory that is not below the root has no name here (CVE-2024-21626).
fn refuse_to_be_outside() -> Result<(), String> {
    let mut name = vec![0u8; libc::PATH_MAX as usize];
    #[expect(unsafe_code, reason = "libc's getcwd hides what the kernel says")]
    // SAFETY: the kernel writes at most the length that is named.
    let got = unsafe { libc::syscall(libc::SYS_getcwd, name.as_mut_ptr(), name.len()) };
    match io::Error::last_os_error() {
        e if got < 0 => Err(failed("failed to verify if current working directory is safe", e)),
        _ if name.first() == Some(&b'/') => Ok(()),
        _ => Err("current working directory is outside of container mount namespace root -- possible container \
                  breakout detected"
            .to_owned()),
    }
}

fn set_of(names: &Option<Vec<String>>) -> Result<CapsHashSet, String> {
    names.iter().flatten().map(|name| name.parse().map_err(|_| format!("unknown capability {name}"))).collect()
}

/// What the process, or anything it executes, can ever have.
fn limit_capabilities(wanted: &document::Capabilities) -> Result<(), String> {
    let bounding = set_of(&wanted.bounding)?;
    let kept = bounding.iter().fold(0u64, |bits, cap| bits | 1 << cap.index());
    for number in 0..=LAST_CAPABILITY {
        if kept & (1 << number) != 0 {
            continue;
        }
        match control(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number)) {
            // Beyond this kernel's last.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => break,
            dropped => dropped.map_err(|e| failed("drop capabilities from the bounding set", e))?,
        }
    }
    Ok(())
}

fn reduce_capabilities(wanted: &document::Capabilities) -> Result<(), String> {
    let told = |e: caps::errors::CapsError| format!("set capabilities: {e}");
    caps::clear(None, CapSet::Ambient).map_err(told)?;
    caps::set(None, CapSet::Effective, &set_of(&wanted.effective)?).map_err(told)?;
    caps::set(None, CapSet::Permitted, &set_of(&wanted.permitted)?).map_err(told)?;
    caps::clear(None, CapSet::Inheritable).map_err(told)
}

fn execute(program: &Program, env: &[String]) -> Result<Infallible, String> {
    let args = &program.process.args;
    let program = lookup::find(&args[0], env, program.own_path.as_deref())?;
    let strings = |all: &[String]| -> Result<Vec<CString>, String> {
        all.iter().map(|s| CString::new(s.as_str()).map_err(|_| "invalid argument".to_owned())).collect()
    };
    let (path, args, env) = (CString::new(program.as_str()).map_err(|e| e.to_string())?, strings(args)?, strings(env)?);
    usual_signals();
    let Err(e) = unistd::execve(&path, &args, &env);
    Err(format!("exec {program}: {}", words(&e.into())))
}

/// Whatever the shim ignores or holds back, its children do not: both outlive exec.
fn usual_signals() {
    // The kernel's structure: handler, flags, restorer, mask; all nought is the usual disposition. libc's
    // own function keeps two numbers to itself.
    let usual = [0u64; 4];
    for number in 1..=64 {
        #[expect(unsafe_code, reason = "dispositions by number, libc's own among them")]
        // SAFETY: the kernel reads the structure and installs no handler.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, number, usual.as_ptr(), 0, size_of::<u64>());
        }
    }
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}
