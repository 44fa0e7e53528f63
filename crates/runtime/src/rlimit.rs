//! Per-process limits: Docker's names, clamped to what this host may grant. Raising a hard limit
//! above the caller's own needs CAP_SYS_RESOURCE in the host's user namespace; without the clamp
//! the runtime fails with EPERM instead of starting.

use model::Ulimit;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use crate::{Error, Result};

/// A limit as the OCI document wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE`.
    pub kind: &'static str,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

const KINDS: [(&str, &str, Resource); 15] = [
    ("core", "RLIMIT_CORE", Resource::RLIMIT_CORE),
    ("cpu", "RLIMIT_CPU", Resource::RLIMIT_CPU),
    ("data", "RLIMIT_DATA", Resource::RLIMIT_DATA),
    ("fsize", "RLIMIT_FSIZE", Resource::RLIMIT_FSIZE),
    ("locks", "RLIMIT_LOCKS", Resource::RLIMIT_LOCKS),
    ("memlock", "RLIMIT_MEMLOCK", Resource::RLIMIT_MEMLOCK),
    ("msgqueue", "RLIMIT_MSGQUEUE", Resource::RLIMIT_MSGQUEUE),
    ("nice", "RLIMIT_NICE", Resource::RLIMIT_NICE),
    ("nofile", "RLIMIT_NOFILE", Resource::RLIMIT_NOFILE),
    ("nproc", "RLIMIT_NPROC", Resource::RLIMIT_NPROC),
    ("rss", "RLIMIT_RSS", Resource::RLIMIT_RSS),
    ("rtprio", "RLIMIT_RTPRIO", Resource::RLIMIT_RTPRIO),
    ("rttime", "RLIMIT_RTTIME", Resource::RLIMIT_RTTIME),
    ("sigpending", "RLIMIT_SIGPENDING", Resource::RLIMIT_SIGPENDING),
    ("stack", "RLIMIT_STACK", Resource::RLIMIT_STACK),
];

/// The kernel's name of an OCI document's limit.
#[must_use]
pub fn resource(oci_name: &str) -> Option<Resource> {
    KINDS.iter().find(|(_, kind, _)| *kind == oci_name).map(|(_, _, resource)| *resource)
}

/// What is asked, never above the host's own hard limits; each clamp leaves a warning.
///
/// # Errors
/// An unknown name, or soft above hard.
pub fn clamp(asked: &[Ulimit], warnings: &mut Vec<String>) -> Result<Vec<Rlimit>> {
    asked.iter().map(|u| clamp_one(u, host_hard_limit, warnings)).collect()
}

fn clamp_one(asked: &Ulimit, host: impl Fn(Resource) -> u64, warnings: &mut Vec<String>) -> Result<Rlimit> {
    let Some((name, kind, resource)) = KINDS.iter().find(|(name, _, _)| *name == asked.name) else {
        return Err(Error::Invalid(format!("invalid ulimit type: {}", asked.name)));
    };
    let (soft, hard) = (limit_value(asked.soft), limit_value(asked.hard));
    if soft > hard {
        return Err(Error::Invalid(format!(
            "ulimit soft limit must be less than or equal to hard limit: {} > {} ({name})",
            asked.soft, asked.hard
        )));
    }
    let most = host(*resource);
    if hard > most {
        warnings.push(format!("ulimit {name} was lowered to the host's hard limit of {most}"));
    }
    Ok(Rlimit { kind, soft: soft.min(most), hard: hard.min(most) })
}

/// Any negative number means unlimited, as for setrlimit itself.
fn limit_value(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(RLIM_INFINITY)
}

fn host_hard_limit(resource: Resource) -> u64 {
    getrlimit(resource).map_or(RLIM_INFINITY, |(_, hard)| hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ulimit(name: &str, soft: i64, hard: i64) -> Ulimit {
        Ulimit { name: name.into(), soft, hard }
    }

    #[test]
    fn a_limit_above_the_hosts_is_lowered_and_told() {
        let mut warnings = Vec::new();
        let got = clamp_one(&ulimit("nofile", 1024, -1), |_| 20_000, &mut warnings).expect("is valid");
        assert_eq!(got, Rlimit { kind: "RLIMIT_NOFILE", soft: 1024, hard: 20_000 });
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn a_limit_within_the_hosts_passes_unchanged() {
        let mut warnings = Vec::new();
        let got = clamp_one(&ulimit("core", 0, 0), |_| RLIM_INFINITY, &mut warnings).expect("is valid");
        assert_eq!((got.soft, got.hard, warnings.len()), (0, 0, 0));
    }

    #[test]
    fn soft_above_hard_and_unknown_names_are_refused() {
        let mut w = Vec::new();
        assert!(clamp(&[ulimit("nofile", 10, 5)], &mut w).is_err());
        assert!(clamp(&[ulimit("nofile", -1, 5)], &mut w).is_err());
        assert!(clamp(&[ulimit("NOFILE", 1, 5)], &mut w).is_err());
    }
}
