//! Byte streams between the gateway and containers: attach, exec, logs, and the numbers of top and
//! stats. The shim already speaks what the gateway expects, so here bytes are only copied.

pub(crate) mod attach;
pub(crate) mod exec;
pub(crate) mod follow;
pub(crate) mod hub;
mod log_file;
pub(crate) mod logs;
mod splice;
pub(crate) mod stats;
pub(crate) mod top;

pub(crate) use splice::{Upgrade, splice};
