//! Gateway to node-agent: what must reach a running container at once and is not state. Every
//! request names container ids the gateway has already resolved and authorized in the caller's
//! project. Only the certificate of the gateway opens this API.
//!
//! Streams: `Connection: Upgrade`, `Upgrade: wharfage-stream`, answered with 101. Downstream bytes
//! are exactly what the Docker client shall see: raw for a terminal, otherwise frames of 8 bytes
//! header (stream, 0, 0, 0, big-endian length) and payload. Upstream bytes are raw stdin; the end
//! of that direction (half-close) is end of file for stdin while output goes on.

use std::collections::BTreeMap;

use model::{ContainerId, ExecId, ProjectId, Resources, VolumeId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Base path: `/containers/v1/{id}`.
pub const CONTAINERS: &str = "/containers/v1";
/// Base path: `/execs/v1/{id}`.
pub const EXECS: &str = "/execs/v1";
/// `POST` [`VolumeUsageRequest`], answer [`VolumeUsage`].
pub const VOLUME_USAGE: &str = "/volumes/v1/usage";
/// Longest [`AttachQuery::wait_ms`].
pub const ATTACH_WAIT_MAX_MS: u64 = 10_000;
/// Upgrade token of the stream endpoints.
pub const STREAM_PROTOCOL: &str = "wharfage-stream";

/// `POST {CONTAINERS}/{id}/attach?…` with upgrade. Valid before the start: output is delivered from
/// the very first byte of the run that follows.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct AttachQuery {
    /// Forward stdin.
    pub stdin: bool,
    /// Send stdout.
    pub stdout: bool,
    /// Send stderr.
    pub stderr: bool,
    /// Send what was logged so far first.
    pub logs: bool,
    /// Stay for what comes.
    pub stream: bool,
    /// How long the host may take to hear of a container it does not know yet, at most
    /// [`ATTACH_WAIT_MAX_MS`]; then it is a 404. The word of a new container comes from the scheduler
    /// and may be slower than the request.
    pub wait_ms: u64,
}

/// Stream number of a frame that says where the log has been read to, with [`LogsQuery::marks`].
/// Its text is for [`LogsQuery::resume`].
pub const LOG_MARK: u8 = b'M';
/// Stream number of the frame that says that nothing more comes, with [`LogsQuery::marks`]. A body
/// that ends without it broke off.
pub const LOG_END: u8 = b'E';

/// `GET {CONTAINERS}/{id}/logs?…`: framed (or raw with a terminal) body; with `follow` it ends when
/// the container's run ends.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct LogsQuery {
    /// Wait for more.
    pub follow: bool,
    /// Send stdout.
    pub stdout: bool,
    /// Send stderr.
    pub stderr: bool,
    /// Only lines at or after this instant, nanoseconds since 1970.
    pub since_ns: Option<i64>,
    /// Only lines before this instant.
    pub until_ns: Option<i64>,
    /// Put the RFC 3339 time (nine digits) and a space before every line.
    pub timestamps: bool,
    /// Only so many last lines; `None` is all.
    pub tail: Option<u64>,
    /// Put what goes along with the lines (labels, variables, the tag) and a space before every line.
    pub details: bool,
    /// Frames in any case, with marks between them and an end.
    pub marks: bool,
    /// Go on at a mark of an earlier answer instead of `tail`.
    pub resume: Option<String>,
}

/// `POST {CONTAINERS}/{id}/kill`: sends a signal to PID 1. 409 if it does not run.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct KillRequest {
    /// Signal number, 1 to 64.
    pub signal: i32,
}

/// `POST {CONTAINERS}/{id}/freeze`: nothing in it runs until it is thawed, or thaws it. Answered when the
/// kernel has done it; the report of it follows. 409 if it does not run or is frozen already.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct FreezeRequest {
    /// Freeze, or thaw.
    pub frozen: bool,
}

/// `POST {CONTAINERS}/{id}/limits`: gives a container that runs these limits now, answered with
/// [`LimitsReply`]. Nothing is done to one that does not run. They are in its plan already, or about to
/// be: this way whoever asked learns what the kernel says to them.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LimitsRequest {
    /// All its limits, the unchanged ones too.
    pub resources: Resources,
}

/// See [`LimitsRequest`].
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct LimitsReply {
    /// What the host cannot limit.
    pub warnings: Vec<String>,
}

/// `POST {CONTAINERS}/{id}/networks`: returns, 204, when the container has the networks of its plan,
/// which is at least as young as said here. Nothing is done to one that does not run. This way whoever
/// changed the plan learns when and whether the host could follow.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct NetworksRequest {
    /// The host's generation in which the change is.
    pub generation: i64,
}

/// `POST {CONTAINERS}/{id}/resize` and `POST {EXECS}/{id}/resize`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct ResizeRequest {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// `GET {CONTAINERS}/{id}/top?ps_args=…` is answered with this.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct TopReply {
    /// Column titles.
    pub titles: Vec<String>,
    /// One row a process.
    pub processes: Vec<Vec<String>>,
}

/// A process to run inside a container. `POST {EXECS}/{exec}/start` with this body and upgrade (or
/// without upgrade when `detach`): 101 and the stream, or 204.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ExecStart {
    /// The container.
    pub container: ContainerId,
    /// Program and arguments.
    pub cmd: Vec<String>,
    /// Added to the container's environment.
    #[serde(default)]
    pub env: Vec<String>,
    /// Working directory; empty is the container's.
    #[serde(default)]
    pub working_dir: String,
    /// `user[:group]`; empty is the container's.
    #[serde(default)]
    pub user: String,
    /// Allocate a terminal.
    #[serde(default)]
    pub tty: bool,
    /// Connect stdin.
    #[serde(default)]
    pub attach_stdin: bool,
    /// Send stdout.
    #[serde(default)]
    pub attach_stdout: bool,
    /// Send stderr.
    #[serde(default)]
    pub attach_stderr: bool,
    /// Do not wait and send nothing.
    #[serde(default)]
    pub detach: bool,
    /// Rows and columns at start.
    #[serde(default)]
    pub console_size: Option<(u16, u16)>,
}

/// `GET {EXECS}/{exec}?container={id}`: what became of an exec. 404 if it never started here.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ExecState {
    /// Which.
    pub id: ExecId,
    /// It runs now.
    pub running: bool,
    /// Exit status once it ended; 126 or 127 if it could not be started.
    pub exit_code: Option<i32>,
    /// PID on the host, 0 if none.
    pub pid: u32,
}

/// `GET {CONTAINERS}/{id}/path?path=…` ([`PathQuery`]): what is there ([`PathStat`]).
/// `GET {CONTAINERS}/{id}/archive?path=…`: the same in the header [`PATH_STAT`] (JSON, base64), and as
/// a tar in the body. `PUT {CONTAINERS}/{id}/archive?…` ([`PutQuery`]): extracts the tar in the body.
/// `GET {CONTAINERS}/{id}/export`: the root file system as a tar. `GET {CONTAINERS}/{id}/layer`: the
/// writable layer as the tar of an image layer. `GET {CONTAINERS}/{id}/changes`: lines of [`Change`].
/// All of them whether the container runs or not. A body that breaks off is not whole.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PathQuery {
    /// Path from the container's root.
    pub path: String,
    /// How long the host may take to hear of a container it does not know yet, as in [`AttachQuery`].
    pub wait_ms: u64,
}

/// Header of an archive that tells what it is of.
pub const PATH_STAT: &str = "x-wharfage-path-stat";

/// A file or directory in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PathStat {
    /// Last element of its path; `/` for the root.
    pub name: String,
    /// Length in bytes.
    pub size_bytes: u64,
    /// `st_mode`: type and permissions.
    pub mode: u32,
    /// When it was last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub modified_at: time::OffsetDateTime,
    /// Of a link: the path from the root it leads to in the end. Otherwise empty.
    pub link_target: String,
}

/// See [`PathQuery`].
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PutQuery {
    /// An existing directory.
    pub path: String,
    /// Refuse to put a file over a directory, or a directory over a file.
    pub no_overwrite_dir_non_dir: bool,
    /// Give everything to the container's user.
    pub copy_uid_gid: bool,
    /// As in [`PathQuery`].
    pub wait_ms: u64,
}

/// What became of a path since the container was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It was there, and is another now; or something below it is.
    Modified,
    /// It is new.
    Added,
    /// It is gone.
    Deleted,
}

/// One difference between a container's file system and its image's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// Path from the root.
    pub path: String,
    /// What became of it.
    pub kind: ChangeKind,
}

/// `POST {SIZES}`: [`SizesRequest`] in, [`SizesReply`] out.
pub const SIZES: &str = "/containers/v1/sizes";

/// Whose sizes are asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct SizesRequest {
    /// Containers of this host.
    pub containers: Vec<ContainerId>,
}

/// Sizes of those that are known here.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct SizesReply {
    /// One each.
    pub sizes: Vec<ContainerSize>,
}

/// What a container's file system weighs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContainerSize {
    /// Which.
    pub id: ContainerId,
    /// Bytes in its writable layer.
    pub rw_bytes: u64,
    /// Bytes in it and in the layers of its image.
    pub rootfs_bytes: u64,
}

/// Asks how large volumes are.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct VolumeUsageRequest {
    /// Their project.
    pub project: ProjectId,
    /// Which.
    pub volumes: Vec<VolumeId>,
}

/// How large they are: bytes in files. A volume the host has not made yet is empty.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct VolumeUsage {
    /// By volume.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub bytes: BTreeMap<VolumeId, u64>,
}
