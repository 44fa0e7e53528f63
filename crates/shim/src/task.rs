//! One process of the container, its first or an exec: streams, stage, and how it ended.

use std::{
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill, killpg},
    unistd::{Pid, read},
};

use crate::{
    native::Underway,
    stdio::{Console, Stdin},
};

/// Key of the container's first process.
pub(crate) const INIT: u64 = 0;

/// The process is being started.
pub(crate) struct Job {
    pub(crate) by: By,
    /// After this it is killed.
    pub(crate) deadline: Instant,
    /// It took too long and was killed.
    pub(crate) timed_out: bool,
}

/// Who starts it.
pub(crate) enum By {
    /// The OCI runtime, whose end tells.
    Runtime {
        /// PID of the runtime.
        pid: u32,
        log: PathBuf,
        pid_file: PathBuf,
    },
    /// The shim itself; the end of its socket tells.
    Shim(Underway),
}

impl Job {
    /// The runtime of this PID.
    pub(crate) fn is_runtime(&self, wanted: u32) -> bool {
        matches!(self.by, By::Runtime { pid, .. } if pid == wanted)
    }

    /// A stand-in of this PID, whose end means nothing.
    pub(crate) fn is_stand_in(&self, pid: u32) -> bool {
        matches!(&self.by, By::Shim(underway) if underway.pid == pid)
    }

    /// Ends whatever is starting it.
    pub(crate) fn kill(&self) {
        let pids: Vec<u32> = match &self.by {
            By::Runtime { pid, .. } => vec![*pid],
            By::Shim(underway) => underway.pids().collect(),
        };
        for pid in pids.into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// The process has been waited for.
#[derive(Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) at_ns: i64,
    /// Output that somebody else holds open is waited for until then.
    pub(crate) drain_until: Instant,
}

/// A process that writes little and often: the time its output is left alone, so that one read takes many
/// lines. What is written now and then is read at once.
const GATHER: Duration = Duration::from_millis(1);
/// A read that got more was worth its while.
const WORTH_BYTES: usize = 16 * 1024;

/// When an output was read, and until when it is left alone.
#[derive(Clone, Copy, Default)]
pub(crate) struct Pace {
    read_at: Option<Instant>,
    rest_until: Option<Instant>,
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
    pub(crate) paces: [Pace; 2],
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
            Ok(n) => {
                self.note_pace(output, n);
                Some(n)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => None,
            // A terminal nobody holds any more reads as EIO.
            Err(_) => Some(self.end_output(output)),
        }
    }

    /// Little, and little a moment ago: there will be more in a moment.
    fn note_pace(&mut self, output: usize, bytes: usize) {
        if self.tty {
            return;
        }
        let (now, pace) = (Instant::now(), &mut self.paces[output]);
        let is_busy = pace.read_at.is_some_and(|at| now.duration_since(at) < 2 * GATHER);
        pace.rest_until = (is_busy && bytes < WORTH_BYTES).then(|| now + GATHER);
        pace.read_at = Some(now);
    }

    /// Until when an output is not looked at. One whose process has ended is read to its end.
    pub(crate) fn rests_until(&self, output: usize) -> Option<Instant> {
        self.paces[output].rest_until.filter(|_| self.ended.is_none() && self.outputs[output].is_some())
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
