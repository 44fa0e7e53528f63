//! Downloads under way, each once: pulls that want the same blob from the same place with the same
//! rights share one. It ends when the last of them loses interest.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use model::{Digest, Error};
use tokio::{sync::watch, task::AbortHandle};

/// How far a download is.
#[derive(Clone, Debug)]
pub(super) enum Transfer {
    Waiting,
    Received(u64),
    Verifying,
    Done,
    Failed(Error),
}

/// Upstream, repository, fingerprint of the credentials; and the blob.
pub(super) type FlightKey = ((String, String, Option<[u8; 32]>), Digest);

/// All of this process.
#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<FlightKey, Weak<Flight>>>);

/// Interest in one download.
pub(super) struct Flight {
    transfer: watch::Receiver<Transfer>,
    task: AbortHandle,
}

impl Flight {
    pub(super) fn watch(&self) -> watch::Receiver<Transfer> {
        self.transfer.clone()
    }

    fn is_over(&self) -> bool {
        matches!(*self.transfer.borrow(), Transfer::Done | Transfer::Failed(_)) || self.transfer.has_changed().is_err()
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Flights {
    /// Joins the download under `key`, or starts it.
    pub(super) fn join<F, Fut>(&self, key: FlightKey, start: F) -> Arc<Flight>
    where
        F: FnOnce(watch::Sender<Transfer>) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let mut flights = self.flights();
        if let Some(flight) = flights.get(&key).and_then(Weak::upgrade)
            && !flight.is_over()
        {
            return flight;
        }
        flights.retain(|_, flight| flight.strong_count() > 0);
        let (sender, transfer) = watch::channel(Transfer::Waiting);
        let task = tokio::spawn(start(sender)).abort_handle();
        let flight = Arc::new(Flight { transfer, task });
        flights.insert(key, Arc::downgrade(&flight));
        flight
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<FlightKey, Weak<Flight>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob_store::digest_of;

    fn key(text: &str) -> FlightKey {
        (("http://r".into(), "a".into(), None), digest_of(text.as_bytes()))
    }

    #[tokio::test]
    async fn the_same_download_is_joined_and_another_is_not() {
        let flights = Flights::default();
        let wait = |sender: watch::Sender<Transfer>| async move {
            sender.closed().await;
        };
        let first = flights.join(key("a"), wait);
        assert!(Arc::ptr_eq(&first, &flights.join(key("a"), wait)));
        assert!(!Arc::ptr_eq(&first, &flights.join(key("b"), wait)));
    }

    #[tokio::test]
    async fn a_download_that_is_over_is_begun_anew_and_one_nobody_wants_stops() {
        let flights = Flights::default();
        let first = flights.join(key("a"), |sender| async move {
            sender.send_replace(Transfer::Failed(Error::Unavailable("no".into())));
        });
        let mut watch = first.watch();
        while !matches!(*watch.borrow_and_update(), Transfer::Failed(_)) {
            watch.changed().await.expect("it fails first");
        }
        let second = flights.join(key("a"), |sender| async move { sender.closed().await });
        assert!(!Arc::ptr_eq(&first, &second), "a failure must not be handed to later pulls");
        let mut watch = second.watch();
        drop(second);
        assert!(watch.changed().await.is_err(), "its task must be gone");
    }
}
