//! What the suite stands on, private to this checkout: a PostgreSQL cluster and a Redis on unix
//! sockets, and Debian's docker-registry on loopback as the upstream. No system instance is touched.

mod postgres;
mod redis;
mod registry;

pub(crate) use postgres::{Postgres, owner_url, service_url};
pub(crate) use redis::{redis, redis_url};
pub(crate) use registry::registry;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// Runs a command to its end; its error output becomes the error.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("{name} cannot be run"))?;
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The environment every supervised process starts from.
pub(crate) fn base_env() -> BTreeMap<String, String> {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    BTreeMap::from([("PATH".into(), path.into()), ("LANG".into(), "C.UTF-8".into())])
}

/// The first of these that exists.
fn program(candidates: &[&str]) -> Result<PathBuf> {
    candidates
        .iter()
        .map(Path::new)
        .find(|p| p.exists())
        .map(Path::to_path_buf)
        .with_context(|| format!("none of {candidates:?} is installed"))
}
