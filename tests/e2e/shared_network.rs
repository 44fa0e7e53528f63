//! `--network container:`: one network namespace for two containers, on one host.

use std::time::Duration;

use tests::{Docker, Suite, eventually, unique};

/// Containers that go with the test.
struct Scene {
    docker: Docker,
    names: Vec<String>,
}

impl Scene {
    fn new() -> Self {
        Self { docker: Suite::here().docker(), names: Vec::new() }
    }

    fn run(&mut self, more: &[&str], command: &[&str]) -> String {
        let name = unique("joined");
        let mut args = vec!["run", "-d", "--name", &name];
        args.extend(more);
        args.extend(command);
        let _ = self.docker.ok(&args);
        self.names.push(name.clone());
        name
    }

    fn field(&self, name: &str, field: &str) -> String {
        self.docker.ok(&["inspect", "-f", &format!("{{{{{field}}}}}"), name])
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        self.docker.remove(&names);
    }
}

const WAIT: [&str; 4] = ["busybox", "sh", "-c", "while :; do sleep 1; done"];

#[test]
fn a_container_lives_in_the_network_of_another_with_its_name_and_its_loopback() {
    let mut scene = Scene::new();
    let web = scene.run(&["-h", "front", "--add-host", "some.where:192.0.2.7"], &["httpd"]);
    let id = scene.field(&web, ".Id");
    for reference in [web.as_str(), &id, &id[..12]] {
        let network = format!("container:{reference}");
        let fetch = "wget -qO- http://127.0.0.1/ && hostname && cat /etc/hosts";
        let mut told = String::new();
        eventually("the server of the other one answers on 127.0.0.1", Duration::from_secs(5), || {
            let outcome = scene.docker.run(&["run", "--rm", "--network", &network, "busybox", "sh", "-c", fetch]);
            told = outcome.stdout;
            outcome.code == 0
        });
        assert!(
            told.contains("It works!") && told.contains("front") && told.contains("192.0.2.7\tsome.where"),
            "{told}"
        );
    }
    let beside = scene.run(&["--network", &format!("container:{web}")], &WAIT);
    assert_eq!(scene.field(&beside, ".HostConfig.NetworkMode"), format!("container:{id}"));
    assert_eq!(scene.field(&beside, "json .NetworkSettings.Networks"), "{}");
    assert_eq!(scene.field(&beside, ".Config.Hostname"), "front");
    let links = "cat /sys/class/net/eth0/address";
    let mac = |name: &str| scene.docker.ok(&["exec", name, "sh", "-c", links]);
    assert_eq!(mac(&beside), mac(&web));
    let net = unique("joined-net");
    let _ = scene.docker.ok(&["network", "create", &net]);
    let connected = scene.docker.run(&["network", "connect", &net, &beside]);
    let _ = scene.docker.ok(&["network", "rm", &net]);
    assert!(connected.stderr.contains("container sharing network namespace with another container"), "{connected:?}");
}

#[test]
fn when_the_other_one_ends_loopback_is_left_and_its_next_run_is_reached_after_a_restart() {
    let mut scene = Scene::new();
    let web = scene.run(&["-p", "18620:80"], &["httpd"]);
    let beside = scene.run(&["--network", &format!("container:{web}")], &WAIT);
    let links = |scene: &Scene| scene.docker.ok(&["exec", &beside, "ls", "/sys/class/net"]);
    assert_eq!(links(&scene), "eth0\nlo");
    let _ = scene.docker.ok(&["restart", "-t", "0", &web]);
    assert_eq!(links(&scene), "lo", "it stays in the namespace it joined, as with dockerd");
    // The address is not held by what stayed behind.
    let address = scene.field(&web, "range .NetworkSettings.Networks}}{{.IPAddress}}{{end");
    let url = format!("http://{address}/");
    eventually("the new run answers at its address", Duration::from_secs(5), || {
        scene.docker.run(&["run", "--rm", "busybox", "wget", "-qO-", &url]).code == 0
    });
    let _ = scene.docker.ok(&["restart", "-t", "0", &beside]);
    assert_eq!(links(&scene), "eth0\nlo");
    assert!(scene.docker.ok(&["exec", &beside, "wget", "-qO-", "http://127.0.0.1/"]).contains("It works!"));
}

#[test]
fn only_what_runs_can_be_joined_and_the_refusals_are_dockerds() {
    let mut scene = Scene::new();
    let nobody = scene.docker.run(&["run", "--rm", "--network", "container:nobody-here", "busybox", "true"]);
    assert_eq!(nobody.code, 125);
    let why = "joining network namespace of container: No such container: nobody-here";
    assert!(nobody.stderr.contains(why) && !nobody.stderr.contains("Unable to find image"), "{nobody:?}");
    let web = scene.run(&[], &["httpd"]);
    let network = format!("container:{web}");
    for (options, why) in [
        (["-h", "x"], "conflicting options: hostname and the network mode"),
        (["-p", "18621:80"], "conflicting options: port publishing and the container type network mode"),
        (["--expose", "80"], "conflicting options: port exposing and the container type network mode"),
        (["--dns", "192.0.2.1"], "conflicting options: dns and the network mode"),
        (["--add-host", "a:192.0.2.1"], "conflicting options: custom host-to-IP mapping and the network mode"),
    ] {
        let mut args = vec!["create", "--network", &network];
        args.extend(options);
        args.extend(["busybox", "true"]);
        let refused = scene.docker.run(&args);
        assert!(refused.code != 0 && refused.stderr.contains(why), "{refused:?}");
    }
    let beside = scene.run(&["--network", &network], &WAIT);
    let _ = scene.docker.ok(&["stop", "-t", "0", &beside, &web]);
    let stopped = scene.docker.run(&["start", &beside]);
    let why = format!("cannot join network namespace of a non running container: container {web} is exited");
    assert!(stopped.stderr.contains(&why), "{stopped:?}");
    let id = scene.field(&web, ".Id");
    scene.docker.remove(&[&web]);
    let removed = scene.docker.run(&["start", &beside]);
    let why = format!("joining network namespace of container: No such container: {id}");
    assert!(removed.stderr.contains(&why), "{removed:?}");
}

#[test]
fn another_projects_container_cannot_be_joined() {
    let suite = Suite::here();
    let mut scene = Scene::new();
    let web = scene.run(&[], &["httpd"]);
    let id = scene.field(&web, ".Id");
    let other = suite.docker_as(suite.var("WHARFAGE_TOKEN_2"));
    for reference in [&web, &id] {
        let refused = other.run(&["run", "--rm", "--network", &format!("container:{reference}"), "busybox", "true"]);
        let why = format!("joining network namespace of container: No such container: {reference}");
        assert!(refused.code == 125 && refused.stderr.contains(&why), "{refused:?}");
    }
}

#[test]
fn a_container_without_a_network_can_be_joined_too() {
    let mut scene = Scene::new();
    let none = scene.run(&["--network", "none"], &WAIT);
    let inode = |name: &str| scene.docker.ok(&["exec", name, "readlink", "/proc/self/ns/net"]);
    let network = format!("container:{none}");
    let joined = scene.docker.ok(&["run", "--rm", "--network", &network, "busybox", "readlink", "/proc/self/ns/net"]);
    assert_eq!(joined, inode(&none));
}
