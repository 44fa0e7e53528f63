//! How many may work with files of containers at once: a bound for the host and one for each project,
//! so that no tenant takes all of it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use model::{Error, ProjectId, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const PER_HOST: usize = 128;
const PER_PROJECT: usize = 16;
/// How long one waits for a slot.
const PATIENCE: Duration = Duration::from_secs(20);

/// The slots of a host.
#[derive(Clone, Debug)]
pub(crate) struct Slots(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    host: Arc<Semaphore>,
    projects: Mutex<HashMap<ProjectId, Arc<Semaphore>>>,
    patience: Duration,
}

/// A slot that is taken.
#[derive(Debug)]
pub(crate) struct Slot {
    _project: OwnedSemaphorePermit,
    _host: OwnedSemaphorePermit,
}

impl Default for Slots {
    fn default() -> Self {
        Self::with_patience(PATIENCE)
    }
}

impl Slots {
    fn with_patience(patience: Duration) -> Self {
        let host = Arc::new(Semaphore::new(PER_HOST));
        Self(Arc::new(Inner { host, projects: Mutex::default(), patience }))
    }

    /// Takes a slot.
    ///
    /// # Errors
    /// `LimitExceeded` if none came free in time.
    pub(crate) async fn take(&self, project: ProjectId) -> Result<Slot> {
        let own = {
            let mut projects = self.0.projects.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody is in a semaphore that only the map knows.
            projects.retain(|_, slots| Arc::strong_count(slots) > 1);
            projects.entry(project).or_insert_with(|| Arc::new(Semaphore::new(PER_PROJECT))).clone()
        };
        let both = async {
            let project = own.acquire_owned().await;
            let host = self.0.host.clone().acquire_owned().await;
            Some(Slot { _project: project.ok()?, _host: host.ok()? })
        };
        let busy = || Error::LimitExceeded("too much copying to and from containers at once; try again".into());
        tokio::time::timeout(self.0.patience, both).await.ok().flatten().ok_or_else(busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_project_that_takes_all_its_slots_leaves_the_others_theirs() {
        let slots = Slots::with_patience(Duration::from_millis(20));
        let project = |n| ProjectId(uuid::Uuid::from_u128(n));
        let mut taken = Vec::new();
        for _ in 0..PER_PROJECT {
            taken.push(slots.take(project(1)).await.expect("a slot"));
        }
        assert!(matches!(slots.take(project(1)).await, Err(Error::LimitExceeded(_))));
        slots.take(project(2)).await.expect("another project's slot");
        taken.pop();
        slots.take(project(1)).await.expect("one came free");
    }
}
