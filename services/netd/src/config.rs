//! netd's configuration: where it listens, where it keeps things, and what this host is to others.
//! Unknown keys are errors, so that a misspelt `protected` cannot open the control plane.

use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use serde::Deserialize;

/// Everything netd is told when it starts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What every service is told; `ops_listen` there serves metrics and health over TCP as well.
    #[serde(default)]
    pub common: chassis::Common,
    /// The unix socket the node-agent talks to; made with mode 0600.
    pub socket_path: PathBuf,
    /// Holds the last plan and the bind mounts of the network namespaces. Gone after a reboot, as they are.
    pub run_dir: PathBuf,
    /// The address other hosts reach this one at: the tunnels' local end.
    pub host_address: IpAddr,
    /// UDP port of the tunnels, the same on every host.
    #[serde(default = "default_vxlan_port")]
    pub vxlan_port: u16,
    /// What no container may open a connection to: control plane, underlay, and the pool all project
    /// networks are cut from. Its own network and published ports are reached all the same.
    #[serde(default)]
    pub protected: Vec<IpNet>,
}

fn default_vxlan_port() -> u16 {
    4789
}

impl Config {
    /// Where the namespaces are mounted. Not `/run/netns`: nothing else on the host should list them.
    #[must_use]
    pub fn netns_dir(&self) -> PathBuf {
        self.run_dir.join("netns")
    }
}
