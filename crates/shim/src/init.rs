//! PID 1 of a container run with `--init`: starts the program, forwards every signal to it, reaps
//! whatever is orphaned, and ends as the program ends.

use std::{
    ffi::OsString,
    io::{self, ErrorKind},
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use nix::{
    sys::{
        signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, tcsetpgrp},
};

use crate::detach;

/// Runs `argv` until it ends.
pub(crate) fn run(argv: &[OsString]) -> ExitCode {
    match supervise(argv) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            eprintln!("exec {}: {e}", argv[0].display());
            let codes = [(ErrorKind::NotFound, 127), (ErrorKind::PermissionDenied, 126)];
            let known = codes.iter().find(|(kind, _)| *kind == e.kind());
            ExitCode::from(known.map_or(128, |(_, code)| *code))
        }
    }
}

fn supervise(argv: &[OsString]) -> io::Result<u8> {
    // Blocked, so that they can be waited for; the program's own mask is empty.
    let all = SigSet::all();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), None)?;
    let mut program = Command::new(&argv[0]);
    program.args(&argv[1..]).process_group(0);
    detach::unblock_signals(&mut program);
    let child = program.spawn()?;
    let child = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    // With a terminal the program's group is the foreground; without one there is nothing to set.
    let _ = tcsetpgrp(io::stdin(), child);
    loop {
        if let Some(code) = reap(child) {
            return Ok(code);
        }
        match all.wait() {
            Ok(Signal::SIGCHLD) | Err(_) => {}
            Ok(signal) => drop(kill(child, signal)),
        }
    }
}

/// Collects every ended process; the program's own end is the answer.
fn reap(child: Pid) -> Option<u8> {
    let mut end = None;
    while let Ok(status) = waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
        let (pid, code) = match status {
            WaitStatus::Exited(pid, code) => (pid, code),
            WaitStatus::Signaled(pid, signal, _) => (pid, 128 + signal as i32),
            WaitStatus::StillAlive => break,
            WaitStatus::Stopped(..)
            | WaitStatus::PtraceEvent(..)
            | WaitStatus::PtraceSyscall(_)
            | WaitStatus::Continued(_) => continue,
        };
        if pid == child {
            end = Some(u8::try_from(code & 0xff).unwrap_or(255));
        }
    }
    end
}
