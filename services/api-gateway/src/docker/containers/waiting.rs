//! Waiting for what a host does with a container: subscribe, read Postgres, decide, sleep until the
//! next wake-up. Nothing is remembered between reads, so any part may restart meanwhile.

use std::time::Duration;

use chassis::bus::Wakeups;
use contract::{host::HOST_LATE_AFTER_MS, wake::Topic};
use model::{ContainerId, Error, Result};
use store::{ContainerProgress, ProjectScope};
use tokio::time::Instant;

use crate::Gateway;

/// How long a wait goes without a wake-up before it looks by itself.
const SWEEP: Duration = Duration::from_secs(2);

/// Someone who waits for one container.
#[derive(Debug)]
pub(crate) struct Watch {
    gateway: Gateway,
    scope: ProjectScope,
    id: ContainerId,
    wakeups: Wakeups,
}

impl Watch {
    /// Registers; whatever happens after this call is seen.
    pub(crate) fn new(gateway: &Gateway, scope: ProjectScope, id: &ContainerId) -> Self {
        let wakeups = gateway.bus.subscribe(&Topic::Container(id.clone()));
        Self { gateway: gateway.clone(), scope, id: id.clone(), wakeups }
    }

    /// How far it is now; `None` once its row is gone too. Two round trips.
    pub(crate) async fn now(&self) -> Result<Option<ContainerProgress>> {
        self.gateway.store.project_tx(&self.scope).await?.container_progress(&self.id).await
    }

    /// Looks again and again until `decide` has an answer; it is told whether the container's host has
    /// not been heard of for too long. Postgres being away is waited out.
    pub(crate) async fn until<T>(
        &mut self,
        patience: Option<Duration>,
        mut decide: impl FnMut(Option<&ContainerProgress>, bool) -> Option<T>,
    ) -> Result<T> {
        let deadline = patience.map(|patience| Instant::now() + patience);
        loop {
            match self.now().await {
                Ok(progress) => {
                    let host_is_away = progress.as_ref().is_some_and(|progress| self.host_is_away(progress));
                    if let Some(answer) = decide(progress.as_ref(), host_is_away) {
                        return Ok(answer);
                    }
                }
                Err(Error::Unavailable(_)) => {}
                Err(other) => return Err(other),
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(Error::Unavailable(
                    "the host of this container takes too long; it goes on in the background".into(),
                ));
            }
            self.wakeups.woken(SWEEP).await;
        }
    }

    fn host_is_away(&self, progress: &ContainerProgress) -> bool {
        let late = time::Duration::milliseconds(i64::try_from(HOST_LATE_AFTER_MS).unwrap_or(i64::MAX));
        progress.host_seen_at.is_some_and(|seen| self.gateway.clock.now() - seen > late)
    }
}
