//! Being told that the OOM killer was at a cgroup. v1 signals an eventfd, shortly before it kills;
//! v2 wakes whoever polls `memory.events`, which needs no inotify instance of the few a host has.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd},
        unix::fs::FileExt as _,
    },
    path::Path,
};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{ROOT, is_unified};

/// A watch on one cgroup.
#[derive(Debug)]
pub struct OomWatch(Kind);

#[derive(Debug)]
enum Kind {
    /// The registration lasts as long as the eventfd.
    Eventfd(EventFd),
    MemoryEvents(File),
}

impl OomWatch {
    /// Begins to watch. What happened before is not told.
    ///
    /// # Errors
    /// There is no such cgroup, or no memory controller.
    pub fn open(cgroup_path: &str) -> io::Result<Self> {
        let inner = cgroup_path.trim_start_matches('/');
        if is_unified() {
            let events = File::open(Path::new(ROOT).join(inner).join("memory.events"))?;
            let watch = Self(Kind::MemoryEvents(events));
            // Only what changes after a read wakes.
            watch.take()?;
            return Ok(watch);
        }
        let dir = Path::new(ROOT).join("memory").join(inner);
        let control = File::open(dir.join("memory.oom_control"))?;
        let eventfd = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let registration = format!("{} {}", eventfd.as_fd().as_raw_fd(), control.as_raw_fd());
        fs::write(dir.join("cgroup.event_control"), registration)?;
        Ok(Self(Kind::Eventfd(eventfd)))
    }

    /// What to poll for.
    #[must_use]
    pub fn events(&self) -> i16 {
        match self.0 {
            Kind::Eventfd(_) => libc::POLLIN,
            Kind::MemoryEvents(_) => libc::POLLPRI,
        }
    }

    /// Takes note of what woke us, so that the next thing wakes us again.
    ///
    /// # Errors
    /// The cgroup is gone: it would wake us for ever.
    pub fn take(&self) -> io::Result<()> {
        match &self.0 {
            Kind::Eventfd(eventfd) => match eventfd.read() {
                Ok(_) | Err(nix::Error::EAGAIN) => Ok(()),
                Err(e) => Err(e.into()),
            },
            Kind::MemoryEvents(file) => file.read_at(&mut [0; 512], 0).map(drop),
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Kind::Eventfd(eventfd) => eventfd.as_fd(),
            Kind::MemoryEvents(file) => file.as_fd(),
        }
    }
}
