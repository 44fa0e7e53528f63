//! Being told when a log grows: one inotify instance for the whole agent (a host has few of them),
//! one watch per log directory, removed with its last follower.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use futures::StreamExt as _;
use inotify::{Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::sync::watch;

/// Watches log directories.
#[derive(Clone)]
pub(crate) struct LogWatch(Arc<Mutex<Inner>>);

struct Inner {
    watches: Watches,
    by_dir: HashMap<PathBuf, WatchDescriptor>,
    followers: HashMap<WatchDescriptor, watch::Sender<()>>,
}

/// One follower of one directory.
pub(crate) struct Following {
    watch: LogWatch,
    dir: PathBuf,
    changed: watch::Receiver<()>,
}

impl LogWatch {
    /// Opens the instance; its events are read for as long as the agent lives.
    ///
    /// # Errors
    /// The host has no instance left.
    pub(crate) fn open() -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let inner = Inner { watches: inotify.watches(), by_dir: HashMap::new(), followers: HashMap::new() };
        let watch = Self(Arc::new(Mutex::new(inner)));
        let mut events = inotify.into_event_stream(vec![0; 16 << 10])?;
        let shared = watch.clone();
        tokio::spawn(async move {
            while let Some(Ok(event)) = events.next().await {
                shared.edit(|inner| {
                    if let Some(follower) = inner.followers.get(&event.wd) {
                        follower.send_replace(());
                    }
                });
            }
            tracing::error!("log directories are no longer watched");
        });
        Ok(watch)
    }

    /// Begins to follow; changes from now on are noticed.
    ///
    /// # Errors
    /// The directory is gone, or there are too many watches.
    pub(crate) fn follow(&self, dir: &Path) -> io::Result<Following> {
        let changed = self.edit(|inner| -> io::Result<_> {
            let mask = WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO;
            // Adding a directory again gives the same descriptor.
            let wd = inner.watches.add(dir, mask)?;
            inner.by_dir.insert(dir.to_owned(), wd.clone());
            Ok(inner.followers.entry(wd).or_insert_with(|| watch::channel(()).0).subscribe())
        })?;
        Ok(Following { watch: self.clone(), dir: dir.to_owned(), changed })
    }

    fn edit<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Following {
    /// Returns once something was written since the last call.
    pub(crate) async fn changed(&mut self) {
        if self.changed.changed().await.is_err() {
            // The watch is gone with its directory: nothing will be written any more.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.watch.edit(|inner| {
            let Some(wd) = inner.by_dir.get(&self.dir).cloned() else { return };
            if inner.followers.get(&wd).is_some_and(|f| f.receiver_count() <= 1) {
                inner.followers.remove(&wd);
                inner.by_dir.remove(&self.dir);
                // The directory may be gone, and the watch with it.
                let _ = inner.watches.remove(wd);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_write_wakes_every_follower_and_the_last_one_takes_the_watch_along() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let watch = LogWatch::open().expect("opens");
        let (mut one, mut two) =
            (watch.follow(dir.path()).expect("follows"), watch.follow(dir.path()).expect("follows"));
        std::fs::write(dir.path().join("log"), "x").expect("writes");
        let woken = async { tokio::join!(one.changed(), two.changed()) };
        tokio::time::timeout(Duration::from_secs(5), woken).await.expect("woken");
        drop(one);
        assert_eq!(watch.edit(|i| i.followers.len()), 1);
        drop(two);
        assert_eq!(watch.edit(|i| (i.followers.len(), i.by_dir.len())), (0, 0));
    }
}
