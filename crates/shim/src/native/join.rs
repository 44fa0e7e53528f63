//! The stand-in: still the host's, it takes on what only the host may give (cgroups, limits), enters the
//! container's namespaces, and leaves a child there that is the shim's. For an exec all of them are entered
//! in one call; for a start they are made ([`super::found`]).

use std::{
    ffi::c_int,
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::{
        resource::setrlimit,
        stat::{Mode, umask},
    },
};

use runtime::words;

use super::{Beside, Plan, Program, Way, document::Process, enter, found, report};

/// The only descriptor beside the streams.
const SOCKET: c_int = 3;
/// The container's first process, until its namespaces are entered.
const INIT: c_int = 4;

/// Ends this process, whatever happens: the shim's stack is below.
pub(super) fn stand_in(plan: &Plan, streams: [OwnedFd; 3], socket: OwnedFd) -> ! {
    // Nothing of the shim's is dropped here: its files would be removed.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        hide();
        match arrange(plan, &streams, &socket) {
            Ok(socket) => {
                let done = match &plan.way {
                    Way::Beside(beside) => join(&plan.program, beside, &socket),
                    Way::First(sandbox) => found::found(&plan.program, sandbox, &socket),
                };
                if let Err(why) = done {
                    report::failed(&socket, &why);
                }
            }
            Err(e) => report::failed(&socket, &format!("arrange descriptors: {e}")),
        }
    }));
    leave()
}

/// Without handlers, buffers and destructors.
pub(super) fn leave() -> ! {
    #[expect(unsafe_code, reason = "_exit")]
    // SAFETY: it does not return.
    unsafe {
        libc::_exit(125)
    }
}

/// No process of the container may look into this one. Any change of credentials may undo it.
pub(super) fn hide() {
    #[expect(unsafe_code, reason = "prctl on numbers")]
    // SAFETY: numbers only.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
    }
}

/// Streams on 0 to 2, the socket on 3, the first process on 4, and nothing else (CVE-2024-21626).
fn arrange(plan: &Plan, streams: &[OwnedFd; 3], socket: &OwnedFd) -> io::Result<OwnedFd> {
    let high = |fd: &OwnedFd| -> io::Result<OwnedFd> {
        let raw = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(64))?;
        #[expect(unsafe_code, reason = "a new descriptor arrives as a number")]
        // SAFETY: fcntl has just made it.
        Ok(unsafe { OwnedFd::from_raw_fd(raw) })
    };
    let mut from = vec![high(&streams[0])?, high(&streams[1])?, high(&streams[2])?, high(socket)?];
    if let Way::Beside(beside) = &plan.way {
        from.push(high(&beside.init)?);
    }
    for (to, fd) in (0..).zip(&from) {
        let flags = if to >= SOCKET { libc::O_CLOEXEC } else { 0 };
        check(|| {
            #[expect(unsafe_code, reason = "dup3 onto numbers whose owners are never used again")]
            // SAFETY: what had these numbers in the shim is not touched by this process any more.
            unsafe {
                libc::dup3(fd.as_raw_fd(), to, flags)
            }
        })?;
    }
    let first_other = libc::c_uint::try_from(from.len()).map_err(io::Error::other)?;
    // The owners must not close numbers that close_range is about to.
    std::mem::forget(from);
    check(|| {
        #[expect(unsafe_code, reason = "close_range has no safe wrapper")]
        // SAFETY: as above.
        unsafe {
            libc::close_range(first_other, libc::c_uint::MAX, 0)
        }
    })?;
    #[expect(unsafe_code, reason = "the socket's new number")]
    // SAFETY: dup3 has just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(SOCKET) })
}

pub(super) fn check(mut call: impl FnMut() -> c_int) -> io::Result<c_int> {
    match call() {
        got if got < 0 => Err(io::Error::last_os_error()),
        got => Ok(got),
    }
}

fn failed(what: &str, e: io::Error) -> String {
    format!("{what}: {}", words(&e))
}

/// What only the host's root may set.
pub(super) fn take_limits(process: &Process) -> Result<(), String> {
    if let Some(score) = process.oom_score_adj {
        fs::write("/proc/self/oom_score_adj", score.to_string()).map_err(|e| failed("set oom_score_adj", e))?;
    }
    for limit in process.rlimits.iter().flatten() {
        let resource = runtime::rlimit::resource(&limit.kind).ok_or("unknown rlimit")?;
        setrlimit(resource, limit.soft, limit.hard)
            .map_err(|e| failed(&format!("error setting rlimits for {}", limit.kind), e.into()))?;
    }
    Ok(())
}

fn join(program: &Program, beside: &Beside, socket: &OwnedFd) -> Result<(), String> {
    // Before anything of the container's: nothing of it ever runs outside its limits.
    for door in &beside.doors {
        fs::write(door, "0").map_err(|e| failed("join the container's cgroup", e))?;
    }
    take_limits(&program.process)?;
    umask(Mode::from_bits_truncate(0o022));
    check(|| {
        #[expect(unsafe_code, reason = "setns of several namespaces has no safe wrapper here")]
        // SAFETY: numbers only.
        unsafe {
            libc::setns(INIT, beside.namespaces)
        }
    })
    .map_err(|e| failed("enter the container's namespaces", e))?;
    hide();
    #[expect(unsafe_code, reason = "nothing owns the number")]
    // SAFETY: `arrange` has put it there, and it is used no more.
    unsafe {
        libc::close(INIT);
    }
    match clone_beside(0).map_err(|e| failed("make a process in the container", e))? {
        0 => {
            let own_users = beside.namespaces & libc::CLONE_NEWUSER != 0;
            let why = enter::beside(program, own_users, socket);
            report::failed(socket, &why);
        }
        pid => report::pid(socket, pid),
    }
    Ok(())
}

/// As fork, but the child is a sibling: the shim is its parent, and hears of its end.
pub(super) fn clone_beside(new: c_int) -> io::Result<c_int> {
    let flags = libc::CLONE_PARENT | libc::SIGCHLD | new;
    #[expect(unsafe_code, reason = "clone without a stack is fork")]
    // SAFETY: one thread; the child has a copy of everything, and goes on here.
    let got = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match c_int::try_from(got) {
        Ok(pid) if pid >= 0 => Ok(pid),
        Ok(_) | Err(_) => Err(io::Error::last_os_error()),
    }
}
