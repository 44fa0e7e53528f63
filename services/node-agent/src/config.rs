//! The node-agent's configuration. Unknown keys are errors (chassis), paths are checked once here.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use chassis::{Common, Secret};
use model::{HostCapacity, MemoryBytes, NanoCpus};
use runtime::protocol::{ExecBy, StartBy};
use serde::Deserialize;

/// Everything the agent is told when it starts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What every service has.
    #[serde(default)]
    pub common: Common,
    /// Where the agent's API listens (mutual TLS, the gateway only).
    pub listen: SocketAddr,
    /// Address the gateway and other hosts reach this host at.
    pub advertise_address: IpAddr,
    /// Name for people: `node-1`.
    pub name: String,
    /// Base address of the scheduler, `https://10.0.0.1:7443`.
    pub scheduler_url: String,
    /// Name in the scheduler's certificate.
    #[serde(default = "default_scheduler_cn")]
    pub scheduler_cn: String,
    /// Base address of image-svc.
    pub image_url: String,
    /// Name in image-svc's certificate.
    #[serde(default = "default_image_cn")]
    pub image_cn: String,
    /// Base address of the gateway's listener for hosts: where containers' `/var/run/docker.sock` leads.
    pub gateway_url: String,
    /// Name in the gateway's certificate.
    #[serde(default = "default_gateway_cn")]
    pub gateway_cn: String,
    /// Token to join with. Needed until there is an identity in `data_dir`.
    #[serde(default)]
    pub join_token: Option<Secret<String>>,
    /// File that holds the token, instead of `join_token`.
    #[serde(default)]
    pub join_token_file: Option<PathBuf>,
    /// The internal authority, PEM: whom to trust before there is an identity.
    pub ca: PathBuf,
    /// Identity, plan, layers, containers. Survives a reboot. Overlay must work on it.
    pub data_dir: PathBuf,
    /// Sockets, bundles, runtime state. Need not survive a reboot.
    pub run_dir: PathBuf,
    /// netd's unix socket.
    pub netd_socket: PathBuf,
    /// The `wharfage-shim` program.
    pub shim_path: PathBuf,
    /// Static init for `--init`; the shim program itself when absent.
    #[serde(default)]
    pub init_path: Option<PathBuf>,
    /// OCI runtimes by name, over those that are found where distributions put them.
    #[serde(default)]
    pub runtimes: BTreeMap<String, PathBuf>,
    /// The runtime of containers that name none.
    #[serde(default = "default_runtime")]
    pub default_runtime: String,
    /// Who makes execs: `shim` (itself, and the OCI runtime where it cannot) or `runtime` (always).
    #[serde(default = "default_exec_by")]
    pub exec_by: ExecBy,
    /// Who starts containers: `shim` (itself, and the OCI runtime where it cannot) or `runtime` (always).
    /// With `exec_by = "runtime"` it is the runtime, too.
    #[serde(default = "default_start_by")]
    pub start_by: StartBy,
    /// Parent of the containers' cgroups; one of its own per agent on a machine.
    #[serde(default = "default_cgroup_parent")]
    pub cgroup_parent: String,
    /// Capacity to report instead of what is probed.
    #[serde(default)]
    pub capacity: CapacityOverrides,
    /// Bounds on what an image may do to this host.
    #[serde(default)]
    pub image_limits: ImageLimits,
    /// What layers become on this host. Those that are here stay what they are, but that images go where
    /// none are made.
    #[serde(default)]
    pub layers_as: LayersAs,
}

/// What layers become on a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayersAs {
    /// Images, if the kernel mounts them and shows them with a project's ids; else directories.
    #[default]
    Images,
    /// Directories.
    Directories,
}

/// What to report instead of what is probed.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CapacityOverrides {
    /// Billionths of CPUs.
    pub nano_cpus: Option<u64>,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Containers.
    pub containers: Option<u32>,
}

/// Bounds on the layers of an image.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageLimits {
    /// Bytes a layer may unpack to.
    pub unpacked_bytes: u64,
    /// Entries of a layer.
    pub entries: u64,
    /// Unpacked bytes per packed byte, once `ratio_free_bytes` are through.
    pub ratio: u64,
    /// Bytes that unpack before `ratio` counts.
    pub ratio_free_bytes: u64,
    /// Layers fetched at once.
    pub parallel_layers: usize,
    /// Bytes of memory for the names and owners of one layer that becomes an image; one with more of them
    /// becomes a directory.
    pub tree_bytes: u64,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self {
            unpacked_bytes: 20 << 30,
            entries: 1_000_000,
            ratio: 250,
            ratio_free_bytes: 256 << 20,
            parallel_layers: 4,
            tree_bytes: 64 << 20,
        }
    }
}

fn default_scheduler_cn() -> String {
    "service:scheduler".to_owned()
}

fn default_image_cn() -> String {
    "service:image".to_owned()
}

fn default_gateway_cn() -> String {
    "service:gateway".to_owned()
}

fn default_runtime() -> String {
    "runc".to_owned()
}

fn default_exec_by() -> ExecBy {
    ExecBy::Shim
}

fn default_start_by() -> StartBy {
    StartBy::Shim
}

fn default_cgroup_parent() -> String {
    "/wharfage".to_owned()
}

/// Where Debian puts them.
const USUAL_RUNTIMES: [(&str, &str); 4] =
    [("runc", "/usr/sbin/runc"), ("crun", "/usr/bin/crun"), ("youki", "/usr/bin/youki"), ("runsc", "/usr/bin/runsc")];

impl Config {
    /// Refuses what would fail later, or worse, half work.
    ///
    /// # Errors
    /// Names the field.
    pub fn check(&self) -> anyhow::Result<()> {
        check_directory("data_dir", &self.data_dir)?;
        check_directory("run_dir", &self.run_dir)?;
        let parent = &self.cgroup_parent;
        let segments = parent.strip_prefix('/').unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/');
        anyhow::ensure!(
            !segments.is_empty() && segments.chars().all(plain) && !segments.contains("//") && !segments.ends_with('/'),
            "cgroup_parent: `{parent}` is not an absolute path of letters, digits, dashes"
        );
        let default = &self.default_runtime;
        anyhow::ensure!(self.runtime_path(default).is_some(), "default_runtime: `{default}` is not among `runtimes`");
        Ok(())
    }

    /// The program of a runtime by name; empty is the default's.
    #[must_use]
    pub fn runtime_path(&self, name: &str) -> Option<(String, PathBuf)> {
        let name = if name.is_empty() { &self.default_runtime } else { name };
        let usual = || USUAL_RUNTIMES.iter().find(|(known, _)| *known == name).map(|(_, path)| PathBuf::from(path));
        self.runtimes.get(name).cloned().or_else(usual).map(|path| (name.to_owned(), path))
    }

    /// Runtimes besides the default that might be offered: those configured, and those installed.
    #[must_use]
    pub fn further_runtimes(&self) -> Vec<(String, PathBuf)> {
        let all = USUAL_RUNTIMES.iter().filter_map(|(name, _)| self.runtime_path(name));
        all.filter(|(name, path)| *name != self.default_runtime && (self.runtimes.contains_key(name) || path.exists()))
            .collect()
    }

    /// What the host can give: probed, with the overrides on top.
    #[must_use]
    pub fn probe_capacity(&self) -> HostCapacity {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
        HostCapacity {
            nano_cpus: NanoCpus(self.capacity.nano_cpus.unwrap_or(cpus * 1_000_000_000)),
            memory_bytes: MemoryBytes(self.capacity.memory_bytes.unwrap_or_else(memory_total_bytes)),
            // A bridge takes 1023 ports.
            containers: self.capacity.containers.unwrap_or(1_000),
        }
    }
}

/// Overlay's mount options know no way to write these characters in a lower directory's name.
fn check_directory(field: &str, dir: &Path) -> anyhow::Result<()> {
    let text = dir.to_str().unwrap_or_default();
    anyhow::ensure!(dir.is_absolute(), "{field}: `{}` is not an absolute path", dir.display());
    anyhow::ensure!(
        !text.is_empty() && !text.contains([':', ',', '\\', '"', '\n']),
        "{field}: `{}` has a character that overlay cannot take",
        dir.display()
    );
    Ok(())
}

fn memory_total_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kib = line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"
listen = "127.0.0.1:7500"
advertise_address = "127.0.0.1"
name = "node-1"
scheduler_url = "https://127.0.0.1:7443"
image_url = "https://127.0.0.1:7444"
gateway_url = "https://127.0.0.1:7445"
ca = "/etc/wharfage/ca.pem"
data_dir = "/var/lib/wharfage"
run_dir = "/run/wharfage"
netd_socket = "/run/wharfage/netd.sock"
shim_path = "/usr/lib/wharfage/wharfage-shim"
"#;

    fn parsed(extra: &str) -> Config {
        chassis::config::parse::<Config>(&format!("{SAMPLE}{extra}"), []).expect("parses").0
    }

    #[test]
    fn a_directory_that_overlay_cannot_name_is_refused() {
        let mut config = parsed("");
        config.check().expect("the sample is fine");
        config.data_dir = "/var/lib/a:b".into();
        assert!(config.check().expect_err("refused").to_string().contains("data_dir"));
    }

    #[test]
    fn a_runtime_is_found_by_name_only() {
        let config = parsed("[runtimes]\ncrun = \"/usr/bin/crun\"\n");
        assert_eq!(config.runtime_path("").map(|(n, _)| n).as_deref(), Some("runc"));
        assert_eq!(config.runtime_path("crun"), Some(("crun".into(), "/usr/bin/crun".into())));
        assert_eq!(config.runtime_path("/bin/sh"), None);
    }

    #[test]
    fn runtimes_that_are_configured_or_installed_are_tried_and_the_default_is_not() {
        let config = parsed("[runtimes]\ncrun = \"/nowhere/crun\"\nkata = \"/bin/true\"\n");
        let found = config.further_runtimes();
        assert!(found.contains(&("crun".into(), "/nowhere/crun".into())), "{found:?}");
        assert!(found.iter().all(|(name, _)| name != "runc" && name != "kata"), "{found:?}");
    }

    #[test]
    fn capacity_can_be_told_instead_of_probed() {
        let config = parsed("[capacity]\ncontainers = 7\n");
        let capacity = config.probe_capacity();
        assert_eq!(capacity.containers, 7);
        assert!(capacity.memory_bytes.0 > 0 && capacity.nano_cpus.0 > 0);
    }

    #[test]
    fn a_cgroup_parent_cannot_climb() {
        let mut config = parsed("");
        for parent in ["", "/", "wharfage", "/a//b", "/a/../b", "/a/"] {
            config.cgroup_parent = parent.to_owned();
            assert!(config.check().is_err(), "{parent:?} was taken");
        }
    }
}
