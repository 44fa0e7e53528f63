//! What every keeper shares: where things are on this host, and the parts that prepare and release.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use chassis::Clock;
use model::ContainerId;
use runtime::{RunDir, Sealed};
use tokio::sync::Semaphore;

use crate::{
    config::Config,
    discard::Trash,
    image::Images,
    ledger::Ledger,
    neighbours::Neighbours,
    net::Net,
    report::Reports,
    socket::Gateway,
    streams::follow::LogWatch,
    tenancy::Tenancy,
    tree::{Slots, measure::LayerWeights},
    volumes::Volumes,
};

/// The host, to its keepers.
pub(crate) struct Host {
    pub(crate) config: Config,
    pub(crate) places: Places,
    pub(crate) clock: Clock,
    pub(crate) trash: Trash,
    pub(crate) ledger: Ledger,
    pub(crate) images: Images,
    pub(crate) net: Net,
    pub(crate) tenancy: Tenancy,
    pub(crate) reports: Reports,
    pub(crate) log_watch: LogWatch,
    pub(crate) slots: Slots,
    pub(crate) layer_weights: LayerWeights,
    pub(crate) volumes: Volumes,
    /// Who else runs here.
    pub(crate) neighbours: Neighbours,
    /// Where requests of containers go.
    pub(crate) gateway: Gateway,
    /// How many health checks may be started at once.
    pub(crate) probe_slots: Arc<Semaphore>,
    /// The shim as it is executed; as it is on disk where the kernel cannot seal it.
    pub(crate) shim: Option<Sealed>,
    /// The machine was restarted since the last agent ran: no process of then lives.
    pub(crate) rebooted: bool,
}

/// A host, shared.
pub(crate) type SharedHost = Arc<Host>;

impl Host {
    /// What a shim is started from.
    pub(crate) fn shim_program(&self) -> PathBuf {
        self.shim.as_ref().map_or_else(|| self.config.shim_path.clone(), Sealed::path)
    }

    /// The cgroup of a container, below this agent's own parent.
    pub(crate) fn cgroup_path(&self, id: &ContainerId) -> String {
        format!("{}/{id}", self.config.cgroup_parent)
    }
}

/// Paths below the data and run directories.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    data_dir: PathBuf,
    run_dir: PathBuf,
}

impl Places {
    pub(crate) fn new(data_dir: &Path, run_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), run_dir: run_dir.to_owned() }
    }

    /// Makes the directories that are always there.
    pub(crate) fn make(&self) -> io::Result<()> {
        for dir in [self.containers(), self.layers(), self.identity(), self.run_containers(), self.runtime_root("")] {
            make_private(&dir)?;
        }
        make_private(&self.roots())?;
        // A container's init walks to its root as the project's own user.
        for way in [self.run_dir.as_path(), &self.roots()] {
            fs::set_permissions(way, fs::Permissions::from_mode(0o711))?;
        }
        Ok(())
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub(crate) fn identity(&self) -> PathBuf {
        self.data_dir.join("identity")
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.data_dir.join("layers")
    }

    /// Where a starting agent tries out what the kernel can do.
    pub(crate) fn probe(&self) -> PathBuf {
        self.data_dir.join("probe")
    }

    /// Where it tries out what layers can be.
    pub(crate) fn layer_trial(&self) -> PathBuf {
        self.data_dir.join("layer-trial")
    }

    pub(crate) fn trash(&self) -> PathBuf {
        self.data_dir.join("trash")
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.data_dir.join("containers")
    }

    /// A container's own directory: its plan and state, its files, its log, its writable layer.
    pub(crate) fn container(&self, id: &ContainerId) -> PathBuf {
        self.containers().join(id.as_str())
    }

    /// Mount points of root file systems, one directory a container.
    pub(crate) fn roots(&self) -> PathBuf {
        self.run_dir.join("roots")
    }

    /// Where its root file system is mounted.
    pub(crate) fn rootfs(&self, id: &ContainerId) -> PathBuf {
        self.roots().join(id.as_str()).join("fs")
    }

    /// Pinned user namespaces, one a project.
    pub(crate) fn namespaces(&self) -> PathBuf {
        self.run_dir.join("namespaces")
    }

    /// Its UTS namespace, if it was made ahead of the runtime.
    pub(crate) fn uts(&self, id: &ContainerId) -> PathBuf {
        self.run_containers().join(id.as_str()).join("uts")
    }

    /// The network namespace of another container, if it lives in one.
    pub(crate) fn netns(&self, id: &ContainerId) -> PathBuf {
        self.run_containers().join(id.as_str()).join("netns")
    }

    /// The namespace of processes of another container, if it lives in one.
    pub(crate) fn pidns(&self, id: &ContainerId) -> PathBuf {
        self.run_containers().join(id.as_str()).join("pidns")
    }

    /// The IPC namespace of another container, if it lives in one.
    pub(crate) fn ipcns(&self, id: &ContainerId) -> PathBuf {
        self.run_containers().join(id.as_str()).join("ipcns")
    }

    /// Its `/dev/shm`, where others may share it.
    pub(crate) fn shm(&self, id: &ContainerId) -> PathBuf {
        self.run_containers().join(id.as_str()).join("shm")
    }

    pub(crate) fn log_dir(&self, id: &ContainerId) -> PathBuf {
        self.container(id).join("log")
    }

    /// The current log file, under dockerd's name.
    pub(crate) fn log_file(&self, id: &ContainerId) -> PathBuf {
        self.log_dir(id).join(format!("{id}-json.log"))
    }

    /// A directory for each project, and in it one for each volume.
    pub(crate) fn volumes(&self) -> PathBuf {
        self.data_dir.join("volumes")
    }

    /// Where a container's volumes are mounted for the runtime. Nothing here is ever deleted recursively.
    pub(crate) fn staging(&self, id: &ContainerId) -> PathBuf {
        self.all_staging().join(id.as_str())
    }

    pub(crate) fn all_staging(&self) -> PathBuf {
        self.run_dir.join("volumes")
    }

    pub(crate) fn run_containers(&self) -> PathBuf {
        self.run_dir.join("containers")
    }

    pub(crate) fn run_dir(&self, id: &ContainerId) -> RunDir {
        RunDir::new(self.run_containers().join(id.as_str()))
    }

    pub(crate) fn bundle(&self, id: &ContainerId) -> PathBuf {
        self.run_dir(id).path().join("bundle")
    }

    /// Where a runtime is tried out; a runtime's init walks there as a user like projects'.
    pub(crate) fn trial(&self, runtime: &str) -> PathBuf {
        self.roots().join(format!("trial-{runtime}"))
    }

    /// State of an OCI runtime, by name.
    pub(crate) fn runtime_root(&self, runtime: &str) -> PathBuf {
        self.run_dir.join("runtime").join(runtime)
    }
}

/// A directory for root alone; it may exist.
pub(crate) fn make_private(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// The id of this boot: what ran in another one does not run any more.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
