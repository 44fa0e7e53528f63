//! What is open of one run: answers that go on, and connections that were taken over. All of it ends
//! with the run; and since nobody asks again for what is open already, the agent does, as long as
//! anything is: when the gateway does not admit the run any more, it is cut.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chassis::{CancellationToken, axum::http::StatusCode};

/// How long a stream may outlive the right to it.
pub(super) const EVERY: Duration = Duration::from_secs(10);

/// See the module's text.
#[derive(Clone)]
pub(super) struct Streams(Arc<Inner>);

struct Inner {
    run: CancellationToken,
    /// Of all that is open now; who holds a copy of the second is open.
    now: Mutex<(CancellationToken, Arc<()>)>,
}

/// One that is open, until it is dropped.
pub(super) struct Open {
    pub(super) cut: CancellationToken,
    _held: Arc<()>,
}

impl Streams {
    /// Of a run that `run` ends.
    pub(super) fn new(run: CancellationToken) -> Self {
        let now = Mutex::new((run.child_token(), Arc::new(())));
        Self(Arc::new(Inner { run, now }))
    }

    /// One more.
    pub(super) fn open(&self) -> Open {
        let (cut, held) = self.0.now.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Open { cut, _held: held }
    }

    fn any(&self) -> bool {
        Arc::strong_count(&self.0.now.lock().unwrap_or_else(PoisonError::into_inner).1) > 1
    }

    /// Ends what is open; what comes later is not concerned.
    fn cut(&self) {
        let fresh = (self.0.run.child_token(), Arc::new(()));
        let (before, _) = std::mem::replace(&mut *self.0.now.lock().unwrap_or_else(PoisonError::into_inner), fresh);
        before.cancel();
    }

    /// Asks whether the run is still admitted, every so often while anything is open, until it is over.
    /// A gateway that does not answer says nothing.
    pub(super) async fn watch(self, every: Duration, admitted: impl AsyncFn() -> Option<StatusCode>) {
        let run = self.0.run.clone();
        let asking = async {
            loop {
                tokio::time::sleep(every).await;
                if self.any() && matches!(admitted().await, Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)) {
                    self.cut();
                }
            }
        };
        run.run_until_cancelled(asking).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_open_is_cut_once_the_run_is_not_admitted_and_nobody_is_asked_without_need() {
        const EVERY: Duration = Duration::from_millis(20);
        let run = CancellationToken::new();
        let streams = Streams::new(run.clone());
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = asked.clone();
        let answers = [Some(StatusCode::OK), None, Some(StatusCode::FORBIDDEN)];
        let watching = tokio::spawn(streams.clone().watch(EVERY, async move || {
            let turn = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            answers.get(turn).copied().flatten()
        }));
        tokio::time::sleep(EVERY * 5).await;
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 0, "nothing was open");
        let open = streams.open();
        tokio::time::timeout(Duration::from_secs(20), open.cut.cancelled()).await.expect("cut");
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 3, "two answers were no refusal");
        let later = streams.open();
        assert!(!later.cut.is_cancelled());
        run.cancel();
        assert!(later.cut.is_cancelled(), "with the run everything ends");
        watching.await.expect("it ends");
    }
}
