//! `--link` and `--mac-address`: what a container chooses for itself on a network.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Docker, Suite, eventually, unique};

/// Containers and networks that go with the test.
struct Scene {
    docker: Docker,
    names: Vec<String>,
    networks: Vec<String>,
}

const WAIT: [&str; 4] = ["busybox", "sh", "-c", "while :; do sleep 1; done"];

impl Scene {
    fn new() -> Self {
        Self { docker: Suite::here().docker(), names: Vec::new(), networks: Vec::new() }
    }

    fn run(&mut self, more: &[&str]) -> String {
        let name = unique("linked");
        let mut args = vec!["run", "-d", "--name", &name];
        args.extend(more);
        args.extend(WAIT);
        let _ = self.docker.ok(&args);
        self.names.push(name.clone());
        name
    }

    fn network(&mut self) -> String {
        let name = unique("links");
        let _ = self.docker.ok(&["network", "create", &name]);
        self.networks.push(name.clone());
        name
    }

    fn inspect(&self, name: &str) -> Value {
        let text = self.docker.ok(&["inspect", name]);
        serde_json::from_str::<Value>(&text).expect("JSON")[0].clone()
    }

    fn exec(&self, name: &str, script: &str) -> String {
        let outcome = self.docker.run(&["exec", name, "sh", "-c", script]);
        format!("{}{}", outcome.stdout, outcome.stderr)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        self.docker.remove(&names);
        for network in &self.networks {
            let _ = self.docker.run(&["network", "rm", network]);
        }
    }
}

#[test]
fn a_link_on_the_bridge_stands_in_the_hosts_file_and_goes_with_its_target() {
    let mut scene = Scene::new();
    let db = scene.run(&["-h", "store"]);
    let web = scene.run(&["--link", &format!("{db}:db")]);
    let address = scene.inspect(&db)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"].clone();
    let line = format!("{}\tdb store {db}", address.as_str().expect("an address"));
    let hosts = scene.exec(&web, "cat /etc/hosts");
    assert!(hosts.lines().any(|l| l == line), "{line} is not in {hosts}");
    assert!(scene.exec(&web, "ping -c 1 -W 2 db").contains("1 packets received"));
    assert_eq!(scene.inspect(&web)["HostConfig"]["Links"], json!([format!("/{db}:/{web}/db")]));
    // By the names of now.
    let renamed = unique("renamed");
    let _ = scene.docker.ok(&["rename", &db, &renamed]);
    scene.names.push(renamed.clone());
    assert_eq!(scene.inspect(&web)["HostConfig"]["Links"], json!([format!("/{renamed}:/{web}/db")]));
    let _ = scene.docker.ok(&["stop", "-t", "0", &renamed, &web]);
    let refused = scene.docker.run(&["start", &web]);
    let why = format!("Cannot link to a non running container: /{renamed} AS /{web}/db");
    assert!(refused.stderr.contains(&why), "{refused:?}");
    scene.docker.remove(&[&renamed]);
    let _ = scene.docker.ok(&["start", &web]);
    assert!(!scene.exec(&web, "cat /etc/hosts").contains(" store "), "a link goes with the container it leads to");
    assert_eq!(scene.inspect(&web)["HostConfig"]["Links"], Value::Null);
    let nobody = scene.docker.run(&["create", "--link", "nobody-here:x", "busybox"]);
    let why = "could not get container for nobody-here: No such container: nobody-here";
    assert!(nobody.code != 0 && nobody.stderr.contains(why), "{nobody:?}");
}

#[test]
fn a_link_is_removed_by_its_name_and_leaves_the_hosts_file_of_what_runs() {
    let mut scene = Scene::new();
    let db = scene.run(&[]);
    let web = scene.run(&["--link", &format!("{db}:db"), "--link", &format!("{db}:store")]);
    assert_eq!(scene.docker.ok(&["rm", "--link", &format!("{web}/db")]), format!("{web}/db"));
    assert_eq!(scene.inspect(&web)["HostConfig"]["Links"], json!([format!("/{db}:/{web}/store")]));
    let hosts = || scene.exec(&web, "cat /etc/hosts");
    eventually("the name is gone", Duration::from_secs(10), || !hosts().contains("\tdb "));
    assert!(hosts().contains("\tstore "), "{}", hosts());
    let refused = |name: &str| scene.docker.run(&["rm", "--link", name]).stderr;
    let again = refused(&format!("{web}/db"));
    assert!(again.contains(&format!("No such container: {web}/db")), "{again}");
    assert!(refused("nobody/db").contains("No such container: nobody/db"));
    assert!(refused("nobody").contains("No such container: nobody"));
    let own = refused(&web);
    assert!(own.contains("Conflict, cannot remove the default link name of the container"), "{own}");
    let stranger = Suite::here().docker_as(Suite::here().var("WHARFAGE_TOKEN_2"));
    let foreign = stranger.run(&["rm", "--link", &format!("{web}/store")]).stderr;
    assert!(foreign.contains(&format!("No such container: {web}/store")), "{foreign}");
}

#[test]
fn a_link_on_a_network_of_a_user_is_a_name_that_its_container_alone_sees() {
    let mut scene = Scene::new();
    let network = scene.network();
    let db = scene.run(&["--network", &network]);
    let web = scene.run(&["--network", &network, "--link", &format!("{db}:store")]);
    let other = scene.run(&["--network", &network]);
    let reaches =
        |from: &str, name: &str| scene.exec(from, &format!("ping -c 1 -W 1 {name}")).contains("1 packets received");
    eventually("the link is a name", Duration::from_secs(5), || reaches(&web, "store"));
    assert!(reaches(&web, &db));
    assert!(!reaches(&other, "store"), "another container sees it");
    let shown = scene.inspect(&web);
    assert_eq!(shown["NetworkSettings"]["Networks"][&network]["Links"], json!([format!("{db}:store")]));
    assert_eq!(shown["HostConfig"]["Links"], Value::Null);
    let later = scene.run(&[]);
    let _ = scene.docker.ok(&["network", "connect", "--link", &format!("{db}:later"), &network, &later]);
    let sees = || scene.exec(&later, "ping -c 1 -W 1 later").contains("1 packets received");
    eventually("connect takes links too", Duration::from_secs(5), sees);
}

#[test]
fn a_mac_address_that_is_asked_for_is_the_links() {
    let mut scene = Scene::new();
    let network = scene.network();
    let mac = "02:42:ac:77:00:0a";
    for network in ["bridge", network.as_str()] {
        let name = scene.run(&["--network", network, "--mac-address", mac]);
        assert_eq!(scene.exec(&name, "cat /sys/class/net/eth0/address").trim(), mac);
        assert_eq!(scene.inspect(&name)["NetworkSettings"]["Networks"][network]["MacAddress"], mac);
        let peer = scene.run(&["--network", network]);
        let ip = scene.inspect(&name)["NetworkSettings"]["Networks"][network]["IPAddress"].clone();
        let ping = format!("ping -c 1 -W 2 {}", ip.as_str().expect("an address"));
        assert!(scene.exec(&peer, &ping).contains("1 packets received"));
        // It is the same after a restart.
        let _ = scene.docker.ok(&["restart", "-t", "0", &name]);
        assert_eq!(scene.exec(&name, "cat /sys/class/net/eth0/address").trim(), mac);
        scene.docker.remove(&[&name]);
    }
    for (bad, why) in [("01:00:5e:00:00:01", "it is a group's, or none"), ("nope", "nope")] {
        let refused = scene.docker.run(&["create", "--mac-address", bad, "busybox"]);
        assert!(refused.code != 0 && refused.stderr.contains(why), "{refused:?}");
    }
}
