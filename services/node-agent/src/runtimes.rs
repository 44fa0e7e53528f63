//! Which OCI runtimes work here. That a program is installed says little (crun of Debian 12 refuses hybrid
//! cgroups, runsc cannot join a user namespace that exists): each is tried once when the agent starts,
//! with a container as tenants have them, and offered only if that ran. The default is not tried: without
//! it this is no host.

use std::{
    fs, io,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use contract::host::HostRuntime;
use model::ProjectId;
use runtime::{BindMount, SandboxSpec, cgroup, oci::Invocation};

use crate::{
    host::{Host, make_private},
    tenancy::Project,
};

/// How long a trial may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Ids of the trial's containers: below those of all projects, and below what people are given.
const FIRST_ID: u32 = 983_040;
/// What the trial's program needs of this machine.
const NEEDED: [&str; 4] = ["/bin", "/lib", "/lib64", "/usr"];

/// All that are installed, each with the reason if it does not work.
pub(crate) async fn find(host: &Host) -> Vec<HostRuntime> {
    let mut all = vec![HostRuntime { name: host.config.default_runtime.clone(), missing: None }];
    for (name, program) in host.config.further_runtimes() {
        let missing = try_out(host, &name, &program).await.err();
        match &missing {
            None => tracing::info!(runtime = name, "offered"),
            Some(why) => tracing::warn!(runtime = name, why, "not offered: it does not work here"),
        }
        all.push(HostRuntime { name, missing });
    }
    all
}

async fn try_out(host: &Host, name: &str, program: &Path) -> Result<(), String> {
    let id = format!("trial-{name}");
    let dir = host.places.trial(name);
    let cgroup_path = format!("{}/{id}", host.config.cgroup_parent);
    let root = host.places.runtime_root(name);
    let oci = runtime::by_name(name, program, &root).ok_or("no such runtime is known")?;
    let project = host.tenancy.for_trials(ProjectId(uuid::Uuid::nil()), FIRST_ID).map_err(|e| e.to_string())?;
    let project = project.ok_or("this host has no user namespaces for projects")?;
    let sandbox = sandbox(&id, &dir, &cgroup_path, &project).map_err(|e| e.to_string())?;
    make_private(&root).map_err(|e| e.to_string())?;
    runtime::write_bundle(&dir.join("bundle"), &sandbox).map_err(|e| e.to_string())?;
    if root.join(&id).exists() {
        // Of an agent that was killed in the middle.
        let _ = run(oci.delete(&id)).await;
    }
    let files = Invocation { log: dir.join("log"), pid_file: dir.join("pid"), console_socket: None };
    let ran = run(oci.run_detached(&id, &dir.join("bundle"), &files)).await;
    let log = fs::read_to_string(&files.log).unwrap_or_default();
    let _ = run(oci.delete(&id)).await;
    let cleared = tokio::task::spawn_blocking(move || {
        cgroup::remove(&cgroup_path, Duration::from_secs(5))?;
        fs::remove_dir_all(&dir)
    });
    if let Ok(Err(error)) = cleared.await {
        tracing::warn!(runtime = name, %error, "a trial left something behind");
    }
    match ran {
        Ok(true) => Ok(()),
        Ok(false) => Err(oci.update_failure(&log)),
        Err(error) => Err(format!("{}: {error}", program.display())),
    }
}

async fn run(command: std::process::Command) -> io::Result<bool> {
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "it takes too long");
    Ok(tokio::time::timeout(PATIENCE, command.status()).await.map_err(late)??.success())
}

/// A container of one short program, the machine's own, that sees nothing but what that needs.
fn sandbox(id: &str, dir: &Path, cgroup_path: &str, project: &Project) -> io::Result<SandboxSpec> {
    let rootfs = dir.join("fs");
    let owner = Some(project.root_id());
    fs::create_dir_all(&rootfs)?;
    for below in ["", "proc", "sys", "dev", "bin", "lib", "lib64", "usr"] {
        let path = rootfs.join(below);
        fs::create_dir_all(&path)?;
        chown(&path, owner, owner)?;
    }
    let there = NEEDED.iter().filter(|path| Path::new(path).is_dir());
    Ok(SandboxSpec {
        id: id.to_owned(),
        argv: vec!["/bin/true".to_owned()],
        rootfs,
        userns: Some(project.namespace()),
        cgroup_path: cgroup_path.to_owned(),
        volumes: there
            .map(|path| BindMount { source: PathBuf::from(path), path: (*path).to_owned(), read_only: true })
            .collect(),
        ..SandboxSpec::default()
    })
}
