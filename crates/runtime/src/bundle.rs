//! An OCI bundle on disk: `config.json` built from a [`SandboxSpec`], beside a rootfs the caller has
//! mounted. Everything a tenant or an image can influence passes through here before a runtime
//! sees it, so this is where it is checked; nothing later trusts or repairs it.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use model::{IpcMode, Resources, SecuritySpec, TmpfsMount};
use serde_json::Value;

use crate::{Error, ResolvedUser, Result, cgroup, rlimit, root, seccomp::Filter, spec, user};

const CONFIGURATION: &str = "config.json";

/// Where the network namespace comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Netns {
    /// A namespace that exists, by path.
    Path(PathBuf),
    /// A new one with only a loopback device (`--network none`).
    #[default]
    New,
}

/// A user namespace that exists, and what its ids are outside of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserNamespace {
    /// Where it can be joined.
    pub path: PathBuf,
    /// What 0 inside is on the host, for users and groups alike.
    pub first_id: u32,
    /// How many ids it has.
    pub ids: u32,
}

/// Something of the host's that the container shall have: never `suid`, never a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindMount {
    /// Where it is on the host.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub path: String,
    /// The container cannot write to it.
    pub read_only: bool,
}

/// One container, as its bundle needs it.
#[derive(Clone, Debug, Default)]
pub struct SandboxSpec {
    /// Container id.
    pub id: String,
    /// Program and arguments; not empty.
    pub argv: Vec<String>,
    /// `KEY=value`, later ones win. PATH, HOSTNAME and TERM are added where absent, as dockerd does.
    pub env: Vec<String>,
    /// Working directory; empty is `/`.
    pub cwd: String,
    /// `user[:group]` by name or number, resolved inside the rootfs.
    pub user: String,
    /// Host name.
    pub hostname: String,
    /// NIS domain name; empty leaves the kernel's.
    pub domainname: String,
    /// The process has a terminal.
    pub tty: bool,
    /// Rows and columns at start.
    pub console_size: Option<(u16, u16)>,
    /// The mounted root file system, absolute.
    pub rootfs: PathBuf,
    /// Network namespace.
    pub netns: Netns,
    /// User namespace to join; the host's own without.
    pub userns: Option<UserNamespace>,
    /// PID namespace to join; a new one without.
    pub pidns: Option<PathBuf>,
    /// IPC namespace to join; a new one without.
    pub ipcns: Option<PathBuf>,
    /// Directory bound over `/dev/shm`, where that is shared; a tmpfs of its own without.
    pub shm: Option<PathBuf>,
    /// UTS namespace to join, with the names set already; a new one without.
    pub uts: Option<PathBuf>,
    /// `/wharfage/<id>`; also in [`crate::protocol::ShimConfig`].
    pub cgroup_path: String,
    /// Limits. What the host cannot give is clamped, with a warning.
    pub resources: Resources,
    /// Capabilities, no-new-privileges, read-only rootfs, extra groups.
    pub security: SecuritySpec,
    /// tmpfs mounts.
    pub tmpfs: Vec<TmpfsMount>,
    /// Volumes, each from a path no tenant can change.
    pub volumes: Vec<BindMount>,
    /// File bound over `/etc/hosts`.
    pub hosts_file: Option<PathBuf>,
    /// File bound over `/etc/resolv.conf`.
    pub resolv_conf: Option<PathBuf>,
    /// File bound over `/etc/hostname`.
    pub hostname_file: Option<PathBuf>,
    /// Run this program (a static `wharfage-shim`) as PID 1 over the container's own (`--init`).
    pub init: Option<PathBuf>,
    /// OCI annotations.
    pub annotations: BTreeMap<String, String>,
    /// Namespaced sysctls, over the defaults (unprivileged ports and ping, as Docker has).
    pub sysctls: BTreeMap<String, String>,
    /// Whether there is a `/dev/shm`, and whose.
    pub ipc: IpcMode,
    /// OOM score adjustment.
    pub oom_score_adj: Option<i32>,
}

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Bundle {
    /// What the host would not give as asked, for the create answer's `Warnings`.
    pub warnings: Vec<String>,
    /// Who the process runs as.
    pub user: ResolvedUser,
}

/// Creates `dir` (0700) and writes `config.json` into it, replacing an earlier run's.
///
/// # Errors
/// `Invalid` when the tenant's values or the image's files are at fault, otherwise the host's error.
pub fn write_bundle(dir: &Path, sandbox: &SandboxSpec) -> Result<Bundle> {
    let mut warnings = Vec::new();
    root::refuse_hostile(&sandbox.rootfs)?;
    let tenants = sandbox.volumes.iter().map(|v| &v.path).chain(sandbox.tmpfs.iter().map(|t| &t.path));
    tenants.into_iter().try_for_each(|path| root::refuse_disguised(&sandbox.rootfs, path))?;
    let who = user::resolve(&sandbox.rootfs, &sandbox.user, &sandbox.security.group_add)?;
    if let Some(userns) = &sandbox.userns {
        who.refuse_beyond(userns.ids)?;
    }
    let rlimits = rlimit::clamp(&sandbox.resources.ulimits, &mut warnings)?;
    let cgroups = cgroup::HostCgroups::probe();
    let document = spec::build(sandbox, &who, rlimits, &cgroups, &mut warnings)?;
    let bytes =
        serde_json::to_vec(&document).map_err(|source| Error::Document { what: "OCI configuration".into(), source })?;
    make_private_dir(dir)?;
    write_configuration(dir, &bytes)?;
    Ok(Bundle { warnings, user: who })
}

/// A further process in a container that runs.
#[derive(Clone, Debug, Default)]
pub struct ExecProcess {
    /// Program and arguments; not empty.
    pub argv: Vec<String>,
    /// Added to the container's environment.
    pub env: Vec<String>,
    /// Working directory; empty is the container's.
    pub cwd: String,
    /// `user[:group]`; empty is the container's.
    pub user: String,
    /// Supplementary groups of the container's spec, which a different user gets too.
    pub group_add: Vec<String>,
    /// It has a terminal.
    pub tty: bool,
    /// Rows and columns at start.
    pub console_size: Option<(u16, u16)>,
}

/// The OCI process document of an exec: the container's own process with `exec` laid over it, so
/// that limits, capabilities and no-new-privileges can never be more than the container's.
///
/// # Errors
/// No such bundle; an unknown user.
pub fn exec_process(bundle: &Path, exec: &ExecProcess) -> Result<Value> {
    spec::exec_process(configuration(bundle)?, exec)
}

/// What a bundle says about system calls.
#[derive(Clone, Debug)]
pub enum SystemCalls {
    /// Nothing: all of them.
    Any,
    /// What this program lets through.
    Filtered(Filter),
    /// Something that only the OCI runtime can make true.
    Elsewhere,
}

/// The filter of a bundle, as the kernel takes it.
///
/// # Errors
/// No such bundle.
pub fn system_calls(bundle: &Path) -> Result<SystemCalls> {
    Ok(SystemCalls::of(configuration(bundle)?["linux"]["seccomp"].take()))
}

impl SystemCalls {
    /// What a configuration's profile says.
    #[must_use]
    pub fn of(profile: Value) -> Self {
        if profile.is_null() {
            return Self::Any;
        }
        let filter = serde_json::from_value(profile).ok().and_then(|profile| Filter::of(&profile));
        filter.map_or(Self::Elsewhere, Self::Filtered)
    }
}

/// The OCI configuration of a bundle, as it stands there.
///
/// # Errors
/// No such bundle.
pub fn configuration(bundle: &Path) -> Result<Value> {
    let path = bundle.join(CONFIGURATION);
    let bytes = fs::read(&path).map_err(|e| Error::io(format!("read {}", path.display()), e))?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Document { what: "OCI configuration".into(), source })
}

/// Replaces the OCI configuration of a bundle.
pub(crate) fn write_configuration(bundle: &Path, bytes: &[u8]) -> Result<()> {
    write_file(&bundle.join(CONFIGURATION), bytes)
}

fn make_private_dir(dir: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| Error::io(format!("create {}", dir.display()), e))
}

/// Write and rename: a crash leaves the old bundle or the new one, never half.
fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let draft = path.with_extension("new");
    let attempt = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(bytes)?;
        fs::rename(&draft, path)
    };
    attempt().map_err(|e| {
        // A full disk: nothing half-made stays. The first error is the one to tell.
        let _ = fs::remove_file(&draft);
        Error::io(format!("write {}", path.display()), e)
    })
}
