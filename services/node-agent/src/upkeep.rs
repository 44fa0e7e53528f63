//! Whether running containers still have what they stand on: the root file system, the network
//! namespace, the cgroup. An operator may take any of it away under a container, which then runs on
//! without its limits, or with a root that `cp` and `exec` do not see. Such a container is ended with
//! the reason, and its restart policy decides on; the firewall and the links are netd's to mend.
//!
//! Only what is missing at two looks in a row counts: a container that ends loses all of it, too.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use model::{ContainerId, Phase, Progress};
use runtime::cgroup;
use tokio::time::MissedTickBehavior;

use crate::{
    host::SharedHost,
    keeper::{Event, Handle, Message},
    reconcile::Fleet,
    rootfs,
};

const EVERY: Duration = Duration::from_secs(2);

/// What one run stands on.
#[derive(Clone, Debug)]
struct Ground {
    pid: u32,
    rootfs: PathBuf,
    cgroup_path: String,
    /// `None`: the runtime made it, and only the container's processes hold it.
    netns: Option<PathBuf>,
}

/// Looks for as long as the agent lives.
pub(crate) async fn watch_over(host: SharedHost, fleet: Fleet) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut suspected: BTreeMap<ContainerId, Progress> = BTreeMap::new();
    let mut cgroups = Parts::new();
    loop {
        ticks.tick().await;
        let running: Vec<_> = fleet.all().into_iter().filter_map(|keeper| ground_of(&host, keeper)).collect();
        let known = std::mem::take(&mut cgroups);
        let look = move || look(running, &known);
        let Ok((missing, parts)) = tokio::task::spawn_blocking(look).await else { continue };
        cgroups = parts;
        let before = std::mem::take(&mut suspected);
        for (keeper, of, what) in missing {
            suspected.insert(keeper.id.clone(), of);
            if before.get(&keeper.id) == Some(&of) {
                tracing::error!(container = %keeper.id, what, "taken away under a running container: it is ended");
                keeper.tell(Message::OfRun(of, Event::Undermined(what.to_owned())));
            }
        }
    }
}

type Missing = Vec<(Handle, Progress, &'static str)>;
type Parts = BTreeMap<ContainerId, (Progress, usize)>;

/// What is missing of whom, and of how many parts each one's cgroup was when it was whole.
fn look(running: Vec<(Handle, Progress, Ground)>, known: &Parts) -> (Missing, Parts) {
    let (mut missing, mut parts) = (Missing::new(), Parts::new());
    for (keeper, of, ground) in running {
        let now = cgroup::parts(&ground.cgroup_path);
        let whole = known.get(&keeper.id).filter(|(then, _)| *then == of).map_or(now, |(_, count)| now.max(*count));
        parts.insert(keeper.id.clone(), (of, whole));
        if let Some(what) = ground.missing(now == 0 || now < whole) {
            missing.push((keeper, of, what));
        }
    }
    (missing, parts)
}

fn ground_of(host: &SharedHost, keeper: Handle) -> Option<(Handle, Progress, Ground)> {
    let observed = keeper.observed();
    let (of, pid) = {
        let observed = observed.borrow();
        (observed.progress, observed.pid.filter(|_| observed.progress.phase == Phase::Running)?)
    };
    let ground = Ground {
        pid,
        rootfs: host.places.rootfs(&keeper.id),
        cgroup_path: host.cgroup_path(&keeper.id),
        netns: host.net.namespace_of(&keeper.id),
    };
    Some((keeper, of, ground))
}

impl Ground {
    /// What is missing; nothing of a process that is gone.
    fn missing(&self, cgroup_gone: bool) -> Option<&'static str> {
        // A zombie has no namespaces any more.
        let own = fs::metadata(format!("/proc/{}/ns/net", self.pid)).ok()?;
        if matches!(rootfs::is_mounted(&self.rootfs), Ok(false)) {
            return Some("its root file system was unmounted by somebody else");
        }
        let same = |path: &Path| fs::metadata(path).is_ok_and(|m| (m.dev(), m.ino()) == (own.dev(), own.ino()));
        if self.netns.as_deref().is_some_and(|path| !same(path)) {
            return Some("its network namespace was removed by somebody else");
        }
        cgroup_gone.then_some("its cgroup was removed by somebody else")
    }
}
