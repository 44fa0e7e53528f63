//! The one driver of every loop: wait for a wake-up or the resync time, reconcile, publish the
//! status. A wake-up carries no data and any number of them make one round, so the work of a round
//! depends on the state of things and never on how often something changed.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::bus::Wakeups;

/// Something that can make the world more like what is wanted. It cannot fail: what went wrong is
/// part of the status, and the next round tries again.
pub trait Reconciler: Send + 'static {
    /// What a round found out.
    type Status: Send + Sync + 'static;

    /// One round: observe, decide, apply.
    fn reconcile(&mut self) -> impl Future<Output = Self::Status> + Send;
}

/// Something that says when to look again, at the latest after `max_wait`.
pub trait Wake: Send + 'static {
    /// Returns on a wake-up or after `max_wait`. A wake-up between two calls is not lost.
    fn woken(&mut self, max_wait: Duration) -> impl Future<Output = ()> + Send;
}

impl Wake for Wakeups {
    fn woken(&mut self, max_wait: Duration) -> impl Future<Output = ()> + Send {
        Self::woken(self, max_wait)
    }
}

impl Wake for Arc<Notify> {
    async fn woken(&mut self, max_wait: Duration) {
        // Either way it is time to look.
        let _ = tokio::time::timeout(max_wait, self.notified()).await;
    }
}

/// Wakes on either of two.
impl<A: Wake, B: Wake> Wake for (A, B) {
    async fn woken(&mut self, max_wait: Duration) {
        tokio::select! {
            () = self.0.woken(max_wait) => {}
            () = self.1.woken(max_wait) => {}
        }
    }
}

/// A driver to spawn, and where its latest status is seen (`None` before the first round). It
/// reconciles at once, then on each wake-up and at least every `resync`, until `cancel`. A round in
/// progress is finished first.
pub fn run<R: Reconciler, W: Wake>(
    mut reconciler: R,
    mut wake: W,
    resync: Duration,
    cancel: CancellationToken,
) -> (watch::Receiver<Option<R::Status>>, impl Future<Output = ()> + Send + 'static) {
    let (publish, status) = watch::channel(None);
    let driver = async move {
        while !cancel.is_cancelled() {
            publish.send_replace(Some(reconciler.reconcile().await));
            tokio::select! {
                () = cancel.cancelled() => {}
                () = wake.woken(resync) => {}
            }
        }
    };
    (status, driver)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Count(u32);

    impl Reconciler for Count {
        type Status = u32;
        async fn reconcile(&mut self) -> u32 {
            self.0 += 1;
            self.0
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_reconciles_at_once_then_on_a_wake_then_on_resync_then_stops() {
        let (notify, cancel) = (Arc::new(Notify::new()), CancellationToken::new());
        let (mut status, driver) = run(Count(0), notify.clone(), Duration::from_secs(60), cancel.clone());
        let driver = tokio::spawn(driver);
        status.wait_for(Option::is_some).await.expect("first round");
        let start = tokio::time::Instant::now();
        for _ in 0..100 {
            notify.notify_one();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        // One for the wake-up that was waited for, one for all that came meanwhile.
        assert_eq!(*status.borrow(), Some(3), "a hundred wakes do not make a hundred rounds");
        status.wait_for(|s| *s > Some(3)).await.expect("resync");
        assert!(start.elapsed() >= Duration::from_secs(60));
        cancel.cancel();
        driver.await.expect("ends");
    }
}
