//! Networking: the outside, each other, published ports, nobody else's.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use tests::{Docker, Suite, eventually, unique};

fn address_of(docker: &Docker, name: &str) -> String {
    docker.ok(&["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name])
}

fn http_get(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn a_published_port_answers_on_loopback() {
    let docker = Suite::here().docker();
    let name = unique("web");
    let _ = docker.ok(&["run", "-d", "--name", &name, "-p", "18080:80", "httpd"]);
    eventually("the web server answers", Duration::from_secs(5), || {
        http_get("127.0.0.1:18080").is_ok_and(|text| text.contains("It works!"))
    });
    assert!(docker.ok(&["port", &name]).contains("80/tcp -> 0.0.0.0:18080"));
    let taken = docker.run(&["run", "--rm", "-p", "18080:80", "httpd"]);
    assert_eq!(taken.code, 125, "{taken:?}");
    assert!(taken.stderr.contains("port is already allocated"), "{taken:?}");
    docker.remove(&[&name]);
    eventually("the port is closed again", Duration::from_secs(5), || http_get("127.0.0.1:18080").is_err());
}

#[test]
fn a_port_without_a_number_gets_a_free_one() {
    let docker = Suite::here().docker();
    let name = unique("ephemeral");
    let _ = docker.ok(&["run", "-d", "--name", &name, "-p", "80", "httpd"]);
    let port = docker.ok(&["port", &name, "80/tcp"]);
    let port = port.lines().next().and_then(|line| line.rsplit(':').next()).expect("a port").to_owned();
    eventually("it answers", Duration::from_secs(5), || http_get(&format!("127.0.0.1:{port}")).is_ok());
    docker.remove(&[&name]);
}

#[test]
fn containers_of_a_project_reach_each_other_by_address() {
    let docker = Suite::here().docker();
    let name = unique("peer");
    let _ = docker.ok(&["run", "-d", "--name", &name, "httpd"]);
    let url = format!("http://{}/", address_of(&docker, &name));
    assert!(docker.ok(&["run", "--rm", "busybox", "wget", "-qO-", &url]).contains("It works!"));
    docker.remove(&[&name]);
}

#[test]
fn another_projects_container_is_out_of_reach() {
    let suite = Suite::here();
    let (docker, other) = (suite.docker(), suite.docker_as(suite.var("WHARFAGE_TOKEN_2")));
    let name = unique("private");
    let _ = docker.ok(&["run", "-d", "--name", &name, "httpd"]);
    let address = address_of(&docker, &name);
    let ping = ["run", "--rm", "busybox", "ping", "-c", "1", "-W", "1", &address];
    assert_eq!(docker.run(&ping).code, 0, "its own project reaches it");
    assert_ne!(other.run(&ping).code, 0, "another project reaches it");
    let connect = ["run", "--rm", "busybox", "nc", "-w", "2", &address, "80"];
    assert_ne!(other.run(&connect).code, 0, "another project connects");
    docker.remove(&[&name]);
}

#[test]
fn the_control_plane_and_the_hosts_loopback_are_out_of_reach() {
    let suite = Suite::here();
    let docker = suite.docker();
    let gateway = docker.ok(&["run", "--rm", "busybox", "sh", "-c", "ip route | awk '/default/ {print $3}'"]);
    let port = suite.var("WHARFAGE_URL").rsplit(':').next().expect("a port").to_owned();
    for target in [gateway.as_str(), "127.0.0.1"] {
        let probe = format!("nc -w 2 {target} {port} </dev/null");
        assert_ne!(docker.run(&["run", "--rm", "busybox", "sh", "-c", &probe]).code, 0, "{target}:{port} answers");
    }
}

#[test]
fn the_outside_is_reached_by_masquerade() {
    // The machine's own resolver is the one address outside that every machine has.
    let resolver = std::fs::read_to_string("/etc/resolv.conf")
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix("nameserver").map(|rest| rest.trim().to_owned()));
    let Some(resolver) = resolver.filter(|address| !address.starts_with("127.")) else { return };
    let docker = Suite::here().docker();
    let outcome = docker.run(&["run", "--rm", "busybox", "nslookup", "-type=a", "deb.invalid", &resolver]);
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(!said.contains("timed out") && !said.contains("no servers"), "the resolver was not reached: {said}");
}

#[test]
fn network_none_has_only_loopback() {
    let docker = Suite::here().docker();
    assert_eq!(docker.ok(&["run", "--rm", "--network", "none", "busybox", "ls", "/sys/class/net"]), "lo");
}

#[test]
fn of_a_range_each_container_gets_the_next_free_port() {
    let docker = Suite::here().docker();
    let names: Vec<String> = (0..3).map(|_| unique("range")).collect();
    let run = |name: &str| docker.run(&["run", "-d", "--name", name, "-p", "18300-18301:80", "httpd"]);
    let ports: Vec<String> = names[..2]
        .iter()
        .map(|name| {
            assert_eq!(run(name).code, 0);
            docker.ok(&["port", name, "80/tcp"]).rsplit(':').next().expect("a port").to_owned()
        })
        .collect();
    assert_eq!(ports, ["18300", "18301"]);
    let full = run(&names[2]);
    assert!(full.stderr.contains("all ports are allocated"), "{full:?}");
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    docker.remove(&names);
}
