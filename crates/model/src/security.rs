//! Security choices a tenant may make, and the sets they choose from. Anything outside them is
//! refused at the gateway by name; the host builds the OCI spec from these values only.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Error;

/// A Linux capability, without the `CAP_` prefix, upper case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct Capability(String);

/// What every container starts with: Docker's fourteen.
pub const DEFAULT_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// What `--cap-add` may grant without a host user namespace: the default set and nothing beyond.
pub const GRANTABLE_CAPABILITIES: [&str; 14] = DEFAULT_CAPABILITIES;

/// Kernel files no container sees: moby's list. Hosts add what tells one tenant about others.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Kernel files no container writes: moby's list.
pub const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Places the runtime itself mounts; nothing of a tenant's goes over or under them.
const RUNTIMES_OWN: [&str; 4] = ["/proc", "/sys", "/dev/pts", "/dev/mqueue"];

/// Which of the runtime's own places a plain absolute path is, or is below. Of `/dev` it is the whole
/// alone: files and directories in it may be the tenant's.
#[must_use]
pub fn runtimes_own(path: &str) -> Option<&'static str> {
    let under = |own: &str| path.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    RUNTIMES_OWN.into_iter().find(|own| under(own)).or_else(|| (path == "/dev").then_some("/dev"))
}

impl Capability {
    /// The bare name: `NET_RAW`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Capability {
    type Error = Error;
    fn try_from(s: String) -> Result<Self, Error> {
        let upper = s.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if !bare.is_empty() && bare.len() <= 32 && bare.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') {
            Ok(Self(bare.to_owned()))
        } else {
            Err(Error::invalid("capability", "is not a capability name"))
        }
    }
}

impl FromStr for Capability {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self, Error> {
        Self::try_from(s.to_owned())
    }
}

impl From<Capability> for String {
    fn from(c: Capability) -> String {
        c.0
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The security part of a container's spec. The default is Docker's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct SecuritySpec {
    /// Added to the default set; each one of [`GRANTABLE_CAPABILITIES`] (or `ALL`, meaning all of those).
    pub cap_add: Vec<Capability>,
    /// Taken from the default set; `ALL` drops every one.
    pub cap_drop: Vec<Capability>,
    /// No process may gain privileges through execve.
    pub no_new_privileges: bool,
    /// The root file system is read-only.
    pub readonly_rootfs: bool,
    /// Supplementary groups, by name or number inside the image.
    pub group_add: Vec<String>,
}
