//! A container: what is wanted (`ContainerSpec`, `Desired`), and how far it got (`Progress`,
//! `Observed`). Three facts, three writers: wanted by the gateway, where by the scheduler, how far
//! by the host.
//!
//! Progress only moves forward: of two observations the greater is the truth, which makes late,
//! duplicate and reordered reports harmless.
//!
//! ```text
//!   run n:  Pending < Preparing < Created < Starting < Running < Exited        Removed ends all
//!   run n+1 (a later start) beats every phase of run n.
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{ContainerId, Health, Healthcheck, PortBinding, Resources, SecuritySpec, VolumeMount};

/// Everything a host needs to know to run the container, with the image's defaults already merged in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ContainerSpec {
    /// The image as the user wrote it.
    pub image: String,
    /// The program and leading arguments; empty when only `cmd` is given.
    pub entrypoint: Vec<String>,
    /// Arguments (or the program, without an entrypoint).
    pub cmd: Vec<String>,
    /// `KEY=value`, image's first, later ones win.
    pub env: Vec<String>,
    /// Working directory; empty means `/`.
    pub working_dir: String,
    /// `user[:group]` resolved inside the image's own files.
    pub user: String,
    /// Host name; empty means the id's first 12 digits.
    pub hostname: String,
    /// NIS domain name.
    pub domainname: String,
    /// User's labels over the image's.
    pub labels: BTreeMap<String, String>,
    /// OCI annotations.
    pub annotations: BTreeMap<String, String>,
    /// Allocate a terminal.
    pub tty: bool,
    /// Keep stdin open when nobody is attached.
    pub open_stdin: bool,
    /// Close stdin after the first attached client leaves.
    pub stdin_once: bool,
    /// What `docker run` attaches to; shown again by inspect.
    pub attach: StreamFlags,
    /// Rows and columns of the terminal at start.
    pub console_size: Option<(u16, u16)>,
    /// Signal that stops it; `None` is SIGTERM.
    pub stop_signal: Option<String>,
    /// Seconds between the stop signal and SIGKILL; `None` is 10; negative waits for ever.
    pub stop_timeout_s: Option<i64>,
    /// `port/proto` shown as exposed.
    pub exposed_ports: Vec<String>,
    /// Ports to publish.
    pub port_bindings: Vec<PortBinding>,
    /// Publish every exposed port on a free host port (`-P`).
    pub publish_all: bool,
    /// Remove it when it exits (`--rm`).
    pub auto_remove: bool,
    /// What the host does when it exits.
    pub restart: RestartPolicy,
    /// Limits.
    pub resources: Resources,
    /// Security choices.
    pub security: SecuritySpec,
    /// Sysctls of its own namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// How much nearer to the kernel's OOM killer it is, up to 1000.
    pub oom_score_adj: u16,
    /// Its shared memory.
    pub ipc: IpcMode,
    /// tmpfs mounts.
    pub tmpfs: Vec<TmpfsMount>,
    /// Volumes, each of the container's own project.
    pub volumes: Vec<VolumeMount>,
    /// Where it has `/var/run/docker.sock`: its own project's API, on a socket of its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub docker_sockets: Vec<SocketMount>,
    /// Run a minimal init as PID 1.
    pub init: bool,
    /// How its health is told; `None` is no check.
    pub healthcheck: Option<Healthcheck>,
    /// Log options.
    pub log: LogConfig,
    /// No network at all (`--network none`).
    pub network_none: bool,
    /// The container of the same project whose network namespace it lives in, with that one's name and
    /// name files (`--network container:`); both are on one host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_of: Option<ContainerId>,
    /// The container of the same project whose processes it shares (`--pid container:`); on the same host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid_of: Option<ContainerId>,
    /// The container of the same project whose IPC namespace and `/dev/shm` it shares (`--ipc container:`);
    /// on the same host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipc_of: Option<ContainerId>,
    /// Containers of the project's own bridge that it has in `/etc/hosts`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// Extra `/etc/hosts` lines, `name:address`.
    pub extra_hosts: Vec<String>,
    /// Name servers; empty means the host's.
    pub dns: Vec<String>,
    /// `resolv.conf` options.
    pub dns_options: Vec<String>,
    /// `resolv.conf` search domains.
    pub dns_search: Vec<String>,
    /// OCI runtime by name; empty is the default.
    pub runtime: String,
    /// The client's own `Config` and `HostConfig`, kept only so that inspect can show them again.
    /// No decision is ever taken on it (faults-and-attacks.md 3.0).
    #[schema(value_type = Object)]
    pub shown: BTreeMap<String, serde_json::Value>,
}

/// Which of the three standard streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct StreamFlags {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// Restart policy (Docker: `HostConfig.RestartPolicy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// After a non-zero exit, at most so many times (0: no bound).
    OnFailure {
        /// Bound on restarts; 0 is none.
        max_retries: u32,
    },
    /// Always, also after a host reboot.
    Always,
    /// As always, unless it was stopped by the user.
    UnlessStopped,
}

/// A container's IPC namespace, where it does not share that of another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum IpcMode {
    /// Its own.
    #[default]
    Private,
    /// Its own; others of the project may join.
    Shareable,
    /// Its own, and no `/dev/shm`.
    None,
}

/// A tmpfs inside the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct TmpfsMount {
    /// Absolute path.
    pub path: String,
    /// Size limit.
    pub size_bytes: Option<u64>,
    /// Files at most.
    pub inodes: Option<u64>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// May programs be executed from it (`exec`); default no, as Docker's.
    pub exec: bool,
    /// The container cannot write to it.
    pub read_only: bool,
    /// Docker shows it among the mounts (`--mount`, not `--tmpfs`).
    pub is_shown: bool,
}

/// The Docker API's socket inside the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct SocketMount {
    /// Absolute path in the container.
    pub path: String,
    /// Asked for read-only; whoever can see a socket can talk to it, as with Docker.
    pub read_only: bool,
    /// What the user called it, to be shown.
    pub shown_source: String,
    /// Docker's `Mode`, to be shown.
    pub shown_mode: String,
}

/// Another container under a name of one's own (`--link`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Link {
    /// The other one.
    pub container: ContainerId,
    /// What it is called.
    pub alias: String,
}

/// json-file log options.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct LogConfig {
    /// `false` for the driver `none`: nothing is kept.
    pub keep: bool,
    /// Rotate at this size.
    pub max_size_bytes: u64,
    /// Files kept, the current one included.
    pub max_files: u32,
    /// Labels and variables that go along with every line.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// What lines are tagged with; `{{.Name}}` and the like stand for what is the container's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tag: String,
}

impl Default for LogConfig {
    /// 20 MB in 5 files: a tenant's logs have a bound even when nobody set one.
    fn default() -> Self {
        Self { keep: true, max_size_bytes: 20_000_000, max_files: 5, attributes: BTreeMap::new(), tag: String::new() }
    }
}

/// What the user wants of a container now. Written by the gateway only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Desired {
    /// Prepared, never started.
    Created,
    /// Run number `run` should have been started. Once it has exited, nothing more is wanted.
    Running {
        /// Counts starts; a restart is a new run.
        run: u32,
    },
    /// Run number `run` should be ended.
    Stopped {
        /// The run to end.
        run: u32,
        /// Signal to send first.
        signal: String,
        /// Seconds until SIGKILL; negative waits for ever.
        timeout_s: i64,
    },
    /// Gone, with everything it owned.
    Removed,
}

/// How far a run got. Order is meaning: see the module text. Stored as text, compared as a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The host has not begun.
    Pending,
    /// Image being fetched and unpacked.
    Preparing,
    /// Ready to start.
    Created,
    /// The runtime is at it.
    Starting,
    /// PID 1 runs.
    Running,
    /// PID 1 ended, or could not be started.
    Exited,
    /// Nothing of it is left on the host.
    Removed,
}

impl Phase {
    /// The number SQL compares.
    #[must_use]
    pub fn rank(self) -> i16 {
        self as i16
    }

    /// Back from [`Phase::rank`]; anything unknown is `Pending`.
    #[must_use]
    pub fn from_rank(rank: i16) -> Self {
        const ALL: [Phase; 7] = [
            Phase::Pending,
            Phase::Preparing,
            Phase::Created,
            Phase::Starting,
            Phase::Running,
            Phase::Exited,
            Phase::Removed,
        ];
        usize::try_from(rank).ok().and_then(|i| ALL.get(i).copied()).unwrap_or(Phase::Pending)
    }
}

/// A point in a container's life. `Ord` is lexicographic: a later run beats every phase, a later
/// restart within the run (the host's own, under the restart policy) beats every phase too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// The run it is about; 0 before the first start.
    pub run: u32,
    /// Restarts the host made within this run.
    pub restart: u32,
    /// How far.
    pub phase: Phase,
}

impl Progress {
    /// A container nobody has touched.
    pub const NONE: Self = Self { run: 0, restart: 0, phase: Phase::Pending };
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Exit {
    /// Exit status, or 128 + signal.
    pub code: i32,
    /// The kernel's OOM killer was at it.
    pub oom_killed: bool,
    /// Why it could not be started, in the runtime's words, or why the host ended it; else empty.
    pub error: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub finished_at: OffsetDateTime,
}

impl Exit {
    /// No program of it ever ran: nothing to start again by itself, and no start to tell of. What a
    /// host ends for a reason of its own has a reason too, but the code of a killed process.
    #[must_use]
    pub fn never_started(&self) -> bool {
        !self.error.is_empty() && (126..=128).contains(&self.code)
    }
}

/// What the host last said of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Observed {
    /// How far it got.
    pub progress: Progress,
    /// Counts every change that is no progress (`paused`, `oom_kills`, `health`), over the container's
    /// whole life: of two observations at the same progress the one with more changes is the truth.
    #[serde(default)]
    pub revision: u32,
    /// Its processes are frozen.
    #[serde(default)]
    pub paused: bool,
    /// How often the kernel's OOM killer was at it during this run.
    #[serde(default)]
    pub oom_kills: u32,
    /// What its health check says, if it has one and runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// PID of its first process on the host, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// When the run began.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub started_at: Option<OffsetDateTime>,
    /// How the last finished run ended. Kept while a later run is running, as Docker does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Why preparing failed (image gone, disk full); shown in `State.Error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepare_error: Option<String>,
}

impl Observed {
    /// So far and nothing more to say.
    #[must_use]
    pub const fn at(progress: Progress) -> Self {
        Self {
            progress,
            revision: 0,
            paused: false,
            oom_kills: 0,
            health: None,
            pid: None,
            started_at: None,
            exit: None,
            prepare_error: None,
        }
    }

    /// What orders observations of one container: the greater is the later.
    #[must_use]
    pub fn order(&self) -> (Progress, u32) {
        (self.progress, self.revision)
    }
}
