//! The end of volumes. One that is wanted gone is deleted once no container of this host has it any
//! more, and then told; one that no plan knows is deleted without a word. Nothing about it is kept on
//! disk: the scheduler asks again after every reconnect until it has been told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chassis::backoff::Backoff;
use contract::host::PlannedVolume;
use model::{ProjectId, VolumeId};

use super::Volumes;
use crate::report::Reports;

/// Removals under way.
#[derive(Clone)]
pub(crate) struct Removals {
    volumes: Volumes,
    reports: Reports,
    under_way: Arc<Mutex<BTreeSet<VolumeId>>>,
}

impl Removals {
    pub(crate) fn new(volumes: Volumes, reports: Reports) -> Self {
        Self { volumes, reports, under_way: Arc::default() }
    }

    /// Takes the volumes of a line of the plan: begins to remove those that shall go and, when the
    /// plan is whole, those that are not in it. `in_use` says whether a container here has one.
    pub(crate) fn begin(
        &self,
        planned: &[PlannedVolume],
        full: bool,
        in_use: impl Fn(&VolumeId) -> bool + Clone + Send + 'static,
    ) {
        let mut going: BTreeMap<VolumeId, (ProjectId, bool)> =
            planned.iter().filter(|v| v.removed).map(|v| (v.id.clone(), (v.project, true))).collect();
        if full {
            let known: BTreeSet<&VolumeId> = planned.iter().map(|v| &v.id).collect();
            // A container's plan may be newer than the list: its volume is no orphan.
            let orphans = self.volumes.on_disk().into_iter().filter(|(_, id)| !known.contains(id) && !in_use(id));
            going.extend(orphans.map(|(project, id)| (id, (project, false))));
        }
        for (id, (project, asked)) in going {
            if self.under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone()) {
                tokio::spawn(self.clone().remove(project, id, asked, in_use.clone()));
            }
        }
    }

    async fn remove(self, project: ProjectId, id: VolumeId, asked: bool, in_use: impl Fn(&VolumeId) -> bool) {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(2));
        while in_use(&id) {
            backoff.wait().await;
        }
        backoff.reset();
        loop {
            let (volumes, volume) = (self.volumes.clone(), id.clone());
            let outcome = tokio::task::spawn_blocking(move || volumes.remove(project, &volume)).await;
            match outcome {
                Ok(Ok(())) => break,
                Ok(Err(error)) => tracing::error!(volume = %id, %error, "cannot be deleted"),
                Err(error) => tracing::error!(volume = %id, %error, "cannot be deleted"),
            }
            backoff.wait().await;
        }
        tracing::info!(volume = %id, asked, "deleted");
        if asked {
            self.reports.volume_removed(&id);
        }
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}
