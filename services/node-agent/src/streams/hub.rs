//! Where attach streams wait for a run that has not begun. A start takes all of them to its shim
//! before it starts anything, so each hears the run's first byte.

use std::sync::{Mutex, PoisonError};

use model::{Error, Progress, Result};
use runtime::{
    RunDir,
    protocol::{Reply, Request},
};
use tokio::sync::oneshot;

use crate::shims::{self, Shim};

/// Streams that may wait for one container.
const MAX_WAITING: usize = 64;

/// The waiting room of one container.
#[derive(Debug, Default)]
pub(crate) struct Hub(Mutex<Room>);

#[derive(Debug, Default)]
struct Room {
    /// The run whose shim takes streams now.
    live: Option<Progress>,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    request: Request,
    connected: oneshot::Sender<Shim>,
}

/// An attach that was accepted.
#[derive(Debug)]
pub(crate) enum Attached {
    Now(Shim),
    /// When the next run begins; never, if it cannot.
    Later(oneshot::Receiver<Shim>),
}

impl Hub {
    /// Attaches to the run that lives, or queues for the next.
    pub(crate) async fn attach(&self, run_dir: &RunDir, request: Request) -> Result<Attached> {
        let later = self.edit(|room| {
            if room.live.is_some() {
                return Ok(None);
            }
            room.waiting.retain(|w| !w.connected.is_closed());
            if room.waiting.len() >= MAX_WAITING {
                return Err(Error::LimitExceeded(format!("{MAX_WAITING} streams already wait for the container")));
            }
            let (connected, later) = oneshot::channel();
            room.waiting.push(Waiting { request: request.clone(), connected });
            Ok(Some(later))
        })?;
        match later {
            Some(later) => Ok(Attached::Later(later)),
            None => connect(run_dir, &request).await.map(Attached::Now),
        }
    }

    /// A shim is ready: everyone who waited is connected to it, and whoever comes now goes straight there.
    pub(crate) async fn connect_waiting(&self, run_dir: &RunDir, of: Progress) {
        let waiting = self.edit(|room| {
            room.live = Some(of);
            std::mem::take(&mut room.waiting)
        });
        for waiting in waiting.into_iter().filter(|w| !w.connected.is_closed()) {
            match connect(run_dir, &waiting.request).await {
                // If it has left meanwhile, so be it.
                Ok(shim) => drop(waiting.connected.send(shim)),
                Err(error) => tracing::warn!(%error, "a waiting stream could not be attached"),
            }
        }
    }

    /// No shim takes streams any more. With `just_now`, those who waited for that run are let go.
    pub(crate) fn run_ended(&self, just_now: bool) {
        self.edit(|room| {
            room.live = None;
            if just_now {
                room.waiting.clear();
            }
        });
    }

    fn edit<T>(&self, change: impl FnOnce(&mut Room) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn connect(run_dir: &RunDir, request: &Request) -> Result<Shim> {
    let mut shim = shims::connect(run_dir)?;
    match shim.ask(request).await.map_err(shims::broken)? {
        Reply::Done => Ok(shim),
        Reply::Failed { failure, message, .. } => Err(shims::refused(failure, message)),
        other @ (Reply::Started { .. } | Reply::State(_) | Reply::ExecStarted { .. } | Reply::ExecState(_)) => {
            Err(Error::Internal(format!("the shim answered an attach with {other:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request::Attach { stdin: false, stdout: true, stderr: true }
    }

    #[tokio::test]
    async fn a_stream_waits_for_the_next_run_and_is_let_go_when_that_fails() {
        let hub = Hub::default();
        let nowhere = RunDir::new("/nonexistent");
        let Ok(Attached::Later(later)) = hub.attach(&nowhere, request()).await else { panic!("waits") };
        hub.run_ended(false);
        assert!(!matches!(hub.attach(&nowhere, request()).await, Ok(Attached::Now(_))));
        hub.run_ended(true);
        assert!(later.await.is_err());
    }

    #[tokio::test]
    async fn a_waiting_room_has_a_size() {
        let hub = Hub::default();
        let nowhere = RunDir::new("/nonexistent");
        let mut held = Vec::new();
        for _ in 0..MAX_WAITING {
            held.push(hub.attach(&nowhere, request()).await.expect("room"));
        }
        assert!(matches!(hub.attach(&nowhere, request()).await, Err(Error::LimitExceeded(_))));
        held.pop();
        assert!(hub.attach(&nowhere, request()).await.is_ok(), "who left makes room");
    }
}
