//! From a child of the agent to nobody's child: everything that can fail is done first, so that the
//! agent hears of it; then a fork, a session of its own, and no descriptor of the agent's left.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::OpenOptionsExt as _, net::UnixListener, process::CommandExt as _},
    },
    path::PathBuf,
    process::Command,
};

use nix::{
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
        socket::{Backlog, listen},
        stat::{Mode, umask},
    },
    unistd::{self, ForkResult},
};
use runtime::{OciRuntime, RunDir, by_name, protocol::ShimConfig};

/// What the loop starts from.
pub(crate) struct Prepared {
    pub(crate) dir: RunDir,
    pub(crate) config: ShimConfig,
    pub(crate) runtime: Box<dyn OciRuntime>,
    pub(crate) listener: UnixListener,
    /// The container's own `/var/run/docker.sock`.
    pub(crate) docker_socket: Option<UnixListener>,
    /// The run directory, for socket paths that would be too long otherwise.
    pub(crate) dir_fd: OwnedFd,
}

/// Which side of the fork.
pub(crate) enum Side {
    Parent,
    Child,
}

/// Reads the configuration and binds the socket.
pub(crate) fn prepare(dir: PathBuf) -> io::Result<Prepared> {
    close_inherited();
    umask(Mode::from_bits_truncate(0o077));
    let dir = RunDir::new(dir);
    let config: ShimConfig = serde_json::from_slice(&std::fs::read(dir.config())?)?;
    let (program, root) = (config.runtime.path.as_ref(), config.runtime.root.as_ref());
    let unknown = || io::Error::new(io::ErrorKind::InvalidInput, "unknown OCI runtime");
    let runtime = by_name(&config.runtime.name, program, root).ok_or_else(unknown)?;
    if dir.connect().is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "a shim lives here already"));
    }
    std::fs::create_dir_all(dir.execs())?;
    let dir_fd = File::open(dir.path())?.into();
    let listener = dir.bind()?;
    listener.set_nonblocking(true)?;
    let docker_socket = config.docker_socket.then(|| dir.bind_docker_socket(config.root_id)).transpose()?;
    Ok(Prepared { dir, config, runtime, listener, docker_socket, dir_fd })
}

/// Nothing of the agent's but the standard streams is inherited (CVE-2024-21626 began so).
fn close_inherited() {
    #[expect(unsafe_code, reason = "close_range has no safe wrapper")]
    // SAFETY: the process has just begun; no descriptor above 2 is in use by anything of ours.
    unsafe {
        libc::close_range(3, libc::c_uint::MAX, 0);
    }
}

/// Forks; the child is in its own session. There is one thread, so the child may do anything.
pub(crate) fn fork_away() -> io::Result<Side> {
    #[expect(unsafe_code, reason = "fork")]
    // SAFETY: the process has a single thread.
    match unsafe { unistd::fork() }? {
        ForkResult::Parent { .. } => Ok(Side::Parent),
        ForkResult::Child => {
            unistd::setsid()?;
            unistd::chdir("/")?;
            Ok(Side::Child)
        }
    }
}

/// Standard streams away from the agent's: nothing in, nothing out, complaints to `shim.log`.
pub(crate) fn redirect_streams(dir: &RunDir) -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(dir.shim_log());
    unistd::dup2_stdin(null.as_fd())?;
    unistd::dup2_stdout(null.as_fd())?;
    unistd::dup2_stderr(log.as_ref().unwrap_or(&null).as_fd())?;
    Ok(())
}

/// Orphans of the runtime become our children, and signals arrive as reads. They are blocked, not
/// ignored; children are started with an empty mask ([`unblock_signals`]), so the container sees neither.
pub(crate) fn own_children() -> io::Result<SignalFd> {
    prctl::set_child_subreaper(true)?;
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGTSTP,
    ] {
        set.add(signal);
    }
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

/// Lets `command`'s process begin with no signal blocked: a mask outlives exec.
pub(crate) fn unblock_signals(command: &mut Command) {
    let reset = || Ok(SigSet::empty().thread_set_mask()?);
    #[expect(unsafe_code, reason = "pre_exec")]
    // SAFETY: between fork and exec it makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(reset);
    }
}

/// Gives `command`'s process the usual mask: the cgroups a runtime makes must be open to the
/// container's root, who is not the host's.
pub(crate) fn usual_umask(command: &mut Command) {
    let reset = || {
        umask(Mode::from_bits_truncate(0o022));
        Ok(())
    };
    #[expect(unsafe_code, reason = "pre_exec")]
    // SAFETY: between fork and exec it makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(reset);
    }
}

/// The listening socket's peer credentials become this process's, not those of the parent that bound it.
pub(crate) fn claim(listener: &UnixListener) -> io::Result<()> {
    Ok(listen(listener, Backlog::MAXCONN)?)
}
