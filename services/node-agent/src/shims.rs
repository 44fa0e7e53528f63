//! Talking to shims: spawning one, finding one again, and the typed socket. The protocol is
//! `runtime::protocol`; one connection serves requests until one of them makes it a stream.

use std::{
    io::{self, IoSliceMut, Write as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, RawFd},
        unix::net::UnixListener,
    },
    path::Path,
    process::Stdio,
    time::Duration,
};

use model::Error;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use runtime::{
    RunDir,
    protocol::{Event, Failure, MAX_REQUEST_BYTES, Reply, Request, ShimConfig, encode_line, take_line},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    process::Command,
};

/// A shim answers at once, but for the runtime's own time in a start or exec.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How long a runtime may take to start a process.
const START_TIME: Duration = Duration::from_secs(120);
/// How long a shim may take to be ready.
const SPAWN_TIME: Duration = Duration::from_secs(20);
/// Longest line a shim sends.
const MAX_REPLY_BYTES: usize = MAX_REQUEST_BYTES;

/// Starts a shim for a run. Returns when it can be connected to.
///
/// # Errors
/// It cannot be started, in words.
pub(crate) async fn spawn(run_dir: &RunDir, config: &ShimConfig, program: &Path) -> io::Result<()> {
    match std::fs::remove_file(run_dir.exit_record()) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    run_dir.write_config(config)?;
    let mut command = Command::from(run_dir.shim_command(program));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| io::Error::other(format!("start {}: {e}", program.display())))?;
    let late = || io::Error::new(io::ErrorKind::TimedOut, "the shim was not ready in time");
    let status = tokio::time::timeout(SPAWN_TIME, child.wait()).await.map_err(|_| late())??;
    if status.success() {
        return Ok(());
    }
    let mut told = String::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(4096).read_to_string(&mut told).await?;
    }
    Err(io::Error::other(format!("the shim ended with {status}: {}", told.trim())))
}

/// A connection to a shim.
#[derive(Debug)]
pub(crate) struct Shim {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Shim {
    /// Connects; `NotFound` or `ConnectionRefused` mean that no shim lives.
    pub(crate) fn connect(run_dir: &RunDir) -> io::Result<Self> {
        let stream = run_dir.connect()?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream: UnixStream::from_std(stream)?, buffer: Vec::new() })
    }

    /// Asks and waits for the answer.
    pub(crate) async fn ask(&mut self, request: &Request) -> io::Result<Reply> {
        let patience = match request {
            Request::Start { .. } | Request::Exec(_) => START_TIME,
            Request::State
            | Request::Signal { .. }
            | Request::KillAll
            | Request::Resize { .. }
            | Request::Attach { .. }
            | Request::Subscribe
            | Request::ExecResize { .. }
            | Request::ExecState { .. }
            | Request::DockerSocket
            | Request::Bye => ANSWER_TIME,
        };
        let talk = async {
            self.stream.write_all(&encode_line(request)?).await?;
            self.line().await?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
        };
        let late = || io::Error::new(io::ErrorKind::TimedOut, "the shim did not answer in time");
        tokio::time::timeout(patience, talk).await.map_err(|_| late())?
    }

    /// The next event of a subscription; `None` when the shim is gone.
    pub(crate) async fn event(&mut self) -> Option<Event> {
        self.line().await.ok().flatten()
    }

    /// What is left is a stream; the bytes are its beginning.
    pub(crate) fn into_stream(self) -> (Vec<u8>, UnixStream) {
        (self.buffer, self.stream)
    }

    async fn line<T: serde::de::DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            if let Some(document) = take_line(&mut self.buffer)? {
                return Ok(Some(document));
            }
            if self.buffer.len() > MAX_REPLY_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the shim sent an endless line"));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

/// The listening socket that a shim keeps for its container's `/var/run/docker.sock`. Blocks.
///
/// # Errors
/// There is no shim, or it keeps none.
pub(crate) fn docker_socket(run_dir: &RunDir) -> io::Result<UnixListener> {
    let mut shim = run_dir.connect()?;
    shim.set_read_timeout(Some(ANSWER_TIME))?;
    shim.write_all(&encode_line(&Request::DockerSocket)?)?;
    let mut line = [0; 4096];
    let (mut parts, mut space) = ([IoSliceMut::new(&mut line)], nix::cmsg_space!([RawFd; 1]));
    let message = recvmsg::<()>(shim.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control
            && let Some(descriptor) = descriptors.first()
        {
            #[expect(unsafe_code, reason = "descriptors arrive as numbers")]
            // SAFETY: the kernel has just installed it for us, there is room for one, and nobody else knows it.
            return Ok(unsafe { UnixListener::from_raw_fd(*descriptor) });
        }
    }
    let length = message.bytes;
    Err(io::Error::other(format!("its shim sent no socket: {}", String::from_utf8_lossy(&line[..length]).trim())))
}

/// Connects, asks one thing that is answered with `Done`, and hangs up.
///
/// # Errors
/// As the API tells them: no shim is "not running".
pub(crate) async fn tell(run_dir: &RunDir, request: &Request) -> model::Result<()> {
    let mut shim = connect(run_dir)?;
    match shim.ask(request).await.map_err(broken)? {
        Reply::Failed { failure, message, .. } => Err(refused(failure, message)),
        Reply::Done | Reply::Started { .. } | Reply::State(_) | Reply::ExecStarted { .. } | Reply::ExecState(_) => {
            Ok(())
        }
    }
}

/// Connects for a caller of the API.
pub(crate) fn connect(run_dir: &RunDir) -> model::Result<Shim> {
    Shim::connect(run_dir).map_err(|e| {
        if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
            Error::Conflict("the container is not running".to_owned())
        } else {
            broken(e)
        }
    })
}

/// A shim that went away in the middle.
pub(crate) fn broken(e: io::Error) -> Error {
    Error::Unavailable(format!("the container's shim: {e}"))
}

/// A shim's refusal as an error of the API.
pub(crate) fn refused(failure: Failure, message: String) -> Error {
    match failure {
        Failure::NotRunning | Failure::Conflict => Error::Conflict(message),
        Failure::NotFound => Error::NotFound(message),
        Failure::Invalid => Error::InvalidArgument(message),
        Failure::Runtime => Error::Failed(message),
        Failure::Internal => Error::Internal(message),
    }
}
