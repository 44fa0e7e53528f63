//! The private Redis: a unix socket, nothing on disk. Everything works without it, slower.

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    infrastructure::{base_env, program},
    layout::Layout,
    supervise::ServiceSpec,
};

/// The supervised server.
pub(crate) fn redis(layout: &Layout) -> Result<ServiceSpec> {
    let option = |key: &str, value: &str| [format!("--{key}"), value.to_owned()];
    let mut args = Vec::new();
    args.extend(option("port", "0"));
    args.extend(option("unixsocket", &socket(layout).display().to_string()));
    args.extend(option("unixsocketperm", "700"));
    args.extend(option("save", ""));
    args.extend(option("appendonly", "no"));
    args.extend(option("maxmemory", "128mb"));
    args.extend(option("maxmemory-policy", "allkeys-lru"));
    Ok(ServiceSpec {
        name: "01-redis".into(),
        program: program(&["/usr/bin/redis-server", "/usr/local/bin/redis-server"])?,
        args,
        env: base_env(),
        netns: None,
        user: None,
        stop_signal: nix::libc::SIGTERM,
    })
}

fn socket(layout: &Layout) -> PathBuf {
    layout.volatile.join("redis.sock")
}

/// How services reach it.
pub(crate) fn redis_url(layout: &Layout) -> String {
    format!("redis+unix://{}", socket(layout).display())
}
