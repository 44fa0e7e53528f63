//! The limits of containers that run: changed with their plan, or at once when the gateway asks, by the
//! container's own runtime, or without it if it knows nothing of the container. What was applied is in the bundle, so doing it twice does nothing.

use std::process::Stdio;

use model::{ContainerId, Error, Resources, Result};
use runtime::Relimit;
use tokio::io::AsyncWriteExt as _;

use crate::host::Host;

/// Gives a container that runs these limits. Returns what this host cannot limit. Only one at a time
/// per container.
///
/// # Errors
/// The kernel does not take them, in the runtime's words.
pub(crate) async fn apply(host: &Host, id: &ContainerId, runtime: &str, wanted: &Resources) -> Result<Vec<String>> {
    let (bundle, asked) = (host.places.bundle(id), wanted.clone());
    let compared = tokio::task::spawn_blocking(move || Relimit::of(&bundle, &asked)).await;
    let Some(relimit) = compared.map_err(Error::internal)?? else { return Ok(Vec::new()) };
    if host.places.run_dir(id).is_started_by_shim() {
        let (relimit, cgroup_path) = (relimit.clone(), host.cgroup_path(id));
        let applied = tokio::task::spawn_blocking(move || relimit.apply(&cgroup_path)).await;
        applied.map_err(Error::internal)?.map_err(|cause| refused(1, &host.told(id, &cause)))?;
    } else {
        by_the_runtime(host, id, runtime, &relimit).await?;
    }
    let bundle = host.places.bundle(id);
    relimit.note(&bundle)?;
    tracing::info!(container = %id, "has new limits");
    Ok(relimit.warnings)
}

/// dockerd's words.
fn refused(code: i32, cause: &str) -> Error {
    Error::Failed(format!("runc did not terminate successfully: exit status {code}: {cause}: unknown"))
}

async fn by_the_runtime(host: &Host, id: &ContainerId, runtime: &str, relimit: &Relimit) -> Result<()> {
    let mut command = tokio::process::Command::from(oci(host, runtime)?.update(id.as_str()));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::internal)?;
    if let Some(mut input) = child.stdin.take() {
        // A runtime that refuses before it has read all is heard below.
        let _ = input.write_all(&relimit.document).await;
    }
    let output = child.wait_with_output().await.map_err(Error::internal)?;
    if !output.status.success() {
        let cause = oci(host, runtime)?.update_failure(&String::from_utf8_lossy(&output.stderr));
        let cause = host.told(id, &cause);
        return Err(refused(output.status.code().unwrap_or(-1), &cause));
    }
    Ok(())
}

fn oci(host: &Host, runtime: &str) -> Result<Box<dyn runtime::OciRuntime>> {
    let known = host.config.runtime_path(runtime).and_then(|(name, program)| {
        let root = host.places.runtime_root(&name);
        runtime::by_name(&name, &program, &root)
    });
    known.ok_or_else(|| Error::Internal(format!("unknown runtime {runtime:?}")))
}
