//! `openat2` below a directory, however many names move meanwhile. The kernel gives up with `EAGAIN` on a
//! path with `..` when anything on the machine was renamed on its way: a tenant who renames all the time
//! would otherwise have his neighbours' starts and copies fail.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    io::{Errno, Result},
    path::Arg,
};

/// Tries before it is told.
const ATTEMPTS: u32 = 128;

/// Opens what is there, or says why not.
///
/// # Errors
/// In the kernel's words.
pub(crate) fn openat2(dir: impl AsFd, path: impl Arg + Copy, flags: OFlags, scope: ResolveFlags) -> Result<OwnedFd> {
    for _ in 1..ATTEMPTS {
        match rustix::fs::openat2(&dir, path, flags, Mode::empty(), scope) {
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    rustix::fs::openat2(&dir, path, flags, Mode::empty(), scope)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        os::unix::fs::symlink,
        sync::atomic::{AtomicBool, Ordering},
        time::{Duration, Instant},
    };

    use rustix::fs::{CWD, RenameFlags, renameat_with};

    use super::*;

    #[test]
    fn a_neighbour_who_renames_all_the_time_is_waited_out() {
        let ground = tempfile::tempdir().expect("temporary directory");
        let (root, elsewhere) = (ground.path().join("root"), ground.path().join("elsewhere"));
        std::fs::create_dir_all(root.join("a/b")).expect("creates");
        symlink("../../../a/../a/b/../b", root.join("a/link")).expect("links");
        for name in ["one", "two"] {
            std::fs::create_dir_all(elsewhere.join(name)).expect("creates");
        }
        let (dir, stop) = (File::open(&root).expect("opens"), AtomicBool::new(false));
        let scope = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let (mut opened, mut given_up, began) = (0, 0, Instant::now());
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let (one, two) = (elsewhere.join("one"), elsewhere.join("two"));
                while !stop.load(Ordering::Relaxed) {
                    renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE).expect("renames");
                }
            });
            // The control: asked once, the kernel gives up now and then.
            while given_up == 0 && began.elapsed() < Duration::from_secs(20) {
                for _ in 0..1000 {
                    let once = rustix::fs::openat2(&dir, "a/link", OFlags::PATH, Mode::empty(), scope);
                    given_up += u32::from(once.is_err_and(|e| e == Errno::AGAIN));
                    opened += u32::from(openat2(&dir, "a/link", OFlags::PATH, scope).is_ok());
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(given_up > 0, "the kernel never gave up");
        assert_eq!(opened % 1000, 0, "it was not waited out");
    }
}
