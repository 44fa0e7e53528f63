//! What is mounted over the rootfs: Docker's kernel file systems, the tenant's tmpfs and volumes, the three
//! files that carry the container's names, and the init.

use std::path::Path;

use model::IpcMode;
use oci_spec::{
    OciSpecError,
    runtime::{Mount, MountBuilder},
};

use super::INIT_PATH;
use crate::SandboxSpec;

const DEFAULT_SHM_BYTES: u64 = 64 << 20;

/// All mounts, in order.
pub(super) fn build(sandbox: &SandboxSpec) -> Result<Vec<Mount>, OciSpecError> {
    let shm_bytes = sandbox.resources.shm_size_bytes.unwrap_or(DEFAULT_SHM_BYTES);
    let shm_size = format!("size={shm_bytes}");
    let mut all = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])?,
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        )?,
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])?,
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"])?,
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"])?,
    ];
    if let Some(shm) = &sandbox.shm {
        let options = ["bind", "rprivate", "nosuid", "noexec", "nodev", "rw"];
        all.push(mount("/dev/shm", "bind", &shm.to_string_lossy(), &options)?);
    } else if sandbox.ipc != IpcMode::None {
        all.push(mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm_size])?);
    }
    let mut tenants = Vec::new();
    for tmpfs in &sandbox.tmpfs {
        let mut options = vec!["nosuid".to_owned(), "nodev".to_owned()];
        if !tmpfs.exec {
            options.push("noexec".into());
        }
        options.extend(tmpfs.size_bytes.map(|n| format!("size={n}")));
        options.extend(tmpfs.mode.map(|m| format!("mode={m:o}")));
        options.extend(tmpfs.inodes.map(|n| format!("nr_inodes={n}")));
        options.extend(tmpfs.uid.map(|id| format!("uid={id}")));
        options.extend(tmpfs.gid.map(|id| format!("gid={id}")));
        if tmpfs.read_only {
            options.push("ro".into());
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        tenants.push(mount(&tmpfs.path, "tmpfs", "tmpfs", &options)?);
    }
    for volume in &sandbox.volumes {
        tenants.push(bind(&volume.path, &volume.source, volume.read_only)?);
    }
    // What is below another mount comes after it.
    tenants.sort_by_key(|mount| mount.destination().components().count());
    all.extend(tenants);
    let files = [
        ("/etc/resolv.conf", &sandbox.resolv_conf),
        ("/etc/hostname", &sandbox.hostname_file),
        ("/etc/hosts", &sandbox.hosts_file),
    ];
    for (at, source) in files {
        if let Some(source) = source {
            all.push(bind(at, source, sandbox.security.readonly_rootfs)?);
        }
    }
    if let Some(init) = &sandbox.init {
        all.push(bind(INIT_PATH, init, true)?);
    }
    Ok(all)
}

fn bind(at: &str, source: &Path, readonly: bool) -> Result<Mount, OciSpecError> {
    let access = if readonly { "ro" } else { "rw" };
    mount(at, "bind", &source.to_string_lossy(), &["bind", "rprivate", "nosuid", "nodev", access])
}

fn mount(at: &str, typ: &str, source: &str, options: &[&str]) -> Result<Mount, OciSpecError> {
    let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
    MountBuilder::default().destination(at).typ(typ).source(source).options(options).build()
}
