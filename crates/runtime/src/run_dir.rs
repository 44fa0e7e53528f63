//! Where a container's run-time files are: one directory per container, owned by the shim while it
//! lives. The names are fixed here so that agent and shim cannot disagree.
//!
//! Socket paths are limited to 107 bytes and run directories are longer, so both sides bind and
//! connect through `/proc/self/fd/<directory>/…`.

use std::{
    fs::{File, Permissions},
    io,
    os::{
        fd::AsRawFd,
        unix::{
            fs::{PermissionsExt as _, chown},
            net::{UnixListener, UnixStream},
            process::CommandExt as _,
        },
    },
    path::{Path, PathBuf},
    process::Command,
};

use crate::protocol::{ExecRecord, ExitRecord, ShimConfig};

const DOCKER_SOCKET: &str = "docker.sock";
const STARTED_BY_SHIM: &str = "started-by-shim";

/// A container's run directory. Mode 0700, below the host's `<run_dir>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// The directory at `path`; it need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// [`ShimConfig`], written by the agent before it spawns the shim.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.0.join("shim.json")
    }

    /// The shim's socket; connect with [`RunDir::connect`].
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.0.join("shim.sock")
    }

    /// What the container sees as `/var/run/docker.sock`, where it has one.
    #[must_use]
    pub fn docker_socket(&self) -> PathBuf {
        self.0.join(DOCKER_SOCKET)
    }

    /// PID of the container's first process, as the runtime wrote it. Gone once the run has ended.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.0.join("init.pid")
    }

    /// Whether the shim started the container without the OCI runtime, which then knows nothing of it.
    #[must_use]
    pub fn is_started_by_shim(&self) -> bool {
        self.0.join(STARTED_BY_SHIM).exists()
    }

    /// Writes down who is about to start the container.
    ///
    /// # Errors
    /// The directory is full.
    pub fn note_started_by_shim(&self, by_shim: bool) -> io::Result<()> {
        let note = self.0.join(STARTED_BY_SHIM);
        if by_shim {
            return std::fs::write(note, "");
        }
        match std::fs::remove_file(note) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// [`ExitRecord`], written when the run has ended. The agent deletes it before the next run.
    #[must_use]
    pub fn exit_record(&self) -> PathBuf {
        self.0.join("exit.json")
    }

    /// What the shim has to say to an operator (panics, dropped log lines).
    #[must_use]
    pub fn shim_log(&self) -> PathBuf {
        self.0.join("shim.log")
    }

    /// Directory of exec records and their scratch files.
    #[must_use]
    pub fn execs(&self) -> PathBuf {
        self.0.join("execs")
    }

    /// [`ExecRecord`] of one exec: `running` once it has started, final when it has ended.
    #[must_use]
    pub fn exec_record(&self, exec_id: &str) -> PathBuf {
        self.execs().join(format!("{exec_id}.json"))
    }

    /// Writes the shim's configuration.
    ///
    /// # Errors
    /// The directory is missing or full.
    pub fn write_config(&self, config: &ShimConfig) -> io::Result<()> {
        std::fs::write(self.config(), serde_json::to_vec(config)?)
    }

    /// The command that starts a shim for this directory. It returns when the shim is ready to be
    /// connected to (status 0; the shim lives on in a session of its own, as nobody's child), or
    /// with another status and the reason on stderr.
    #[must_use]
    pub fn shim_command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        // Executed through a descriptor, its path says nothing.
        command.arg0("wharfage-shim").env_clear().current_dir("/").arg("run").arg("--dir").arg(&self.0);
        command
    }

    /// Connects to the shim. `NotFound` or `ConnectionRefused` mean that no shim lives.
    ///
    /// # Errors
    /// As above, or the kernel's.
    pub fn connect(&self) -> io::Result<UnixStream> {
        let dir = File::open(&self.0)?;
        UnixStream::connect(format!("/proc/self/fd/{}/shim.sock", dir.as_raw_fd()))
    }

    /// Binds the shim's socket in place of a dead one's.
    ///
    /// # Errors
    /// The kernel's.
    pub fn bind(&self) -> io::Result<UnixListener> {
        self.bind_as("shim.sock")
    }

    /// Binds the container's Docker socket in place of an earlier run's. Everybody in the container may
    /// talk to it; on the host nobody but root gets to it, the directory being root's.
    ///
    /// # Errors
    /// The kernel's.
    pub fn bind_docker_socket(&self, owner: Option<u32>) -> io::Result<UnixListener> {
        let listener = self.bind_as(DOCKER_SOCKET)?;
        chown(self.docker_socket(), owner, owner)?;
        std::fs::set_permissions(self.docker_socket(), Permissions::from_mode(0o666))?;
        Ok(listener)
    }

    fn bind_as(&self, name: &str) -> io::Result<UnixListener> {
        let dir = File::open(&self.0)?;
        match std::fs::remove_file(self.0.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => {}
        }
        UnixListener::bind(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
    }

    /// How the run ended, if it has. A record of an earlier run is the reader's to tell by its `run`.
    ///
    /// # Errors
    /// Unreadable or not our document.
    pub fn read_exit(&self) -> io::Result<Option<ExitRecord>> {
        read_document(&self.exit_record())
    }

    /// What is known of an exec.
    ///
    /// # Errors
    /// Unreadable or not our document.
    pub fn read_exec(&self, exec_id: &str) -> io::Result<Option<ExecRecord>> {
        read_document(&self.exec_record(exec_id))
    }

    /// What the last shim here was told to run.
    ///
    /// # Errors
    /// Unreadable or not our document.
    pub fn read_config(&self) -> io::Result<Option<ShimConfig>> {
        read_document(&self.config())
    }

    /// PID of the first process while the run lasts.
    #[must_use]
    pub fn read_pid(&self) -> Option<u32> {
        std::fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()
    }
}

fn read_document<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
