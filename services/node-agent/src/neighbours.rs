//! Who runs on this host, for containers that live in another one's namespaces: how far that one is,
//! and the namespace of its first process, pinned so that no number of a process is trusted twice. As
//! with dockerd, whoever joined stays in the namespace it joined; a later run of the other one has its
//! own. When the other one ends, a network loses its links and has `lo` left, and everybody among its
//! processes ends with it: the kernel sees to that.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use model::{ContainerId, Observed, Phase};
use nix::mount::{MsFlags, mount};
use rustix::fs::{CWD, Mode, OFlags, openat};
use tokio::sync::watch;

use crate::{rootfs, tree::is_in_cgroup};

/// How long a start waits for the other container, where that one is on its way.
const PATIENCE: Duration = Duration::from_secs(20);

/// See the module's text.
#[derive(Default)]
pub(crate) struct Neighbours {
    known: Mutex<BTreeMap<ContainerId, watch::Receiver<Observed>>>,
    /// Who is in whose network namespace.
    joined: Mutex<BTreeMap<ContainerId, ContainerId>>,
}

impl Neighbours {
    /// A container is looked after from now on.
    pub(crate) fn arrived(&self, id: &ContainerId, observed: watch::Receiver<Observed>) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), observed);
    }

    /// Nothing is left of it.
    pub(crate) fn gone(&self, id: &ContainerId) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        self.left(id);
    }

    /// `who` is in the network namespace of `of`.
    pub(crate) fn joined(&self, who: &ContainerId, of: &ContainerId) {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner).insert(who.clone(), of.clone());
    }

    /// The run of `who` is over.
    pub(crate) fn left(&self, who: &ContainerId) {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner).remove(who);
    }

    /// Whether somebody else is in the network namespace of this one.
    pub(crate) fn is_joined(&self, id: &ContainerId) -> bool {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner).values().any(|of| of == id)
    }

    /// The first process of a container that runs. One that is being started is waited for; so is any
    /// after a restart of the machine, which starts all of them at once.
    ///
    /// # Errors
    /// It does not run, in dockerd's words.
    pub(crate) async fn running(&self, id: &ContainerId, shares: Shares, rebooted: bool) -> Result<u32, String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        let mut observed = known.ok_or_else(|| shares.refused(&format!("No such container: {id}")))?;
        let runs = |now: &Observed| now.progress.phase == Phase::Running && now.pid.is_some();
        let is_decided = |now: &Observed| {
            let is_coming = now.progress.run > 0 && now.progress.phase < Phase::Running;
            runs(now) || !(is_coming || rebooted)
        };
        let _ = tokio::time::timeout(PATIENCE, observed.wait_for(is_decided)).await;
        let now = observed.borrow();
        now.pid.filter(|_| runs(&now)).ok_or_else(|| match shares {
            Shares::Network => {
                let short = id.short();
                format!("cannot join network namespace of a non running container: container {short} does not run")
            }
            Shares::Processes | Shares::Ipc => shares.refused(&format!("container {id} is not running")),
        })
    }
}

/// Which namespace of another container is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shares {
    Network,
    Processes,
    Ipc,
}

impl Shares {
    /// As `/proc/<pid>/ns` has it.
    fn file(self) -> &'static str {
        match self {
            Self::Network => "ns/net",
            Self::Processes => "ns/pid",
            Self::Ipc => "ns/ipc",
        }
    }

    /// Why it cannot be had, in dockerd's frame.
    pub(crate) fn refused(self, why: &str) -> String {
        match self {
            Self::Network => format!("joining network namespace of container: {why}"),
            Self::Processes => format!("failed to join PID namespace: {why}"),
            Self::Ipc => format!("failed to join IPC namespace: {why}"),
        }
    }
}

/// Pins a namespace of the process `pid` of the cgroup on `pin`, a file that is made.
///
/// # Errors
/// There is no such process any more.
pub(crate) fn pin_namespace(shares: Shares, pid: u32, cgroup_path: &str, pin: &Path) -> io::Result<()> {
    // Bound to the process: its number may be anybody's by now, whose cgroup is another then.
    let process =
        openat(CWD, format!("/proc/{pid}"), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let namespace = File::from(openat(&process, shares.file(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
    if !is_in_cgroup(&process, cgroup_path)? {
        return Err(io::ErrorKind::NotFound.into());
    }
    rootfs::unmount(pin)?;
    match std::fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o400).open(pin)?;
    let source = format!("/proc/self/fd/{}", namespace.as_raw_fd());
    Ok(mount(Some(source.as_str()), pin, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
}

#[cfg(test)]
mod tests {
    use model::Progress;

    use super::*;

    fn id(n: u8) -> ContainerId {
        ContainerId::from_bytes([n; 32])
    }

    fn at(run: u32, phase: Phase, pid: Option<u32>) -> Observed {
        Observed { pid, ..Observed::at(Progress { run, restart: 0, phase }) }
    }

    #[tokio::test]
    async fn one_that_is_on_its_way_is_waited_for_and_one_that_is_not_is_named() {
        let all = Neighbours::default();
        let nobody = all.running(&id(1), Shares::Network, false).await.expect_err("nobody");
        assert_eq!(nobody, format!("joining network namespace of container: No such container: {}", id(1)));
        let (tell, observed) = watch::channel(at(1, Phase::Starting, None));
        all.arrived(&id(1), observed);
        let one = id(1);
        let (pid, ()) = tokio::join!(all.running(&one, Shares::Network, false), async {
            tokio::task::yield_now().await;
            tell.send_replace(at(1, Phase::Running, Some(7)));
        });
        assert_eq!(pid, Ok(7));
        tell.send_replace(at(1, Phase::Exited, None));
        let why = all.running(&id(1), Shares::Network, false).await.expect_err("it ended");
        assert!(why.starts_with("cannot join network namespace of a non running container: "), "{why}");
        all.gone(&id(1));
        assert!(all.running(&id(1), Shares::Network, false).await.is_err());
    }

    #[test]
    fn a_namespace_is_shared_while_a_run_is_in_it() {
        let all = Neighbours::default();
        all.joined(&id(2), &id(1));
        assert!(all.is_joined(&id(1)) && !all.is_joined(&id(2)));
        all.left(&id(2));
        assert!(!all.is_joined(&id(1)));
    }
}
