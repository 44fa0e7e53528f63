//! One process of the container, its first or an exec: streams, stage, and how it ended.

use std::{io, os::fd::OwnedFd, path::PathBuf, time::Instant};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill, killpg},
    unistd::{Pid, read},
};

use crate::stdio::{Console, Stdin};

/// Key of the container's first process.
pub(crate) const INIT: u64 = 0;

/// The runtime is starting the process.
pub(crate) struct Job {
    /// PID of the runtime.
    pub(crate) pid: u32,
    pub(crate) log: PathBuf,
    pub(crate) pid_file: PathBuf,
    /// After this it is killed.
    pub(crate) deadline: Instant,
    /// It took too long and was killed.
    pub(crate) timed_out: bool,
}

/// The process has been waited for.
#[derive(Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) at_ns: i64,
    /// Output that somebody else holds open is waited for until then.
    pub(crate) drain_until: Instant,
}

/// A process and what belongs to it.
#[derive(Default)]
pub(crate) struct Task {
    pub(crate) key: u64,
    /// Id of the exec; `None` for the container itself.
    pub(crate) exec: Option<String>,
    pub(crate) tty: bool,
    pub(crate) detached: bool,
    /// It ends with its client.
    pub(crate) lifeline: bool,
    /// Somebody may write to it.
    pub(crate) open_stdin: bool,
    /// Its input ends with the first client that has it.
    pub(crate) stdin_once: bool,
    pub(crate) job: Option<Job>,
    pub(crate) console: Option<Console>,
    pub(crate) stdin: Option<Stdin>,
    /// stdout (or the terminal's master) and stderr.
    pub(crate) outputs: [Option<OwnedFd>; 2],
    pub(crate) size: Option<(u16, u16)>,
    pub(crate) pid: Option<u32>,
    pub(crate) started_at_ns: Option<i64>,
    pub(crate) ended: Option<Ended>,
    /// Clients that wait for the start's answer.
    pub(crate) waiting: Vec<u64>,
}

impl Task {
    /// It has been started and has not ended.
    pub(crate) fn runs(&self) -> bool {
        self.started_at_ns.is_some() && self.ended.is_none()
    }

    /// SIGKILL to it and its process group. It has not been waited for, so its PID is nobody else's.
    pub(crate) fn kill(&self) {
        let pid = self.pid.filter(|_| self.runs()).and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.map(Pid::from_raw) {
            // Every runtime we know makes it a group's leader; if one does not, it dies alone.
            let _ = killpg(pid, Signal::SIGKILL);
            let _ = kill(pid, Signal::SIGKILL);
        }
    }

    /// No more output can come.
    pub(crate) fn is_silent(&self) -> bool {
        self.outputs.iter().all(Option::is_none)
    }

    /// Reads an output once. `Some(0)` is its end, `None` is nothing now.
    pub(crate) fn read_output(&mut self, output: usize, buffer: &mut [u8]) -> Option<usize> {
        let fd = self.outputs[output].as_ref()?;
        match read(fd, buffer) {
            Ok(0) => Some(self.end_output(output)),
            Ok(n) => Some(n),
            Err(Errno::EAGAIN | Errno::EINTR) => None,
            // A terminal nobody holds any more reads as EIO.
            Err(_) => Some(self.end_output(output)),
        }
    }

    fn end_output(&mut self, output: usize) -> usize {
        self.outputs[output] = None;
        0
    }

    /// Hands bytes to the process; without a stdin they are nobody's.
    pub(crate) fn offer_input(&mut self, bytes: &[u8]) {
        if let Some(stdin) = &mut self.stdin
            && stdin.offer(bytes).is_err()
        {
            self.stdin = None;
        }
        self.settle_stdin();
    }

    /// Its stdin takes more again.
    pub(crate) fn flush_input(&mut self) {
        if let Some(stdin) = &mut self.stdin
            && stdin.flush().is_err()
        {
            self.stdin = None;
        }
        self.settle_stdin();
    }

    /// A client's input is over. A terminal has no end of file that a client could send by leaving.
    pub(crate) fn input_ended(&mut self) {
        if self.stdin_once
            && !self.tty
            && let Some(stdin) = &mut self.stdin
        {
            stdin.close_when_empty();
        }
        self.settle_stdin();
    }

    fn settle_stdin(&mut self) {
        if self.stdin.as_ref().is_some_and(Stdin::is_finished) {
            self.stdin = None;
        }
    }

    /// May a client's input be read now?
    pub(crate) fn takes_input(&self) -> bool {
        self.started_at_ns.is_some() && !self.stdin.as_ref().is_some_and(Stdin::is_blocked)
    }

    /// Applies the terminal's size, now or when there is a terminal.
    pub(crate) fn resize(&mut self, size: (u16, u16)) -> io::Result<()> {
        self.size = Some(size);
        match (self.tty, &self.outputs[0]) {
            (true, Some(master)) => crate::stdio::set_size(master, size),
            _ => Ok(()),
        }
    }
}
