//! Pause: the processes of a container stand still in the kernel, and its keeper knows. One at a time
//! per container freezes or thaws; what the kernel says is told before the next may change it.

use std::time::Duration;

use model::{ContainerId, Error, Observed, Phase, Result};
use runtime::cgroup;

use crate::{
    host::{Host, SharedHost},
    keeper::{Event, Handle, Message},
};

/// How long a keeper may take to note what the kernel has done already.
const NOTED_WITHIN: Duration = Duration::from_secs(10);

/// Freezes or thaws a container that runs, and returns when its keeper has taken note.
///
/// # Errors
/// It does not run, is so already, or the kernel does not do it.
pub(crate) async fn set(host: &SharedHost, keeper: &Handle, frozen: bool) -> Result<()> {
    let id = &keeper.id;
    let _turn = keeper.cgroup.lock().await;
    let mut observed = keeper.observed();
    let before = observed.borrow_and_update().clone();
    match (before.progress.phase == Phase::Running, before.paused, frozen) {
        (false, _, true) => return Err(Error::Conflict(format!("container {id} is not running"))),
        (true, true, true) => return Err(Error::Conflict(format!("Container {id} is already paused"))),
        (false, _, false) | (true, false, false) => {
            return Err(Error::Failed(format!("Container {id} is not paused")));
        }
        (true, false, true) | (true, true, false) => {}
    }
    let done = if frozen { freeze(host, id).await } else { thaw(host, id).await };
    let verb = if frozen { "cannot pause" } else { "Cannot unpause" };
    done.map_err(|e| Error::Failed(format!("{verb} container {id}: {e}")))?;
    keeper.tell(Message::OfRun(before.progress, Event::Frozen(frozen)));
    let noted = |o: &Observed| o.paused == frozen || o.progress != before.progress;
    let seen = tokio::time::timeout(NOTED_WITHIN, observed.wait_for(noted)).await;
    let now = seen.map_err(Error::internal)?.map_err(Error::internal)?.progress;
    if now != before.progress {
        // It ended meanwhile, and what was frozen may be its next attempt.
        thaw(host, id).await.map_err(Error::internal)?;
        return Err(Error::Conflict(format!("container {id} is not running")));
    }
    Ok(())
}

async fn freeze(host: &Host, id: &ContainerId) -> std::io::Result<()> {
    let cgroup_path = host.cgroup_path(id);
    tokio::task::spawn_blocking(move || cgroup::freeze(&cgroup_path)).await?
}

/// Lets it run on, whatever is known of it.
pub(crate) async fn thaw(host: &Host, id: &ContainerId) -> std::io::Result<()> {
    let cgroup_path = host.cgroup_path(id);
    tokio::task::spawn_blocking(move || cgroup::thaw(&cgroup_path)).await?
}
