//! Uploads at work in this process. One request at a time writes to an upload; a later one takes over
//! from one that is still there, which is how a client resumes whose old connection did not end yet.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use model::UploadId;
use ring::digest::Context;
use tokio::sync::{OwnedMutexGuard, watch};

use crate::limits::UPLOAD_SUMS_MAX;

/// All of this process.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<UploadId, Arc<Session>>>);

struct Session {
    newest: watch::Sender<u64>,
    gate: Arc<tokio::sync::Mutex<Sum>>,
}

/// The SHA-256 of an upload's first bytes, kept between requests so that nothing is read twice.
pub(crate) struct Sum {
    pub(crate) offset: u64,
    pub(crate) context: Context,
}

impl Sum {
    /// Of nothing.
    pub(crate) fn new() -> Self {
        Self { offset: 0, context: Context::new(&ring::digest::SHA256) }
    }
}

/// The right to write to an upload, until somebody later wants it.
pub(crate) struct Turn {
    pub(crate) sum: OwnedMutexGuard<Sum>,
    mine: u64,
    newest: watch::Receiver<u64>,
}

impl Turn {
    /// Resolves when a later request wants to write.
    pub(crate) async fn superseded(&mut self) {
        let mine = self.mine;
        // The sender lives as long as the session.
        let _ = self.newest.wait_for(|newest| *newest != mine).await;
    }
}

impl Sessions {
    /// Waits for the turn to write to an upload.
    pub(crate) async fn take_over(&self, id: UploadId) -> Turn {
        let session = self.session(id);
        let mut newest = session.newest.subscribe();
        let mut mine = 0;
        session.newest.send_modify(|n| {
            *n += 1;
            mine = *n;
        });
        newest.mark_unchanged();
        let sum = session.gate.clone().lock_owned().await;
        Turn { sum, mine, newest }
    }

    /// An upload is over.
    pub(crate) fn forget(&self, id: UploadId) {
        self.sessions().remove(&id);
    }

    fn session(&self, id: UploadId) -> Arc<Session> {
        let mut sessions = self.sessions();
        if sessions.len() >= UPLOAD_SUMS_MAX && !sessions.contains_key(&id) {
            sessions.retain(|_, session| Arc::strong_count(session) > 1 || Arc::strong_count(&session.gate) > 1);
        }
        let new =
            || Arc::new(Session { newest: watch::Sender::new(0), gate: Arc::new(tokio::sync::Mutex::new(Sum::new())) });
        sessions.entry(id).or_insert_with(new).clone()
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<UploadId, Arc<Session>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_later_request_takes_over_and_two_never_write_at_once() {
        let sessions = Arc::new(Sessions::default());
        let id = UploadId(uuid::Uuid::from_u128(1));
        let mut first = sessions.take_over(id).await;
        let later = tokio::spawn({
            let sessions = sessions.clone();
            async move { sessions.take_over(id).await.mine }
        });
        first.superseded().await;
        assert!(!later.is_finished(), "the first has not let go");
        drop(first);
        assert_eq!(later.await.expect("its turn"), 2);
    }
}
