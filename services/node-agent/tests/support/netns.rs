//! A netd beside the agent, in a network namespace of the test's own.

use super::World;

/// A network namespace with a netd in it. The mounts stay the machine's own.
pub(crate) struct Netns(&'static str);

pub(crate) struct Netd {
    child: std::process::Child,
    purge: std::process::Command,
}

impl Netns {
    pub(crate) fn new(name: &'static str) -> Self {
        let _ = ip(&["netns", "del", name]);
        assert!(ip(&["netns", "add", name]), "makes a namespace");
        assert!(ip(&["-n", name, "link", "set", "lo", "up"]));
        Self(name)
    }

    pub(crate) fn run(&self, netd: &std::path::Path, world: &World) -> Netd {
        let config = format!(
            "socket_path = \"{}\"\nrun_dir = \"{}\"\nhost_address = \"127.0.0.1\"\n",
            world.path("netd.sock").display(),
            world.path("netd-run").display()
        );
        std::fs::write(world.path("netd.toml"), config).expect("writes");
        let command = |purge: &[&str]| {
            let mut command = std::process::Command::new("nsenter");
            command.arg(format!("--net=/run/netns/{}", self.0)).arg(netd).args(purge);
            command.arg("--config").arg(world.path("netd.toml"));
            command.stdout(std::fs::File::create(world.path("netd.log")).expect("creates"));
            command
        };
        Netd { child: command(&[]).spawn().expect("netd starts"), purge: command(&["purge"]) }
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        ip(&["netns", "del", self.0]);
    }
}

impl Drop for Netd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.purge.status();
    }
}

fn ip(arguments: &[&str]) -> bool {
    std::process::Command::new("ip").args(arguments).status().is_ok_and(|s| s.success())
}

/// A network of some project.
pub(crate) fn network(vni: u32, subnet: &str) -> contract::host::PlannedNetwork {
    contract::host::PlannedNetwork {
        id: model::NetworkId::from_bytes([7; 32]),
        project: model::ProjectId(chassis::ids::uuid_v7()),
        vni,
        subnet: subnet.parse().expect("a subnet"),
        gateway: None,
        internal: false,
        names: None,
        peers: Vec::new(),
    }
}

/// The container is to have that address there.
pub(crate) fn plug(
    container: &mut contract::host::PlannedContainer,
    network: &contract::host::PlannedNetwork,
    ip: [u8; 4],
) {
    container.spec.network_none = false;
    let network = network.id.clone();
    container.endpoints = vec![model::Endpoint { network, ip: ip.into(), interface: 0, mac: None, links: Vec::new() }];
}
