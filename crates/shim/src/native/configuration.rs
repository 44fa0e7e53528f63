//! A container's OCI configuration whose every field is known here, and asks for nothing but what
//! [`super::found`] and [`super::furnish`] make. Whatever else it says, there is no [`Sandbox`], and the
//! OCI runtime starts the container.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use runtime::{SystemCalls, cgroup::Limits};
use serde::Deserialize;
use serde_json::Value;

use super::document::Process;

/// Everything a first process stands in.
#[derive(Debug)]
pub(super) struct Sandbox {
    pub(super) cgroup_path: String,
    pub(super) limits: Limits,
    pub(super) rootfs: PathBuf,
    pub(super) read_only: bool,
    pub(super) hostname: String,
    /// To be joined before anything else is made: it is then the user namespace's.
    pub(super) users: PathBuf,
    pub(super) network: Option<PathBuf>,
    pub(super) names: Option<PathBuf>,
    /// In order.
    pub(super) mounts: Vec<Mount>,
    pub(super) masked: Vec<Kernels>,
    pub(super) read_only_paths: Vec<Kernels>,
    pub(super) sysctls: Vec<Sysctl>,
}

impl Sandbox {
    /// Whether the host puts something at this path of the fresh `/dev`, where no image has a say, and nobody
    /// can write to it.
    pub(super) fn puts_read_only(&self, path: &str) -> bool {
        let fits = |mount: &&Mount| mount.kind == Kind::Bind && mount.attributes & libc::MOUNT_ATTR_RDONLY != 0;
        let mut all = self.mounts.iter().filter(|mount| mount.at == Path::new(path));
        Path::new(path).parent() == Some(Path::new("/dev")) && all.next_back().as_ref().is_some_and(fits)
    }
}

/// Something mounted below the root.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) kind: Kind,
    /// Absolute, without `.` and `..`.
    pub(super) at: PathBuf,
    pub(super) source: String,
    /// `MOUNT_ATTR_*`.
    pub(super) attributes: u64,
    /// What the file system is told, in order.
    pub(super) options: Vec<(String, Option<String>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Proc,
    /// The one tmpfs that devices are put into.
    Dev,
    Terminals,
    Sys,
    Cgroups,
    Queues,
    Tmpfs,
    Bind,
}

/// A path in one of the kernel's own file systems, relative to its mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kernels {
    Proc(PathBuf),
    Sys(PathBuf),
}

impl std::fmt::Display for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Proc(path) => write!(f, "/proc/{}", path.display()),
            Self::Sys(path) => write!(f, "/sys/{}", path.display()),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sysctl {
    /// Relative to procfs.
    pub(super) path: PathBuf,
    pub(super) value: String,
}

/// What every container has, first and in this order.
const KERNELS_OWN: [(&str, &str, Kind); 6] = [
    ("/proc", "proc", Kind::Proc),
    ("/dev", "tmpfs", Kind::Dev),
    ("/dev/pts", "devpts", Kind::Terminals),
    ("/sys", "sysfs", Kind::Sys),
    ("/sys/fs/cgroup", "cgroup", Kind::Cgroups),
    ("/dev/mqueue", "mqueue", Kind::Queues),
];
/// System V and POSIX IPC: with a namespace of one's own these are one's own.
const IPC_SYSCTLS: [&str; 9] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.msg_next_id",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    #[serde(rename = "ociVersion")]
    _version: String,
    process: Value,
    root: RootDocument,
    #[serde(default)]
    hostname: String,
    mounts: Vec<MountDocument>,
    linux: LinuxDocument,
    /// runc does nothing about the few it knows where cgroups are directories.
    #[serde(default, rename = "annotations")]
    _annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RootDocument {
    path: PathBuf,
    #[serde(default)]
    readonly: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MountDocument {
    destination: PathBuf,
    #[serde(rename = "type")]
    kind: String,
    source: String,
    #[serde(default)]
    options: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LinuxDocument {
    /// Of a namespace that is joined they say what it is.
    #[serde(default, rename = "uidMappings")]
    _users: Option<Value>,
    #[serde(default, rename = "gidMappings")]
    _groups: Option<Value>,
    #[serde(default)]
    sysctl: BTreeMap<String, String>,
    resources: Value,
    cgroups_path: String,
    namespaces: Vec<NamespaceDocument>,
    #[serde(default)]
    devices: Vec<Value>,
    #[serde(default)]
    seccomp: Value,
    #[serde(default)]
    masked_paths: Vec<PathBuf>,
    #[serde(default)]
    readonly_paths: Vec<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamespaceDocument {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: Option<PathBuf>,
}

/// The configuration, if all of it is understood: the sandbox, what runs in it, and its system calls.
pub(super) fn known(document: &Value) -> Option<(Sandbox, Process, SystemCalls)> {
    let document: Document = serde_json::from_value(document.clone()).ok()?;
    let linux = document.linux;
    let process = Process::known(&document.process)?;
    let calls = SystemCalls::of(linux.seccomp);
    let unknown = !linux.devices.is_empty() || matches!(calls, SystemCalls::Elsewhere);
    if unknown || !document.root.path.is_absolute() || !linux.cgroups_path.starts_with('/') {
        return None;
    }
    let Namespaces { users, network, names } = namespaces(linux.namespaces)?;
    let sandbox = Sandbox {
        cgroup_path: linux.cgroups_path,
        limits: Limits::known(&linux.resources)?,
        rootfs: document.root.path,
        read_only: document.root.readonly,
        hostname: document.hostname,
        users,
        network,
        names,
        mounts: mounts(document.mounts)?,
        masked: linux.masked_paths.iter().map(|path| kernels(path)).collect::<Option<_>>()?,
        read_only_paths: linux.readonly_paths.iter().map(|path| kernels(path)).collect::<Option<_>>()?,
        sysctls: linux.sysctl.into_iter().map(sysctl).collect::<Option<_>>()?,
    };
    Some((sandbox, process, calls))
}

struct Namespaces {
    users: PathBuf,
    network: Option<PathBuf>,
    names: Option<PathBuf>,
}

/// One of each kind; the users' is joined, and what is neither the network nor the names is new.
fn namespaces(documents: Vec<NamespaceDocument>) -> Option<Namespaces> {
    let mut all = BTreeMap::new();
    for NamespaceDocument { kind, path } in documents {
        if all.insert(kind, path).is_some() {
            return None;
        }
    }
    let found = Namespaces { users: all.remove("user")??, network: all.remove("network")?, names: all.remove("uts")? };
    let new = ["cgroup", "ipc", "mount", "pid"];
    (all.keys().eq(new) && all.values().all(Option::is_none)).then_some(found)
}

fn mounts(documents: Vec<MountDocument>) -> Option<Vec<Mount>> {
    let mut all = Vec::with_capacity(documents.len());
    for (number, document) in documents.into_iter().enumerate() {
        let kind = match KERNELS_OWN.get(number) {
            Some((at, name, kind)) if document.destination == Path::new(at) && document.kind == *name => *kind,
            Some(_) => return None,
            None if document.kind == "tmpfs" => Kind::Tmpfs,
            None if document.kind == "bind" => Kind::Bind,
            None => return None,
        };
        all.push(mount(kind, document)?);
    }
    (all.len() >= KERNELS_OWN.len()).then_some(all)
}

fn mount(kind: Kind, document: MountDocument) -> Option<Mount> {
    let MountDocument { destination: at, source, options: asked, .. } = document;
    if !is_plain(at.strip_prefix("/").ok()?) {
        return None;
    }
    let (mut attributes, mut options) = (0, Vec::new());
    let (mut bind, mut private) = (false, false);
    for option in asked {
        match option.as_str() {
            "rw" => {}
            "ro" => attributes |= libc::MOUNT_ATTR_RDONLY,
            "nosuid" => attributes |= libc::MOUNT_ATTR_NOSUID,
            "nodev" => attributes |= libc::MOUNT_ATTR_NODEV,
            "noexec" => attributes |= libc::MOUNT_ATTR_NOEXEC,
            "strictatime" => attributes |= libc::MOUNT_ATTR_STRICTATIME,
            "bind" => bind = true,
            "rprivate" => private = true,
            "newinstance" if kind == Kind::Terminals => options.push((option, None)),
            told => {
                let (name, value) = told.split_once('=')?;
                let names: &[&str] = match kind {
                    Kind::Dev | Kind::Tmpfs => &["mode", "size", "nr_inodes", "uid", "gid"],
                    Kind::Terminals => &["ptmxmode", "mode", "gid"],
                    Kind::Proc | Kind::Sys | Kind::Cgroups | Kind::Queues | Kind::Bind => &[],
                };
                names.contains(&name).then(|| options.push((name.to_owned(), Some(value.to_owned()))))?;
            }
        }
    }
    let binds = kind == Kind::Bind;
    let understood = bind == binds && private == binds && (!binds || source.starts_with('/'));
    understood.then_some(Mount { kind, at, source, attributes, options })
}

/// Not empty, and nothing but names.
fn is_plain(path: &Path) -> bool {
    path.components().next().is_some() && path.components().all(|part| matches!(part, Component::Normal(_)))
}

fn kernels(path: &Path) -> Option<Kernels> {
    let relative = |own: &str| path.strip_prefix(own).ok().filter(|rest| is_plain(rest)).map(Path::to_owned);
    relative("/proc").map(Kernels::Proc).or_else(|| relative("/sys").map(Kernels::Sys))
}

/// A setting of a namespace that is the container's own; any other is the host's, and the runtime's to refuse.
fn sysctl((key, value): (String, String)) -> Option<Sysctl> {
    let own = key.starts_with("net.") || key.starts_with("fs.mqueue.") || IPC_SYSCTLS.contains(&key.as_str());
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let named = key.split('.').all(|part| !part.is_empty() && part.chars().all(plain));
    let path = Path::new("sys").join(key.replace('.', "/"));
    (own && named).then_some(Sysctl { path, value })
}

#[cfg(test)]
mod tests;
