//! The shim with the real runc, as the agent drives it. Needs root, runc and a static busybox.

mod attack;
mod exec;
mod harness;
mod life;
mod log;
mod measure;
mod native;
mod start;
mod streams;
#[cfg(target_arch = "x86_64")]
mod syscalls;
mod users;
mod walls;
