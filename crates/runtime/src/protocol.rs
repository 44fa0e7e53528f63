//! What the node-agent and a container's shim say to each other, and the files the shim leaves.
//!
//! The socket: the client writes one JSON [`Request`] per line; the shim answers each with one JSON
//! [`Reply`] line. A connection carries any number of requests until one turns it into a stream:
//!
//! * `Subscribe` → `Reply::Done`, then [`Event`] lines for ever. The present is replayed first
//!   (`Started` if it runs, `Oom` if the OOM killer was at it, `Exited` if it has ended), so nothing
//!   falls between asking and hearing.
//! * `Attach` → `Reply::Done`, then the attach stream.
//! * `Exec` (not detached) → `Reply::ExecStarted`, then the exec's stream. After `Reply::Failed` the
//!   connection is still a request connection.
//!
//! A stream is byte for byte what `contract::agent` promises, so the agent only copies:
//! downstream raw for a terminal, otherwise Docker frames (8 bytes header, see [`frame_header`]);
//! upstream raw stdin, where `shutdown(SHUT_WR)` is end of file for stdin. The shim ends the
//! downstream when the process has ended, its output is through, and its record is on disk: after
//! end of file, [`ExecRecord`]/[`ExitRecord`] can be read at once. Closing the connection detaches
//! and touches nothing. A client that takes nothing for ten seconds while its buffer is full is cut.
//!
//! The first bytes of a stream may arrive with the reply line: read the line with
//! [`take_line`] and treat what is left in the buffer as the stream's beginning.
//!
//! Order for `docker run`: spawn the shim, `Attach` (any number), `Subscribe`, `Start`. Output from
//! the first byte on goes to every client attached before the start.

use serde::{Deserialize, Serialize};

/// Longest request line the shim accepts.
pub const MAX_REQUEST_BYTES: usize = 1 << 20;
/// What an attached client may lag behind before the container's output is held back.
pub const ATTACH_BUFFER_BYTES: usize = 1 << 20;
/// How long output is held back for a client with a full buffer before that client is cut.
pub const SLOW_CLIENT_MS: u64 = 10_000;
/// How long a shim whose run has ended waits for a `Bye` while nobody is connected.
pub const LINGER_MS: u64 = 10_000;
/// How long a shim that was never started waits while nobody is connected.
pub const UNSTARTED_LINGER_MS: u64 = 60_000;

/// `shim.json`: everything a shim needs. Paths inside the run directory are fixed by [`crate::RunDir`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimConfig {
    /// Container id, which is also its name at the OCI runtime.
    pub id: String,
    /// The run this shim is for; comes back in the exit record.
    pub run: u32,
    /// The host's restart count within the run; comes back in the exit record.
    #[serde(default)]
    pub restart: u32,
    /// Directory with `config.json`.
    pub bundle: String,
    /// The OCI runtime.
    pub runtime: RuntimeConfig,
    /// Where output is logged; `None` for the log driver `none`.
    #[serde(default)]
    pub log: Option<LogTarget>,
    /// The process has a terminal (must agree with the bundle).
    pub tty: bool,
    /// Keep a stdin for it; without, stdin is `/dev/null`.
    pub open_stdin: bool,
    /// Close stdin when the first client that has it half-closes or leaves.
    pub stdin_once: bool,
    /// The cgroup path of the bundle: `/wharfage/<id>`.
    pub cgroup_path: String,
    /// Rows and columns of the terminal at start.
    #[serde(default)]
    pub console_size: Option<(u16, u16)>,
    /// What root of the container is on this host, if it is not root: the owner of its pipes, so that
    /// `/dev/stdout` can be opened.
    #[serde(default)]
    pub root_id: Option<u32>,
    /// Make and keep a listening socket at [`crate::RunDir::docker_socket`], for the agents that come and go.
    #[serde(default)]
    pub docker_socket: bool,
}

/// Which OCI runtime, and where it keeps its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeConfig {
    /// Name, as [`crate::by_name`] knows it.
    pub name: String,
    /// The program.
    pub path: String,
    /// State directory (`--root`).
    pub root: String,
    /// Who makes further processes.
    #[serde(default)]
    pub exec: ExecBy,
    /// Who makes the first process.
    #[serde(default)]
    pub start: StartBy,
}

/// Who makes the first process of a container, and everything it stands in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartBy {
    /// The OCI runtime's `run`.
    #[default]
    Runtime,
    /// The shim itself, if execs are its too; the OCI runtime where the shim cannot.
    Shim,
}

/// Who makes the further processes of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecBy {
    /// The OCI runtime's `exec`.
    #[default]
    Runtime,
    /// The shim itself, and the OCI runtime where the shim cannot.
    Shim,
}

/// A json-file log and its bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTarget {
    /// Current file; older ones are `<path>.1`, `.2`, …
    pub path: String,
    /// Rotate at this size; 0 never.
    pub max_size_bytes: u64,
    /// Files kept, the current one included.
    pub max_files: u32,
}

/// What an agent may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Start the container. Answered by `Started`, or `Failed` with an exit code (an exit record
    /// has then been written too). A second start is answered like the first.
    Start {
        /// Terminal size, over the configured one.
        #[serde(default)]
        console_size: Option<(u16, u16)>,
    },
    /// How it is. Answered by `State`.
    State,
    /// Signal PID 1. `Failed{NotRunning}` if there is none.
    Signal {
        /// Number, 1 to 64.
        signal: i32,
    },
    /// SIGKILL to everything in the container's cgroup.
    KillAll,
    /// Set the terminal's size. Remembered when asked before the start.
    Resize {
        /// Rows.
        height: u16,
        /// Columns.
        width: u16,
    },
    /// Become an attach stream.
    Attach {
        /// Forward stdin.
        stdin: bool,
        /// Send stdout (and all of a terminal).
        stdout: bool,
        /// Send stderr.
        stderr: bool,
    },
    /// Become a stream of [`Event`] lines.
    Subscribe,
    /// Run a further process.
    Exec(ExecRequest),
    /// Set the size of an exec's terminal.
    ExecResize {
        /// The exec.
        id: String,
        /// Rows.
        height: u16,
        /// Columns.
        width: u16,
    },
    /// What became of an exec of this run. Answered by `ExecState`, or `Failed{NotFound}`.
    ExecState {
        /// The exec.
        id: String,
    },
    /// Hand over the listening socket of `/var/run/docker.sock`, along with `Done`; the shim keeps it too.
    /// `Failed{NotFound}` if the container has none.
    DockerSocket,
    /// The exit record has been taken over: the shim may go. `Failed{Conflict}` while it runs.
    Bye,
}

/// A further process in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Exec id; names its record, so only letters and digits.
    pub id: String,
    /// OCI process document, from [`crate::exec_process`].
    pub process: serde_json::Value,
    /// Connect this connection to its stdin.
    pub stdin: bool,
    /// Send its stdout.
    pub stdout: bool,
    /// Send its stderr.
    pub stderr: bool,
    /// Answer once it has started and keep no stream.
    #[serde(default)]
    pub detach: bool,
    /// It has a terminal (must agree with the process document).
    pub tty: bool,
    /// Rows and columns at start.
    #[serde(default)]
    pub console_size: Option<(u16, u16)>,
    /// It lives no longer than this connection: when that ends first, everything in its process group
    /// is killed. Its only record is that of an end that was waited for; the reader deletes it.
    #[serde(default)]
    pub lifeline: bool,
}

/// The shim's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// Done; a stream follows where one was asked for.
    Done,
    /// PID 1 runs (or did: a short one may have ended already).
    Started {
        /// Its PID on the host.
        pid: u32,
        /// When, nanoseconds since 1970.
        started_at_ns: i64,
    },
    /// To `State`.
    State(ShimState),
    /// The exec runs.
    ExecStarted {
        /// Its PID on the host.
        pid: u32,
    },
    /// To `ExecState`.
    ExecState(ExecRecord),
    /// It was not done.
    Failed {
        /// What kind of failure.
        failure: Failure,
        /// dockerd's words where dockerd has some.
        message: String,
        /// For a start or exec that the runtime refused: 126, 127 or 128.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
    },
}

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The container does not run (409).
    NotRunning,
    /// No such exec (404).
    NotFound,
    /// Not now: it still runs, or the exec id is taken (409).
    Conflict,
    /// The request is not understood (400).
    Invalid,
    /// The runtime refused to start the process.
    Runtime,
    /// The shim or host failed (500).
    Internal,
}

/// How the container is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimState {
    /// Container id.
    pub id: String,
    /// Run number.
    pub run: u32,
    /// Restart count.
    #[serde(default)]
    pub restart: u32,
    /// Stage.
    pub stage: Stage,
    /// PID of the first process while it runs.
    #[serde(default)]
    pub pid: Option<u32>,
    /// When it started.
    #[serde(default)]
    pub started_at_ns: Option<i64>,
    /// How it ended.
    #[serde(default)]
    pub exit: Option<ExitRecord>,
    /// Log lines lost to a full disk.
    #[serde(default)]
    pub log_lines_dropped: u64,
}

/// Stage of a shim's only run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Waiting for `Start`.
    Created,
    /// The runtime is at it.
    Starting,
    /// PID 1 runs.
    Running,
    /// PID 1 has ended; its record is written or about to be.
    Exited,
}

/// `exit.json`: how the run ended. Durable (fsync, rename) before anyone is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The run.
    pub run: u32,
    /// The restart within it.
    #[serde(default)]
    pub restart: u32,
    /// Exit status, or 128 + signal, or 126/127/128 if it could not be started.
    pub exit_code: i32,
    /// The kernel's OOM killer was at it.
    pub oom_killed: bool,
    /// Why it could not be started; empty if it was.
    #[serde(default)]
    pub error: String,
    /// PID it had.
    #[serde(default)]
    pub pid: Option<u32>,
    /// When it started, nanoseconds since 1970; `None` if it did not.
    #[serde(default)]
    pub started_at_ns: Option<i64>,
    /// When it ended.
    pub finished_at_ns: i64,
}

/// `execs/<id>.json`: what became of an exec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRecord {
    /// The exec.
    pub id: String,
    /// The container's run it belongs to.
    pub run: u32,
    /// It runs (if its shim lives).
    pub running: bool,
    /// PID on the host.
    #[serde(default)]
    pub pid: Option<u32>,
    /// Exit status once it ended.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// Why it could not be started; empty if it was.
    #[serde(default)]
    pub error: String,
    /// When it ended, nanoseconds since 1970.
    #[serde(default)]
    pub finished_at_ns: Option<i64>,
}

/// A line of a `Subscribe` stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// PID 1 runs.
    Started {
        /// PID on the host.
        pid: u32,
        /// When.
        started_at_ns: i64,
    },
    /// The run has ended; the record is on disk.
    Exited(ExitRecord),
    /// An exec has ended; its record is on disk.
    ExecExited(ExecRecord),
    /// The OOM killer killed something in the container.
    Oom {
        /// How often it has, in this run.
        #[serde(default)]
        kills: u32,
    },
}

/// Stream numbers in a frame header.
pub const STDIN: u8 = 0;
/// See [`STDIN`].
pub const STDOUT: u8 = 1;
/// See [`STDIN`].
pub const STDERR: u8 = 2;

/// Docker's frame header: stream, three zeroes, big-endian payload length.
#[must_use]
pub fn frame_header(stream: u8, len: u32) -> [u8; 8] {
    let [a, b, c, d] = len.to_be_bytes();
    [stream, 0, 0, 0, a, b, c, d]
}

/// Stream and payload length of a frame header; `None` if it is not one.
#[must_use]
pub fn parse_frame_header(header: [u8; 8]) -> Option<(u8, u32)> {
    let [stream, 0, 0, 0, a, b, c, d] = header else { return None };
    (stream <= STDERR).then_some((stream, u32::from_be_bytes([a, b, c, d])))
}

/// One document as a line, with its newline.
///
/// # Errors
/// Only if the document cannot be JSON, which ours can.
pub fn encode_line<T: Serialize>(document: &T) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(document)?;
    line.push(b'\n');
    Ok(line)
}

/// Takes the first whole line out of `buffer` and decodes it; `None` until there is one. Works on
/// bytes read by anyone, so the sync shim and the async agent share it.
///
/// # Errors
/// The line is not a `T`.
pub fn take_line<T: serde::de::DeserializeOwned>(buffer: &mut Vec<u8>) -> serde_json::Result<Option<T>> {
    let Some(end) = buffer.iter().position(|b| *b == b'\n') else { return Ok(None) };
    let document = serde_json::from_slice(&buffer[..end]);
    buffer.drain(..=end);
    document.map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_once_and_the_rest_stays() {
        let mut buffer = encode_line(&Request::State).expect("is JSON");
        buffer.extend_from_slice(b"stream");
        assert_eq!(take_line::<Request>(&mut buffer).expect("decodes"), Some(Request::State));
        assert_eq!(buffer, b"stream");
        assert_eq!(take_line::<Request>(&mut buffer).expect("no line yet"), None);
    }

    #[test]
    fn a_frame_header_reads_back() {
        assert_eq!(parse_frame_header(frame_header(STDERR, 0x0102_0304)), Some((STDERR, 0x0102_0304)));
        assert_eq!(parse_frame_header(*b"HTTP/1.1"), None);
    }

    #[test]
    fn an_unknown_request_is_an_error_not_a_default() {
        let mut buffer = b"{\"op\":\"reboot\"}\n".to_vec();
        assert!(take_line::<Request>(&mut buffer).is_err());
    }
}
