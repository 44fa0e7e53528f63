//! How a container is run on a host: the bundle handed to an OCI runtime, the runtime itself behind
//! a narrow trait, the cgroup it leaves behind, and the documents the agent and the shim exchange.
//!
//! Synchronous and small, because the shim (one process per container) links it too. Nothing here
//! starts a thread. Every path that comes from an image is opened below the rootfs by `openat2`.

pub mod bundle;
pub mod cgroup;
mod error;
mod limits;
pub mod oci;
pub mod protocol;
pub mod rlimit;
pub mod root;
pub mod run_dir;
pub mod sealed;
pub mod seccomp;
pub mod spec;
pub mod user;

pub use bundle::{
    BindMount, Bundle, ExecProcess, Netns, SandboxSpec, SystemCalls, UserNamespace, configuration, exec_process,
    system_calls, write_bundle,
};
pub use error::{Error, Result, words};
pub use limits::Relimit;
pub use oci::{OciRuntime, StartFailure, by_name};
pub use run_dir::RunDir;
pub use sealed::Sealed;
pub use user::ResolvedUser;
