//! Volumes on this host: `<data_dir>/volumes/<project>/<id>/`. One comes into being with the first
//! container that has it, and is mounted as long as somebody holds it. Who holds what is kept in
//! memory only: a restarted agent takes it from the containers that live, and unmounts the rest.
//!
//! A volume's content is the tenant's and may change at any time: it is only ever opened by
//! descriptor, beneath the volume's own root.

mod backing;
mod copy_up;
mod removal;
mod stage;
mod usage;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use backing::Home;
use contract::host::PlannedContainer;
use model::{ContainerId, ProjectId, VolumeBacking, VolumeId, VolumeMount};
use runtime::BindMount;

pub(crate) use removal::Removals;

use crate::{discard::Trash, host::Places, rootfs, tenancy::Project};

/// Every volume of this host. Its functions block: they wait for the disk, and for each other where
/// they are about the same volume.
#[derive(Clone, Debug)]
pub(crate) struct Volumes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    places: Places,
    trash: Trash,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    volumes: BTreeMap<VolumeId, Arc<Mutex<Volume>>>,
    looks: u64,
}

/// One volume. Whoever has its lock is the only one who does anything to it.
#[derive(Debug)]
struct Volume {
    home: Home,
    holders: BTreeSet<Holder>,
    /// It went. What a late preparation asks of it is refused.
    removed: bool,
}

/// Why a volume stays mounted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    /// A container has it.
    Container(ContainerId),
    /// Somebody looks at a container that does not run.
    Look(u64),
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Volumes {
    pub(crate) fn new(places: Places, trash: Trash) -> Self {
        Self(Arc::new(Inner { places, trash, book: Mutex::default() }))
    }

    /// Makes what a container needs before its first start. `first`: it was never prepared, so what
    /// the image has at a volume's path is copied into the volume, if that is empty.
    ///
    /// # Errors
    /// In words the tenant may see.
    pub(crate) fn prepare(
        &self,
        plan: &PlannedContainer,
        project: Option<&Project>,
        rootfs: &Path,
        first: bool,
    ) -> io::Result<()> {
        let root_id = project.map_or(0, Project::root_id);
        for mount in plan.spec.volumes.iter().filter(|mount| !matches!(mount.backing, VolumeBacking::Tmpfs(_))) {
            let volume = self.volume(plan.project, &mount.volume);
            let mut volume = locked(&volume);
            volume.hold(Holder::Container(plan.id.clone()), &mount.backing).map_err(|e| named(mount, &e))?;
            if first && !mount.no_copy {
                volume.home.fill(&plan.id, mount, rootfs, root_id).map_err(|e| named(mount, &e))?;
            }
        }
        Ok(())
    }

    /// Mounts a container's volumes where no tenant can change the path, for the runtime to bind.
    /// Safe twice: what an earlier start left there is replaced.
    ///
    /// # Errors
    /// In words the tenant may see.
    pub(crate) fn stage(&self, plan: &PlannedContainer, project: Option<&Project>) -> io::Result<Vec<BindMount>> {
        let dir = self.0.places.staging(&plan.id);
        let holder = Holder::Container(plan.id.clone());
        let staged = |(n, mount): (usize, &VolumeMount)| {
            let tree = self.detached(plan.project, project, mount, holder.clone())?;
            let at = dir.join(n.to_string());
            stage::put(&tree, &at, mount.read_only)?;
            Ok(BindMount { source: at, path: mount.path.clone(), read_only: mount.read_only })
        };
        plan.spec
            .volumes
            .iter()
            .enumerate()
            .map(|(n, mount)| staged((n, mount)).map_err(|e: io::Error| named(mount, &e)))
            .collect()
    }

    /// Takes away what [`Volumes::stage`] made, and what nobody holds any more. Safe without it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn release(&self, container: &ContainerId) -> io::Result<()> {
        stage::clear(&self.0.places.staging(container))?;
        self.let_go(&Holder::Container(container.clone()))
    }

    /// A container's volumes to look into while it does not run: held until the answer is dropped, and
    /// mounted nowhere yet.
    ///
    /// # Errors
    /// In words the tenant may see.
    pub(crate) fn look(&self, plan: &PlannedContainer, project: Option<&Project>) -> io::Result<Look> {
        let number = {
            let mut book = locked(&self.0.book);
            book.looks += 1;
            book.looks
        };
        let mut look = Look { volumes: self.clone(), number, trees: Vec::new() };
        let mut mounts: Vec<&VolumeMount> = plan.spec.volumes.iter().collect();
        mounts.sort_by_key(|mount| mount.path.split('/').count());
        for mount in mounts {
            let tree = self.detached(plan.project, project, mount, Holder::Look(number));
            look.trees.push((tree.map_err(|e| named(mount, &e))?, mount.clone()));
        }
        Ok(look)
    }

    /// A container that lives has these; an earlier agent mounted them.
    pub(crate) fn adopt(&self, plan: &PlannedContainer) {
        for mount in &plan.spec.volumes {
            let volume = self.volume(plan.project, &mount.volume);
            locked(&volume).holders.insert(Holder::Container(plan.id.clone()));
        }
    }

    /// Unmounts what an earlier agent mounted for containers that do not live; volumes only if it is known
    /// what those that live have.
    pub(crate) fn tidy(&self, alive: &BTreeSet<ContainerId>, all_known: bool) {
        let staged = fs::read_dir(self.0.places.all_staging()).into_iter().flatten().flatten();
        for entry in staged {
            let name = entry.file_name();
            let lives = name.to_str().and_then(|n| n.parse().ok()).is_some_and(|id: ContainerId| alive.contains(&id));
            if !lives && let Err(error) = stage::clear(&entry.path()) {
                tracing::warn!(path = %entry.path().display(), %error, "volumes of an earlier life stay mounted");
            }
        }
        for (project, id) in self.on_disk().into_iter().filter(|_| all_known) {
            let volume = self.volume(project, &id);
            if let Err(error) = locked(&volume).unmount_unless_held() {
                tracing::warn!(volume = %id, %error, "stays mounted without a container");
            }
        }
    }

    /// Every volume that has a directory here.
    pub(crate) fn on_disk(&self) -> Vec<(ProjectId, VolumeId)> {
        let names = |dir: &Path| {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>()
        };
        let root = self.0.places.volumes();
        let projects = names(&root).into_iter().filter_map(|name| name.parse::<ProjectId>().ok());
        projects
            .flat_map(|project| {
                let ids = names(&root.join(project.to_string())).into_iter().filter_map(|name| name.parse().ok());
                ids.map(move |id| (project, id)).collect::<Vec<_>>()
            })
            .collect()
    }

    /// Bytes in a volume's files; of one with a file system of its own that is not mounted, what it
    /// takes of the disk. `None`: it is not here.
    pub(crate) fn size(&self, project: ProjectId, id: &VolumeId) -> Option<u64> {
        let volume = self.volume(project, id);
        let home = locked(&volume).home.clone();
        // Measured without the lock: it may take long, and nobody shall wait for it.
        home.size().ok()
    }

    /// Deletes a volume for good, whoever holds it: the caller has seen to it that nobody should.
    ///
    /// # Errors
    /// It cannot be unmounted or renamed.
    fn remove(&self, project: ProjectId, id: &VolumeId) -> io::Result<()> {
        let volume = self.volume(project, id);
        let mut volume = locked(&volume);
        volume.removed = true;
        volume.holders.clear();
        volume.unmount_unless_held()?;
        self.0.trash.discard(volume.home.dir())?;
        // The last volume of a project takes its directory with it.
        let _ = fs::remove_dir(self.0.places.volumes().join(project.to_string()));
        Ok(())
    }

    /// The volume, or the part of it that is asked for, as a mount of its own that is nowhere yet:
    /// with the ids its project has. The one place where a volume becomes a mount.
    fn detached(
        &self,
        id: ProjectId,
        project: Option<&Project>,
        mount: &VolumeMount,
        holder: Holder,
    ) -> io::Result<OwnedFd> {
        let volume = self.volume(id, &mount.volume);
        let mut volume = locked(&volume);
        volume.hold(holder, &mount.backing)?;
        let tree = stage::detach(&volume.home.data(&mount.backing), &mount.subpath)?;
        if let Some(project) = project {
            project.map(&tree)?;
        }
        Ok(tree)
    }

    fn volume(&self, project: ProjectId, id: &VolumeId) -> Arc<Mutex<Volume>> {
        let home = || Home::new(self.0.places.volumes().join(project.to_string()).join(id.as_str()));
        let fresh = || Arc::new(Mutex::new(Volume { home: home(), holders: BTreeSet::new(), removed: false }));
        locked(&self.0.book).volumes.entry(id.clone()).or_insert_with(fresh).clone()
    }

    fn let_go(&self, holder: &Holder) -> io::Result<()> {
        let all: Vec<_> = locked(&self.0.book).volumes.values().cloned().collect();
        for volume in all {
            let mut volume = locked(&volume);
            if volume.holders.remove(holder) {
                volume.unmount_unless_held()?;
            }
        }
        Ok(())
    }
}

impl Volume {
    fn hold(&mut self, holder: Holder, backing: &VolumeBacking) -> io::Result<()> {
        if self.removed {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it was removed"));
        }
        self.home.make(backing)?;
        self.holders.insert(holder);
        Ok(())
    }

    fn unmount_unless_held(&self) -> io::Result<()> {
        if self.holders.is_empty() { rootfs::unmount(&self.home.mounted()) } else { Ok(()) }
    }
}

/// Keeps volumes mounted while somebody looks into them.
#[derive(Debug)]
pub(crate) struct Look {
    volumes: Volumes,
    number: u64,
    /// Those nearest to the root first.
    trees: Vec<(OwnedFd, VolumeMount)>,
}

impl Look {
    /// Mounts them below `root`, where the container's root file system is mounted in a mount namespace
    /// or place of the caller's own; unmounting is the caller's.
    ///
    /// # Errors
    /// In words the tenant may see.
    pub(crate) fn mount_under(&self, root: &Path) -> io::Result<()> {
        for (tree, mount) in &self.trees {
            stage::put_inside(tree, root, &mount.path, mount.read_only).map_err(|e| named(mount, &e))?;
        }
        Ok(())
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        if let Err(error) = self.volumes.let_go(&Holder::Look(self.number)) {
            tracing::warn!(%error, "a volume stays mounted after a look into it");
        }
    }
}

/// Names the volume, and no path of the host's.
fn named(mount: &VolumeMount, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("volume {}: {error}", mount.name))
}

#[cfg(test)]
#[path = "volumes/tests.rs"]
mod tests;
