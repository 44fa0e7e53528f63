//! The OOM killer at work in the container: woken by the kernel, counted by its own counter. An old
//! kernel wakes us before it kills, so the counter is looked at again for a moment.

use std::time::{Duration, Instant};

use runtime::cgroup::{self, OomWatch};

/// Between two looks at the counter.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A kill that was announced and has not happened after so many looks is not counted until the next one.
const LOOKS: u8 = 50;

/// What is known of it.
#[derive(Default)]
pub(crate) struct Oom {
    watch: Option<OomWatch>,
    kills: u32,
    look_at: Option<Instant>,
    looks_left: u8,
}

impl Oom {
    /// The container's cgroup is there. Without a memory controller nothing is ever told.
    pub(crate) fn begin(&mut self, cgroup_path: &str) {
        self.watch = OomWatch::open(cgroup_path).ok();
        // It may have been at it before we listened.
        self.look_soon(1);
    }

    /// The run is over, and its cgroup goes.
    pub(crate) fn rest(&mut self) {
        self.watch = None;
        self.look_at = None;
    }

    pub(crate) fn watch(&self) -> Option<&OomWatch> {
        self.watch.as_ref()
    }

    pub(crate) fn kills(&self) -> u32 {
        self.kills
    }

    /// The kernel has something to tell.
    pub(crate) fn woken(&mut self) {
        if self.watch.as_ref().is_some_and(|watch| watch.take().is_err()) {
            // Somebody took the cgroup away.
            self.watch = None;
        }
        self.look_at = Some(Instant::now());
        self.looks_left = LOOKS;
    }

    /// When to look at the counter.
    pub(crate) fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.look_at.is_some_and(|at| at <= now)
    }

    /// Reads the counter; the new count, if it grew.
    pub(crate) fn count(&mut self, cgroup_path: &str) -> Option<u32> {
        let kills = cgroup::oom_kills(cgroup_path).map_or(0, |kills| u32::try_from(kills).unwrap_or(u32::MAX));
        let grew = kills > self.kills;
        if grew {
            self.kills = kills;
        }
        if self.look_at.is_some() {
            self.look_at = None;
            if !grew && self.looks_left > 1 {
                self.look_soon(self.looks_left - 1);
            }
        }
        grew.then_some(kills)
    }

    fn look_soon(&mut self, looks: u8) {
        self.look_at = Some(Instant::now() + LOOK_EVERY);
        self.looks_left = looks;
    }
}
