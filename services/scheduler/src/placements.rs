//! The gateway asks for a place and waits for the plan that decides it. Who waits is kept here; the
//! plan loop takes all of them at once, so that a burst is one plan.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json,
    extract::{State as Shared, rejection::JsonRejection},
};
use chassis::{Caller, error::Answer};
use contract::place::{PlaceRequest, Placement};
use model::{ContainerId, Error, HostId, Result};
use tokio::sync::{Notify, oneshot};

use crate::{State, api};

/// How long the gateway is kept waiting at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// Somebody who waits for a container's place.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) container: ContainerId,
    answer: oneshot::Sender<Result<HostId>>,
}

impl Waiter {
    /// Nobody may be listening any more; that is fine.
    pub(crate) fn answer(self, answer: Result<HostId>) {
        let _ = self.answer.send(answer);
    }

    /// The asker went away.
    pub(crate) fn is_gone(&self) -> bool {
        self.answer.is_closed()
    }
}

/// Everybody who waits now.
#[derive(Debug, Default)]
pub(crate) struct Placements {
    waiting: Mutex<Vec<Waiter>>,
    wake: Arc<Notify>,
}

impl Placements {
    /// Woken when there is somebody to serve.
    pub(crate) fn wake(&self) -> Arc<Notify> {
        self.wake.clone()
    }

    /// Takes everybody who waits.
    pub(crate) fn take(&self) -> Vec<Waiter> {
        mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts some back, for the next round.
    pub(crate) fn put_back(&self, waiters: Vec<Waiter>) {
        if !waiters.is_empty() {
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).extend(waiters);
            self.wake.notify_one();
        }
    }

    async fn place(&self, container: ContainerId) -> Result<HostId> {
        let (answer, answered) = oneshot::channel();
        self.put_back(vec![Waiter { container, answer }]);
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(Error::Unavailable("no plan was made in time; try again".into())),
        }
    }
}

/// Puts a container that was just written somewhere.
#[utoipa::path(
    post, path = contract::place::PLACE, tag = "placements", request_body = PlaceRequest,
    responses(
        (status = 200, description = "It has a host, and the host is told", body = Placement),
        (status = 404, description = "There is no such container"),
        (status = 503, description = "No host can take it; the text explains why"),
    )
)]
pub(crate) async fn place(
    Shared(state): Shared<State>,
    caller: Caller,
    request: std::result::Result<Json<PlaceRequest>, JsonRejection>,
) -> Answer<Json<Placement>> {
    caller.require("service:gateway")?;
    let request = api::body(request)?;
    let host = state.placements.place(request.container).await?;
    Ok(Json(Placement { host }))
}
