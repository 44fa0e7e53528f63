//! The one place the shim sleeps.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
    time::{Duration, Instant},
};

use libc::{POLLIN, POLLOUT, c_short};

/// Readable, writable, and what the kernel adds by itself.
pub(crate) const IN: c_short = POLLIN;
/// See [`IN`].
pub(crate) const OUT: c_short = POLLOUT;

/// Longest sleep with a deadline; whoever has a later one sleeps again.
const LONGEST: Duration = Duration::from_secs(3600);

/// What a descriptor in the set stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Signals,
    Listener,
    Console(u64),
    /// An exec of ours on its way.
    Underway(u64),
    Output(u64, usize),
    Stdin(u64),
    Client(u64),
    /// The OOM killer is about to be, or was, at it.
    Memory,
}

/// A set of descriptors, rebuilt every round: it has a handful of entries.
#[derive(Default)]
pub(crate) struct PollSet {
    fds: Vec<libc::pollfd>,
    sources: Vec<Source>,
}

impl PollSet {
    pub(crate) fn clear(&mut self) {
        self.fds.clear();
        self.sources.clear();
    }

    pub(crate) fn add(&mut self, fd: &impl AsFd, events: c_short, source: Source) {
        self.fds.push(libc::pollfd { fd: fd.as_fd().as_raw_fd(), events, revents: 0 });
        self.sources.push(source);
    }

    /// Waits until something is ready or `deadline`.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        let timeout = deadline.map(|d| {
            let left = d.saturating_duration_since(Instant::now()).min(LONGEST);
            libc::timespec {
                tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX),
                tv_nsec: libc::c_long::from(left.subsec_nanos()),
            }
        });
        let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let count = libc::nfds_t::try_from(self.fds.len()).unwrap_or(0);
        #[expect(unsafe_code, reason = "poll on descriptors that the borrow checker cannot follow into the set")]
        // SAFETY: the pointer and count are those of the vector; a stale descriptor only yields POLLNVAL.
        // The timeout is there for as long as the call takes.
        let got = unsafe { libc::ppoll(self.fds.as_mut_ptr(), count, timeout, std::ptr::null()) };
        if got < 0 {
            let e = io::Error::last_os_error();
            if e.kind() != io::ErrorKind::Interrupted {
                return Err(e);
            }
        }
        Ok(())
    }

    /// What is ready, with the kernel's events.
    pub(crate) fn ready(&self) -> Vec<(Source, c_short)> {
        let pairs = self.fds.iter().zip(&self.sources);
        pairs.filter(|(fd, _)| fd.revents != 0).map(|(fd, source)| (*source, fd.revents)).collect()
    }
}
