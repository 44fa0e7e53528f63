//! Starts and execs without the OCI runtime: the shim forks, and its child becomes the container's.
//!
//! ```text
//! shim ── fork ──► stand-in            host's view: cgroups, limits; then all namespaces at once (exec),
//!                     │                 or the user namespace, and new ones inside it (start)
//!                     │ clone(PARENT)
//!                     └──────► process  a child of the shim's, in the container: its root and mounts
//!                                       (start), streams, keyring, filter, user, capabilities, directory;
//!                                       then the program
//! ```
//!
//! What is not known here exactly is not done here: there is then no [`Plan`], and the OCI runtime is used. A
//! container that was started here is unknown to the runtime, so only those are whose execs are made here
//! too. Nobody in the container can look into either process: they are not dumpable, their memory belongs
//! to the host's user namespace, they hold nothing but the streams and one socket when anything of the
//! container's runs, and their program is seen through a read-only mount (`runtime::sealed`).

mod configuration;
mod document;
mod enter;
mod found;
mod furnish;
mod join;
mod lookup;
mod mounts;
mod places;
mod report;
mod terminal;

use std::{
    fs,
    io::{self, ErrorKind},
    os::{
        fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use nix::{
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
    unistd::{ForkResult, fork},
};
use runtime::{
    SystemCalls, cgroup,
    protocol::{ExecBy, ShimConfig, StartBy},
    sealed,
};

use self::{configuration::Sandbox, document::Process, report::Told};

/// Capabilities that reach into other processes of the same user namespace.
const REACHING: [&str; 2] = ["CAP_SYS_PTRACE", "CAP_SYS_ADMIN"];

/// What the processes of this container have in common, found out at the first one.
#[derive(Default)]
pub(crate) struct Native {
    calls: Option<SystemCalls>,
}

/// A process that can be made here.
pub(crate) struct Plan {
    program: Program,
    way: Way,
}

/// What runs, and in which container.
struct Program {
    process: Process,
    calls: SystemCalls,
    container: String,
    /// Where the host has put the shim's own program for it to execute (`--init`).
    own_path: Option<String>,
}

enum Way {
    /// An exec.
    Beside(Beside),
    /// The container's first process.
    First(Box<Sandbox>),
}

struct Beside {
    doors: Vec<PathBuf>,
    /// Namespaces of the container's that are not ours, `CLONE_NEW*`.
    namespaces: i32,
    init: OwnedFd,
}

/// A process on its way.
pub(crate) struct Underway {
    /// PID of the stand-in.
    pub(crate) pid: u32,
    /// It waits until its PID has been noted, and the number of processes bounded.
    waits: Option<Box<Bounds>>,
    socket: OwnedFd,
    told: Told,
}

/// How many processes the container may have, and where.
struct Bounds {
    cgroup_path: String,
    limits: cgroup::Limits,
}

/// How a process began, or did not.
pub(crate) enum Outcome {
    /// It runs, or ran: its PID, and its terminal's master.
    Started(u32, Option<OwnedFd>),
    /// It could not be made, in words that follow "unable to start container process: ".
    Refused(String),
}

impl Native {
    /// How the container can be started; `None` leaves it to the runtime, for good.
    pub(crate) fn plan_start(&mut self, config: &ShimConfig) -> Option<Plan> {
        let own = config.runtime.start == StartBy::Shim && config.runtime.exec == ExecBy::Shim;
        if !own || config.runtime.name != "runc" || !sealed::is_sealed() || !is_private_after_setuid() {
            return None;
        }
        let document = runtime::configuration(Path::new(&config.bundle)).ok()?;
        let (sandbox, process, calls) = configuration::known(&document)?;
        let reaches = REACHING.iter().any(|name| process.may_ever_have(name));
        if reaches || sandbox.cgroup_path != config.cgroup_path || process.terminal != config.tty {
            return None;
        }
        self.calls = Some(calls.clone());
        let own_path = sandbox.puts_read_only(&process.args[0]).then(|| process.args[0].clone());
        let program = Program { process, calls, container: config.id.clone(), own_path };
        Some(Plan { program, way: Way::First(Box::new(sandbox)) })
    }

    /// How `document` can be run in the container whose first process is `init`; `None` leaves it to the
    /// runtime.
    pub(crate) fn plan_exec(&mut self, config: &ShimConfig, init: u32, document: &serde_json::Value) -> Option<Plan> {
        if config.runtime.name == "runsc" {
            // Its processes are in a kernel of its own; what is seen of them here is that kernel.
            return None;
        }
        let process = Process::known(document)?;
        if !sealed::is_sealed() || !is_private_after_setuid() || cgroup::is_frozen(&config.cgroup_path) {
            return None;
        }
        let calls = self
            .calls
            .get_or_insert_with(|| runtime::system_calls(Path::new(&config.bundle)).unwrap_or(SystemCalls::Elsewhere));
        if matches!(calls, SystemCalls::Elsewhere) {
            return None;
        }
        let namespaces = foreign_namespaces(init).ok()?;
        let own_users = namespaces & libc::CLONE_NEWUSER != 0;
        let reaches = REACHING.iter().any(|name| process.may_ever_have(name));
        let contained = namespaces & libc::CLONE_NEWPID != 0 && namespaces & libc::CLONE_NEWNS != 0;
        if !contained || (reaches && !own_users) {
            return None;
        }
        let doors = cgroup::doors(&config.cgroup_path);
        if doors.is_empty() {
            return None;
        }
        let init = pidfd(init).ok()?;
        let program = Program { process, calls: calls.clone(), container: config.id.clone(), own_path: None };
        Some(Plan { program, way: Way::Beside(Beside { doors, namespaces, init }) })
    }
}

impl Plan {
    /// Forks. `streams` are the process's; without a terminal they become its own.
    pub(crate) fn begin(self, streams: [OwnedFd; 3]) -> io::Result<Underway> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        crate::stdio::set_nonblocking(&ours)?;
        #[expect(unsafe_code, reason = "fork")]
        // SAFETY: the shim has one thread, so its child may do whatever the shim may.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => {
                let pid = u32::try_from(child.as_raw()).unwrap_or(0);
                let waits = match self.way {
                    Way::First(sandbox) => {
                        Some(Box::new(Bounds { cgroup_path: sandbox.cgroup_path, limits: sandbox.limits }))
                    }
                    Way::Beside(_) => None,
                };
                Ok(Underway { pid, waits, socket: ours, told: Told::default() })
            }
            ForkResult::Child => join::stand_in(&self, streams, theirs),
        }
    }
}

impl Underway {
    /// Takes what has been told; the outcome, once there is nobody left to tell more. A first process goes
    /// on once its PID is noted.
    pub(crate) fn take(&mut self, note: impl Fn(u32) -> io::Result<()>) -> Option<Outcome> {
        loop {
            match report::receive(&self.socket, &mut self.told) {
                Ok(true) => {
                    let Some((pid, bounds)) = self.told.pid.and_then(|pid| Some((pid, self.waits.take()?))) else {
                        continue;
                    };
                    let noted = || note(pid).map_err(|e| format!("note its PID: {}", runtime::words(&e)));
                    match bounds.apply().and_then(|()| noted()) {
                        Ok(()) => report::go(&self.socket),
                        // It ends when the socket does.
                        Err(why) => return Some(Outcome::Refused(why)),
                    }
                }
                Ok(false) => return Some(std::mem::take(&mut self.told).outcome()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return None,
                // It ended without having read that it was noted; what it said before is still there.
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionReset) => {}
                Err(e) => return Some(Outcome::Refused(format!("hear of the new process: {e}"))),
            }
        }
    }

    /// PIDs to kill if it takes too long.
    pub(crate) fn pids(&self) -> impl Iterator<Item = u32> {
        [Some(self.pid), self.told.pid].into_iter().flatten()
    }
}

impl Bounds {
    fn apply(&self) -> Result<(), String> {
        let applied = self.limits.apply_processes(&self.cgroup_path);
        applied.map_err(|e| format!("unable to apply cgroup configuration: {e}"))
    }
}

impl AsFd for Underway {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A process that changes its user is not dumpable unless the administrator wants core files of such.
fn is_private_after_setuid() -> bool {
    fs::read_to_string("/proc/sys/fs/suid_dumpable").is_ok_and(|value| value.trim() != "1")
}

/// The kinds of namespaces in which `pid` is elsewhere than we are.
fn foreign_namespaces(pid: u32) -> io::Result<i32> {
    let kinds = [
        ("user", libc::CLONE_NEWUSER),
        ("mnt", libc::CLONE_NEWNS),
        ("uts", libc::CLONE_NEWUTS),
        ("ipc", libc::CLONE_NEWIPC),
        ("net", libc::CLONE_NEWNET),
        ("pid", libc::CLONE_NEWPID),
        ("cgroup", libc::CLONE_NEWCGROUP),
        ("time", libc::CLONE_NEWTIME),
    ];
    let mut foreign = 0;
    for (name, flag) in kinds {
        let theirs = match fs::metadata(format!("/proc/{pid}/ns/{name}")) {
            // A kernel without this kind.
            Err(e) if e.kind() == ErrorKind::NotFound && name == "time" => continue,
            found => found?.ino(),
        };
        if theirs != fs::metadata(format!("/proc/self/ns/{name}"))?.ino() {
            foreign |= flag;
        }
    }
    Ok(foreign)
}

/// `pid` is a child of ours that has not been waited for: it is nobody else's number.
fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "pidfd_open has no safe wrapper here")]
    // SAFETY: a system call on two numbers.
    let got = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(got).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    #[expect(unsafe_code, reason = "a new descriptor arrives as a number")]
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
