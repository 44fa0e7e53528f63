//! Freezing a cgroup: nothing in it runs, nothing in it notices. The kernel's own word is the only
//! memory of it, so a restarted agent reads it again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{ROOT, is_unified};

/// A group that forks all the time freezes within some tries; one in an uninterruptible sleep may not at all.
const PATIENCE: Duration = Duration::from_secs(5);
/// The old freezer can hang half-way until it is thawed once.
const TRY: Duration = Duration::from_millis(100);

fn directory(cgroup_path: &str) -> PathBuf {
    let inner = cgroup_path.trim_start_matches('/');
    if is_unified() { Path::new(ROOT).join(inner) } else { Path::new(ROOT).join("freezer").join(inner) }
}

/// Whether the kernel says that the group is frozen (or about to be). `false` when there is none.
#[must_use]
pub fn is_frozen(cgroup_path: &str) -> bool {
    let dir = directory(cgroup_path);
    let file = if is_unified() { "cgroup.freeze" } else { "freezer.self_freezing" };
    fs::read_to_string(dir.join(file)).is_ok_and(|text| text.trim() == "1")
}

/// Freezes everything in the group and returns when nothing runs any more. On failure it is thawed again.
///
/// # Errors
/// There is no such group, or something in it cannot be frozen in time.
pub fn freeze(cgroup_path: &str) -> io::Result<()> {
    let dir = directory(cgroup_path);
    let deadline = Instant::now() + PATIENCE;
    loop {
        request(&dir, true)?;
        let until = Instant::now() + TRY;
        while Instant::now() < until {
            if has_frozen(&dir)? {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(1));
        }
        if Instant::now() >= deadline {
            request(&dir, false)?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, "its processes do not freeze"));
        }
        if !is_unified() {
            request(&dir, false)?;
        }
    }
}

/// Lets the group run on. A group that is not frozen, or not there, is none the worse for it.
///
/// # Errors
/// The kernel refuses.
pub fn thaw(cgroup_path: &str) -> io::Result<()> {
    match request(&directory(cgroup_path), false) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn request(dir: &Path, frozen: bool) -> io::Result<()> {
    if is_unified() {
        fs::write(dir.join("cgroup.freeze"), if frozen { "1" } else { "0" })
    } else {
        fs::write(dir.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" })
    }
}

fn has_frozen(dir: &Path) -> io::Result<bool> {
    if is_unified() {
        let events = fs::read_to_string(dir.join("cgroup.events"))?;
        return Ok(events.lines().any(|line| line == "frozen 1"));
    }
    Ok(fs::read_to_string(dir.join("freezer.state"))?.trim() == "FROZEN")
}
