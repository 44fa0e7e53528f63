//! What keeps projects apart on this host: a user namespace each, over ids nobody else has, and the
//! layers and containers seen through it (idmapped mounts), so that what is on disk is shared and unshifted.
//!
//! A namespace is made by a process that is the project's user already: the kernel counts inotify
//! instances, namespaces and the like up to the maker of a namespace, and with root as the maker one
//! project would use up everybody's (E03). It is pinned as a file of the run directory, so that it
//! outlives the agent; containers of one project on one host are in the same one.

mod names;
mod userns;
mod view;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use contract::host::{PROJECT_IDS, PlannedContainer};
use model::ProjectId;
use runtime::UserNamespace;

use crate::layers::Layer;

pub(crate) use names::make_uts;
pub(crate) use view::{Overlay, become_user};

/// All projects that have been seen here.
#[derive(Debug)]
pub(crate) struct Tenancy {
    dir: PathBuf,
    layers: PathBuf,
    /// Why this host cannot keep projects apart by user; containers then run with its own ids.
    missing: Option<String>,
    known: Mutex<BTreeMap<ProjectId, Arc<Project>>>,
}

/// One project on this host.
#[derive(Debug)]
pub(crate) struct Project {
    pin: PathBuf,
    first_id: u32,
    userns: File,
    layers_dir: PathBuf,
    /// The directory of layers as the project sees it.
    layers: OwnedFd,
}

impl Tenancy {
    /// Looks what this kernel can do, at `probe`, which is on the file system of `layers`.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub(crate) fn open(dir: PathBuf, layers: PathBuf, probe: &Path) -> io::Result<Self> {
        crate::host::make_private(&dir)?;
        let missing = view::probe(probe, None).err().map(|e| e.to_string());
        if let Some(why) = &missing {
            tracing::error!(why, "containers of different projects share this host's user ids");
        }
        Ok(Self { dir, layers, missing, known: Mutex::default() })
    }

    /// Whether a layer that is mounted on its own shows in root file systems with a project's ids. `place`
    /// is a directory of the trial's own.
    ///
    /// # Errors
    /// What this kernel cannot do.
    pub(crate) fn try_layer(&self, layer: &Layer, place: &Path) -> io::Result<()> {
        match (&self.missing, layer.mount()) {
            (None, Some(mount)) => view::probe(place, Some(mount)),
            (Some(why), _) => Err(io::Error::other(why.clone())),
            (None, None) => Err(io::Error::other("it is not mounted")),
        }
    }

    /// The container's project, made if it is new here. `None`: the host's own ids.
    ///
    /// # Errors
    /// In the kernel's words.
    pub(crate) fn project_of(&self, container: &PlannedContainer) -> io::Result<Option<Arc<Project>>> {
        match container.uid_base {
            Some(first_id) if self.missing.is_none() => self.project(container.project, first_id).map(Some),
            Some(_) | None => Ok(None),
        }
    }

    /// As a project's, for trying out runtimes: nobody's containers are in it.
    ///
    /// # Errors
    /// In the kernel's words.
    pub(crate) fn for_trials(&self, id: ProjectId, first_id: u32) -> io::Result<Option<Arc<Project>>> {
        if self.missing.is_none() { self.project(id, first_id).map(Some) } else { Ok(None) }
    }

    /// Where the namespace of the container's project is pinned, if it has been made.
    pub(crate) fn pin_of(&self, container: &PlannedContainer) -> Option<PathBuf> {
        let wanted = container.uid_base.is_some() && self.missing.is_none();
        wanted.then(|| self.pin(container.project))
    }

    fn pin(&self, project: ProjectId) -> PathBuf {
        self.dir.join(project.0.to_string())
    }

    fn project(&self, id: ProjectId, first_id: u32) -> io::Result<Arc<Project>> {
        // Held while one is made: two containers of a new project need the same one.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(project) = known.get(&id).filter(|p| p.first_id == first_id) {
            return Ok(project.clone());
        }
        let pin = self.pin(id);
        let userns = userns::find_or_make(&pin, first_id)?;
        let layers = view::of(&self.layers, userns.as_fd())?;
        let project = Arc::new(Project { pin, first_id, userns, layers_dir: self.layers.clone(), layers });
        known.insert(id, project.clone());
        Ok(project)
    }

    /// Lets go of the namespaces of projects that have nothing here any more.
    pub(crate) fn forget_others(&self, wanted: &[ProjectId]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|id, _| wanted.contains(id));
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if !wanted.iter().any(|id| name.to_str() == Some(&id.0.to_string()))
                && let Err(error) = userns::unpin(&entry.path())
            {
                tracing::warn!(%error, "a user namespace stays pinned");
            }
        }
    }
}

impl Project {
    /// What root of its containers is on the host; group likewise.
    pub(crate) fn root_id(&self) -> u32 {
        self.first_id
    }

    /// As a bundle names it.
    pub(crate) fn namespace(&self) -> UserNamespace {
        UserNamespace { path: self.pin.clone(), first_id: self.first_id, ids: PROJECT_IDS }
    }

    /// The file it is pinned on.
    pub(crate) fn pin(&self) -> &Path {
        &self.pin
    }

    /// It, open.
    pub(crate) fn userns(&self) -> BorrowedFd<'_> {
        self.userns.as_fd()
    }

    /// A layer as the project sees it.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn open_layer(&self, layer: &Layer) -> io::Result<OwnedFd> {
        match layer.mount() {
            Some(mount) => view::of_mount(mount, self.userns.as_fd()),
            None => view::open_below(self.layers.as_fd(), &self.layers_dir, layer.home()),
        }
    }

    /// Has a mount that is nowhere yet show its files with the project's ids.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn map(&self, tree: &OwnedFd) -> io::Result<()> {
        view::map_ids(tree, self.userns.as_fd())
    }

    /// A directory of the host as the project sees it; not attached anywhere.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn view(&self, dir: &Path) -> io::Result<OwnedFd> {
        view::of(dir, self.userns.as_fd())
    }
}
