//! Getting at a container's file system, whatever state it is in: a running one through its first
//! process, any other through its root file system, mounted for the time. Work is done on a thread of
//! its own, with a slot taken; the mount is given back when the last of it ends.

use std::{io, os::fd::OwnedFd, path::PathBuf, sync::Arc, time::Duration};

use chassis::axum::body::Body;
use contract::host::{PROJECT_IDS, PlannedContainer};
use model::{Error, Phase, Result};
use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags, fstat, fstatvfs, openat};
use tokio::sync::oneshot;

use super::{
    at_rest,
    owners::Owners,
    pipe::{self, ChunkReader, ChunkWriter, Chunks},
    root::Root,
    slots::Slot,
};
use crate::{
    host::SharedHost,
    keeper::{Handle, with_rootfs},
    layers::Layer,
    rootfs::Visit,
    tenancy::Project,
};

/// How long a first preparation is waited for: image's files may have to be copied into volumes.
const PREPARED_WITHIN: Duration = Duration::from_secs(60);

/// A container's file system, open.
pub(crate) struct Tree {
    /// As the container sees it, or would if it ran.
    pub(super) root: Root,
    pub(super) plan: PlannedContainer,
    layers: Vec<Layer>,
    dir: PathBuf,
    /// How owners appear in the mounted root file system.
    owners: Owners,
    visit: Arc<Visit>,
}

/// The same with the right to work on it.
pub(crate) struct Opened {
    tree: Tree,
    slot: Slot,
}

/// Opens it.
///
/// # Errors
/// The image cannot be had, the mount fails, or too many are at it.
pub(crate) async fn open(host: &SharedHost, keeper: &Handle) -> Result<Opened> {
    let gone = || Error::NotFound(format!("No such container: {}", keeper.id));
    let plan = keeper.plan().ok_or_else(gone)?;
    let slot = host.slots.take(plan.project).await?;
    let layers = match host.images.find(&plan.image) {
        Some(layers) => layers,
        None => host.images.ensure(&plan.image).await.map_err(Error::Failed)?,
    };
    prepared(keeper, &plan).await?;
    let pid = {
        let observed = keeper.observed();
        let observed = observed.borrow();
        observed.pid.filter(|_| observed.progress.phase == Phase::Running)
    };
    let (host, keeper) = (host.clone(), keeper.clone());
    on_a_thread(move || {
        let dir = host.places.container(&keeper.id);
        let visit = with_rootfs(&host, &plan, &layers, |rootfs| keeper.hold.visit(rootfs, &host.trash));
        let visit = Arc::new(visit.map_err(|e| mount_failed(&keeper, &e))?);
        let project = host.tenancy.project_of(&plan).map_err(Error::internal)?;
        let owners = project.as_ref().map_or(Owners::IDENTITY, |p| Owners::shifted(p.root_id(), PROJECT_IDS));
        let running = pid.and_then(|pid| Root::of_process(pid, &host.cgroup_path(&keeper.id), visit.clone()).ok());
        let root = match running {
            Some(root) => root,
            None => resting(&host, &plan, project.as_deref(), owners.clone(), &visit)
                .map_err(|error| Error::Failed(error.to_string()))?,
        };
        Ok(Opened { tree: Tree { root, plan, layers, dir, owners, visit }, slot })
    })
    .await
}

fn mount_failed(keeper: &Handle, error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound {
        return Error::NotFound(format!("No such container: {}", keeper.id));
    }
    Error::internal(error)
}

/// The file system of a container that does not run, with its volumes.
fn resting(
    host: &SharedHost,
    plan: &PlannedContainer,
    project: Option<&Project>,
    owners: Owners,
    visit: &Arc<Visit>,
) -> io::Result<Root> {
    if plan.spec.volumes.is_empty() {
        return Root::mounted(visit.rootfs(), owners, Some(visit.clone()));
    }
    let look = host.volumes.look(plan, project)?;
    at_rest::open(owners, visit.clone(), look, project.map_or(0, Project::root_id))
}

/// Before the first preparation is over, volumes lack what the image has for them.
async fn prepared(keeper: &Handle, plan: &PlannedContainer) -> Result<()> {
    if plan.spec.volumes.is_empty() {
        return Ok(());
    }
    let mut observed = keeper.observed();
    let done = observed.wait_for(|seen| seen.progress.phase >= Phase::Created || seen.prepare_error.is_some());
    match tokio::time::timeout(PREPARED_WITHIN, done).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(Error::NotFound(format!("No such container: {}", keeper.id))),
        Err(_) => Err(Error::Unavailable("the container is still being prepared; try again".into())),
    }
}

impl Tree {
    /// The root file system alone, without what a run mounts into it.
    pub(super) fn bare(&self) -> Result<Root> {
        Root::mounted(self.visit.rootfs(), self.owners.clone(), Some(self.visit.clone())).map_err(Error::internal)
    }

    /// Where it is mounted.
    pub(super) fn rootfs(&self) -> &std::path::Path {
        self.visit.rootfs()
    }

    /// The writable layer's directory. Owners are the container's own there.
    pub(super) fn upper(&self) -> Result<OwnedFd> {
        pinned(&self.dir.join("upper")).map_err(Error::internal)
    }

    /// The roots of the image's layers, topmost first.
    pub(super) fn lower(&self) -> io::Result<Vec<OwnedFd>> {
        self.layers.iter().rev().map(Layer::open).collect()
    }

    /// Why nothing may be written to a directory, if so.
    pub(super) fn write_protection(&self, dir: &OwnedFd) -> io::Result<Option<&'static str>> {
        let on_rootfs = fstat(dir)?.st_dev == self.root.top()?.stat.st_dev;
        if on_rootfs && self.plan.spec.security.readonly_rootfs {
            return Ok(Some("container rootfs is marked read-only"));
        }
        let read_only = fstatvfs(dir)?.f_flag.contains(StatVfsMountFlags::RDONLY);
        Ok(read_only.then_some("mounted volume is marked read-only"))
    }
}

fn pinned(dir: &PathBuf) -> io::Result<OwnedFd> {
    Ok(openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

impl Opened {
    /// Does something and gives its result.
    pub(super) async fn work<T: Send + 'static>(
        self,
        work: impl FnOnce(&Tree) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        on_a_thread(move || {
            let Self { tree, slot: _slot } = self;
            work(&tree)
        })
        .await
    }

    /// Begins, answers with a head, and goes on with the body.
    pub(super) async fn stream<H: Send + 'static, S>(
        self,
        begin: impl FnOnce(&Tree) -> Result<(H, S)> + Send + 'static,
        pack: impl FnOnce(&Tree, S, ChunkWriter) -> io::Result<()> + Send + 'static,
    ) -> Result<(H, Chunks)> {
        let (writer, chunks) = pipe::outgoing();
        let (answer, head) = oneshot::channel();
        spawn(move || {
            let Self { tree, slot: _slot } = self;
            let state = match begin(&tree) {
                Ok((head, state)) => {
                    let _ = answer.send(Ok(head));
                    state
                }
                Err(error) => {
                    let _ = answer.send(Err(error));
                    return;
                }
            };
            let breaker = writer.breaker();
            if let Err(error) = pack(&tree, state, writer) {
                tracing::info!(container = %tree.plan.id, %error, "an archive broke off");
                // The client must not take what it has for the whole.
                let _ = breaker.blocking_send(Err(error));
            }
        })?;
        let head = head.await.map_err(|_| Error::internal("packing ended without a word"))??;
        Ok((head, chunks))
    }

    /// Works on a request's body.
    pub(super) async fn consume(
        self,
        body: Body,
        work: impl FnOnce(&Tree, ChunkReader) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let (reader, feed) = pipe::incoming(body);
        let working = self.work(move |tree| work(tree, reader));
        let (outcome, ()) = tokio::join!(working, feed);
        outcome
    }
}

async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (answer, outcome) = oneshot::channel();
    spawn(move || {
        let _ = answer.send(work());
    })?;
    outcome.await.map_err(|_| Error::internal("a thread ended without a word"))?
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new().name("tree".to_owned()).spawn(work).map(drop).map_err(Error::internal)
}
