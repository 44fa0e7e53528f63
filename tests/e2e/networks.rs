//! Networks that users make: who is on them, what they are called, and who is not on them.

use std::time::Duration;

use tests::{Docker, Suite, eventually, unique};

/// A network and its containers, gone with the test.
struct Scene {
    docker: Docker,
    networks: Vec<String>,
    containers: Vec<String>,
}

impl Scene {
    fn new() -> Self {
        Self { docker: Suite::here().docker(), networks: Vec::new(), containers: Vec::new() }
    }

    fn network(&mut self, more: &[&str]) -> String {
        let name = unique("net");
        let mut args = vec!["network", "create"];
        args.extend(more);
        args.push(&name);
        let _ = self.docker.ok(&args);
        self.networks.push(name.clone());
        name
    }

    fn container(&mut self, more: &[&str]) -> String {
        let name = unique("on");
        let mut args = vec!["run", "-d", "--name", &name];
        args.extend(more);
        args.extend(["busybox", "sh", "-c", "while :; do sleep 1; done"]);
        let _ = self.docker.ok(&args);
        self.containers.push(name.clone());
        name
    }

    fn exec(&self, container: &str, script: &str) -> (i32, String) {
        let outcome = self.docker.run(&["exec", container, "sh", "-c", script]);
        (outcome.code, format!("{}{}", outcome.stdout, outcome.stderr))
    }

    /// Whether a name is known inside, and answers.
    fn reaches(&self, from: &str, name: &str) -> bool {
        self.exec(from, &format!("ping -c 1 -W 1 {name}")).0 == 0
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for container in &self.containers {
            let _ = self.docker.run(&["rm", "-f", container]);
        }
        for network in &self.networks {
            let _ = self.docker.run(&["network", "rm", network]);
        }
    }
}

#[test]
fn containers_of_a_network_find_each_other_by_name_alias_and_id() {
    let mut scene = Scene::new();
    let network = scene.network(&[]);
    let web = scene.container(&["--network", &network, "--network-alias", "site", "--hostname", "front"]);
    let client = scene.container(&["--network", &network]);
    let id = scene.docker.ok(&["inspect", "-f", "{{.Id}}", &web]);
    for name in [web.as_str(), "site", "SITE", "front", &id[..12]] {
        assert!(scene.reaches(&client, name), "{name}: {:?}", scene.exec(&client, &format!("nslookup {name}")));
    }
    eventually("the first one hears of the second", Duration::from_secs(5), || scene.reaches(&web, &client));
    let (_, resolv) = scene.exec(&client, "cat /etc/resolv.conf");
    assert!(resolv.contains("nameserver 127.0.0.11"), "{resolv}");
    // A name goes with its container.
    let _ = scene.docker.ok(&["stop", "-t", "0", &web]);
    eventually("the name is gone", Duration::from_secs(5), || !scene.exec(&client, "nslookup site").1.contains("10."));
}

#[test]
fn networks_of_a_project_are_apart_and_a_container_on_both_joins_them() {
    let mut scene = Scene::new();
    let (one, two) = (scene.network(&[]), scene.network(&[]));
    let a = scene.container(&["--network", &one]);
    let b = scene.container(&["--network", &two]);
    assert!(!scene.reaches(&a, &b), "a name of another network");
    let template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = scene.docker.ok(&["inspect", "-f", template, &b]);
    assert!(!scene.reaches(&a, &address), "an address of another network");
    // Plugged in while it runs.
    let _ = scene.docker.ok(&["network", "connect", "--alias", "second", &one, &b]);
    assert_eq!(scene.exec(&b, "ls /sys/class/net | sort | tr '\\n' ' '").1.trim(), "eth0 eth1 lo");
    eventually("it is known there", Duration::from_secs(5), || scene.reaches(&a, "second"));
    assert!(scene.reaches(&b, &a) && scene.reaches(&b, &b));
    // And pulled out again.
    let _ = scene.docker.ok(&["network", "disconnect", &one, &b]);
    assert_eq!(scene.exec(&b, "ls /sys/class/net | sort | tr '\\n' ' '").1.trim(), "eth0 lo");
    eventually("it is forgotten there", Duration::from_secs(5), || !scene.reaches(&a, "second"));
    let again = scene.docker.run(&["network", "disconnect", &one, &b]);
    assert!(again.stderr.contains("is not connected to network"), "{again:?}");
}

#[test]
fn a_container_may_leave_the_default_network_and_come_back() {
    let mut scene = Scene::new();
    let network = scene.network(&[]);
    let name = scene.container(&[]);
    let _ = scene.docker.ok(&["network", "connect", &network, &name]);
    let _ = scene.docker.ok(&["network", "disconnect", "bridge", &name]);
    assert_eq!(scene.exec(&name, "ip route | grep -c ^default").1.trim(), "1", "the other one leads outside now");
    assert!(scene.exec(&name, "cat /etc/resolv.conf").1.contains("127.0.0.11"));
    let _ = scene.docker.ok(&["network", "disconnect", &network, &name]);
    assert_eq!(scene.exec(&name, "ls /sys/class/net").1.trim(), "lo");
    let _ = scene.docker.ok(&["network", "connect", "bridge", &name]);
    assert!(scene.exec(&name, "ip route").1.contains("default via"));
    // A restart finds the same.
    let _ = scene.docker.ok(&["restart", "-t", "0", &name]);
    assert!(scene.exec(&name, "ip route").1.contains("default via"));
}

#[test]
fn an_internal_network_leads_nowhere() {
    let mut scene = Scene::new();
    let network = scene.network(&["--internal"]);
    let a = scene.container(&["--network", &network]);
    let b = scene.container(&["--network", &network]);
    assert!(scene.reaches(&b, &a));
    assert_eq!(scene.exec(&a, "ip route | grep ^default").1.trim(), "");
    let (code, said) = scene.exec(&a, "nslookup example.invalid");
    assert_ne!(code, 0, "{said}");
}

#[test]
fn a_subnet_and_addresses_may_be_chosen() {
    let mut scene = Scene::new();
    let network =
        scene.network(&["--subnet", "172.29.64.0/24", "--ip-range", "172.29.64.128/25", "--gateway", "172.29.64.254"]);
    let a = scene.container(&["--network", &network, "--ip", "172.29.64.7"]);
    let b = scene.container(&["--network", &network]);
    let template = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.Gateway}}{{end}}";
    assert_eq!(scene.docker.ok(&["inspect", "-f", template, &a]), "172.29.64.7 172.29.64.254");
    let given = scene.docker.ok(&["inspect", "-f", template, &b]);
    let last: u8 = given.split(['.', ' ']).nth(3).and_then(|n| n.parse().ok()).expect("an address");
    assert!(last >= 128, "{given} is not of the range");
    assert!(scene.reaches(&b, &a));
    let taken = scene.docker.run(&["network", "create", "--subnet", "172.29.64.0/25", &unique("no")]);
    assert!(taken.stderr.contains("Pool overlaps with other one"), "{taken:?}");
    let public = scene.docker.run(&["network", "create", "--subnet", "8.8.8.0/24", &unique("no")]);
    assert!(public.stderr.contains("is not available on Wharfage"), "{public:?}");
    let held = scene.docker.run(&["run", "--rm", "--network", &network, "--ip", "172.29.64.7", "busybox", "true"]);
    assert!(held.stderr.contains("Address already in use"), "{held:?}");
}

#[test]
fn a_network_is_listed_inspected_and_removed_as_with_docker() {
    let mut scene = Scene::new();
    let network = scene.network(&["--label", "kind=test", "-d", "overlay", "--attachable"]);
    let listed =
        ["network", "ls", "--filter", &format!("name={network}"), "--format", "{{.Name}} {{.Driver}} {{.Scope}}"];
    assert_eq!(scene.docker.ok(&listed), format!("{network} overlay local"));
    assert_eq!(scene.docker.ok(&["network", "ls", "-q", "--filter", "label=kind=other"]), "");
    let twice = scene.docker.run(&["network", "create", &network]);
    assert!(twice.stderr.contains(&format!("network with name {network} already exists")), "{twice:?}");
    let name = scene.container(&["--network", &network]);
    let members = scene.docker.ok(&["network", "inspect", "-f", "{{range .Containers}}{{.Name}}{{end}}", &network]);
    assert_eq!(members, name);
    let used = scene.docker.run(&["network", "rm", &network]);
    assert!(used.stderr.contains("has active endpoints"), "{used:?}");
    let predefined = scene.docker.run(&["network", "rm", "bridge"]);
    assert!(predefined.stderr.contains("is a pre-defined network and cannot be removed"), "{predefined:?}");
    let macvlan = scene.docker.run(&["network", "create", "-d", "macvlan", &unique("no")]);
    assert!(macvlan.stderr.contains("macvlan"), "{macvlan:?}");
    let _ = scene.docker.ok(&["rm", "-f", &name]);
    let _ = scene.docker.ok(&["network", "rm", &network]);
    assert!(scene.docker.run(&["network", "inspect", &network]).stderr.contains("not found"));
}

#[test]
fn a_published_port_leads_to_a_container_on_a_network_of_the_users() {
    let mut scene = Scene::new();
    let network = scene.network(&[]);
    let name = unique("web");
    let _ = scene.docker.ok(&["run", "-d", "--name", &name, "--network", &network, "-p", "18093:80", "httpd"]);
    scene.containers.push(name.clone());
    let client = scene.container(&["--network", &network]);
    assert!(scene.exec(&client, &format!("wget -qO- http://{name}/")).1.contains("It works!"));
    eventually("the port answers", Duration::from_secs(5), || std::net::TcpStream::connect("127.0.0.1:18093").is_ok());
}

#[test]
fn another_projects_names_are_unknown() {
    let suite = Suite::here();
    let mut scene = Scene::new();
    let network = scene.network(&[]);
    let name = scene.container(&["--network", &network, "--network-alias", "secret"]);
    let other = suite.docker_as(suite.var("WHARFAGE_TOKEN_2"));
    let theirs = unique("theirs");
    let _ = other.ok(&["network", "create", &theirs]);
    let said = other.run(&["run", "--rm", "--network", &theirs, "busybox", "nslookup", "secret"]);
    assert_ne!(said.code, 0, "{said:?}");
    let said = other.run(&["run", "--rm", "--network", &network, "busybox", "true"]);
    assert!(said.stderr.contains("not found"), "{said:?}");
    let said = other.run(&["network", "connect", &theirs, &name]);
    assert!(said.stderr.contains("No such container"), "{said:?}");
    let _ = other.ok(&["network", "rm", &theirs]);
}
