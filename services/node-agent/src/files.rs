//! `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf` of a container, as dockerd writes them. Text
//! is made by pure functions; only [`write`] touches the disk.

use std::{
    fmt::Write as _,
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use contract::{
    host::{HostsLine, PlannedContainer, PlannedNetwork},
    net::NetResolver,
};

/// What a container may make of its files before they are left alone.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Where they are on the host.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) hostname: PathBuf,
    pub(crate) hosts: PathBuf,
    pub(crate) resolv_conf: PathBuf,
}

/// The host name a container gets.
pub(crate) fn hostname(container: &PlannedContainer) -> &str {
    let wanted = &container.spec.hostname;
    if wanted.is_empty() { container.id.short() } else { wanted }
}

/// Those of the container whose directory this is, as its last start left them.
pub(crate) fn at(dir: &Path) -> Files {
    let files = dir.join("files");
    let at = |name: &str| files.join(name);
    Files { hostname: at("hostname"), hosts: at("hosts"), resolv_conf: at("resolv.conf") }
}

/// Writes all three below the container's directory; they belong to `owner`, the container's root.
///
/// # Errors
/// The disk is full.
pub(crate) fn write(
    dir: &Path,
    container: &PlannedContainer,
    networks: &[PlannedNetwork],
    owner: Option<u32>,
) -> io::Result<Files> {
    let files = dir.join("files");
    let host_resolv = host_resolv();
    let at = |name: &str, text: String| -> io::Result<PathBuf> {
        let path = files.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        if owner.is_some() {
            std::os::unix::fs::chown(&path, owner, owner)?;
        }
        Ok(path)
    };
    Ok(Files {
        hostname: at("hostname", format!("{}\n", hostname(container)))?,
        hosts: at("hosts", hosts(container, networks))?,
        resolv_conf: at("resolv.conf", resolv_conf(container, networks, &host_resolv))?,
    })
}

fn hosts(container: &PlannedContainer, networks: &[PlannedNetwork]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    let gateway = networks.iter().find(|n| !n.internal).and_then(|n| n.gateway.or_else(|| n.subnet.hosts().next()));
    for extra in &container.spec.extra_hosts {
        let Some((name, address)) = extra.split_once([':', '=']) else { continue };
        match (address, gateway) {
            ("host-gateway", Some(gateway)) => _ = writeln!(text, "{gateway}\t{name}"),
            ("host-gateway", None) => {}
            _ => _ = writeln!(text, "{}\t{name}", address.trim_matches(['[', ']'])),
        }
    }
    text.extend(container.linked.iter().map(linked_line));
    for endpoint in &container.endpoints {
        text.push_str(&own_line(container, endpoint.ip));
    }
    text
}

/// Each name once.
fn linked_line(line: &HostsLine) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in &line.names {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    format!("{}\t{}\n", line.ip, names.join(" "))
}

fn own_line(container: &PlannedContainer, ip: Ipv4Addr) -> String {
    let (name, domain) = (hostname(container), &container.spec.domainname);
    if domain.is_empty() { format!("{ip}\t{name}\n") } else { format!("{ip}\t{name}.{domain} {name}\n") }
}

/// Changes the files of a container that runs as its networks and links change, in place: they are
/// mounted. What the container wrote there itself stays. `linked`: the lines of its links before.
///
/// # Errors
/// The disk is full.
pub(crate) fn adapt(
    dir: &Path,
    now: &PlannedContainer,
    linked: &[HostsLine],
    networks: &[PlannedNetwork],
) -> io::Result<()> {
    let files = dir.join("files");
    let change = |name: &str, changed: &dyn Fn(&str) -> Option<String>| -> io::Result<()> {
        let path = files.join(name);
        let text = match fs::metadata(&path) {
            Ok(found) if found.len() <= FILE_MAX_BYTES => fs::read_to_string(&path),
            // A container may fill it with anything; then it is its own affair.
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => Err(error),
        };
        match text {
            Ok(text) => changed(&text).map_or(Ok(()), |text| fs::write(&path, text)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(()),
            Err(error) => Err(error),
        }
    };
    change("hosts", &|text| Some(changed_hosts(text, now, linked)).filter(|changed| changed != text))?;
    let (host, wanted) = (host_resolv(), |of| resolv_conf(now, of, &host_resolv()));
    let without_names = resolv_conf(now, &[], &host);
    let with_names = named_resolv_conf(now, &host);
    change("resolv.conf", &|text| {
        let ours = text == without_names || text == with_names;
        Some(wanted(networks)).filter(|changed| ours && changed != text)
    })
}

/// Lines that give the container's own name to an address it does not have go; those of addresses
/// that have none come. Likewise those of links.
fn changed_hosts(text: &str, now: &PlannedContainer, linked: &[HostsLine]) -> String {
    let unlinked: Vec<String> = linked.iter().filter(|line| !now.linked.contains(line)).map(linked_line).collect();
    let come = now.linked.iter().filter(|line| !linked.contains(line)).map(linked_line);
    let own: Vec<String> = now.endpoints.iter().map(|e| own_line(now, e.ip)).collect();
    let stale = |line: &str| {
        let ip = line.split('\t').next().and_then(|ip| ip.parse::<Ipv4Addr>().ok());
        let is_stale = ip.is_some_and(|ip| line == own_line(now, ip)) && !own.iter().any(|own| own == line);
        is_stale || unlinked.iter().any(|gone| gone == line)
    };
    let mut changed: String = text.split_inclusive('\n').filter(|line| !stale(line)).collect();
    changed.extend(come.filter(|line| !text.contains(line.as_str())));
    changed.extend(own.iter().filter(|line| !text.contains(line.as_str())).map(String::as_str));
    changed
}

fn host_resolv() -> String {
    fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
}

/// Whom netd asks for names that no network of the container knows: those of the user, or the host's.
pub(crate) fn resolvers(container: &PlannedContainer) -> Vec<NetResolver> {
    let of_host = || words(&host_resolv(), "nameserver").into_iter().map(|server| (server, true)).collect();
    let chosen = &container.spec.dns;
    let servers: Vec<(String, bool)> =
        if chosen.is_empty() { of_host() } else { chosen.iter().map(|server| (server.clone(), false)).collect() };
    let resolver = |(server, from_host): (String, bool)| Some(NetResolver { address: server.parse().ok()?, from_host });
    servers.into_iter().filter_map(resolver).collect()
}

/// The words of all lines that begin with a keyword.
fn words(text: &str, keyword: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|l| l.split_once(char::is_whitespace)).filter(|(k, _)| *k == keyword);
    lines.flat_map(|(_, rest)| rest.split_whitespace().map(str::to_owned)).collect()
}

fn resolv_conf(container: &PlannedContainer, networks: &[PlannedNetwork], host: &str) -> String {
    if networks.iter().any(|network| network.names.is_some()) {
        return named_resolv_conf(container, host);
    }
    // A resolver on the host's loopback is not on the container's.
    let reachable = |s: &String| s.parse::<IpAddr>().is_ok_and(|ip| !ip.is_loopback());
    let mut servers: Vec<String> = if container.spec.dns.is_empty() {
        words(host, "nameserver").into_iter().filter(reachable).collect()
    } else {
        container.spec.dns.clone()
    };
    if servers.is_empty() {
        servers = vec!["8.8.8.8".into(), "8.8.4.4".into()];
    }
    resolv_text(container, host, &servers, &[])
}

/// netd answers inside the container, and asks further.
fn named_resolv_conf(container: &PlannedContainer, host: &str) -> String {
    resolv_text(container, host, &["127.0.0.11".into()], &["ndots:0"])
}

fn resolv_text(container: &PlannedContainer, host: &str, servers: &[String], more_options: &[&str]) -> String {
    let spec = &container.spec;
    let search = if spec.dns_search.is_empty() { words(host, "search") } else { spec.dns_search.clone() };
    let mut options = if spec.dns_options.is_empty() { words(host, "options") } else { spec.dns_options.clone() };
    for option in more_options {
        let name = option.split(':').next().unwrap_or(option);
        if !options.iter().any(|given| given.split(':').next() == Some(name)) {
            options.push((*option).to_owned());
        }
    }
    let mut text = String::new();
    for server in servers {
        _ = writeln!(text, "nameserver {server}");
    }
    // `--dns-search .` means none.
    if !search.is_empty() && search != ["."] {
        _ = writeln!(text, "search {}", search.join(" "));
    }
    if !options.is_empty() {
        _ = writeln!(text, "options {}", options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use contract::host::PlannedImage;
    use model::{ContainerId, ContainerSpec, Desired, Digest, Endpoint, NetworkId, ProjectId};

    use super::*;

    fn container(spec: ContainerSpec) -> PlannedContainer {
        PlannedContainer {
            id: ContainerId::from_bytes([0xab; 32]),
            project: ProjectId(uuid::Uuid::nil()),
            uid_base: None,
            name: "web".parse().expect("a name"),
            desired: Desired::Created,
            spec,
            image: PlannedImage { id: Digest::sha256([0; 32]), layers: Vec::new() },
            endpoints: vec![Endpoint {
                network: NetworkId::from_bytes([1; 32]),
                ip: [10, 128, 0, 5].into(),
                interface: 0,
                mac: None,
                links: Vec::new(),
            }],
            ports: Vec::new(),
            linked: Vec::new(),
        }
    }

    fn network() -> PlannedNetwork {
        PlannedNetwork {
            id: NetworkId::from_bytes([1; 32]),
            project: ProjectId(uuid::Uuid::nil()),
            vni: 1,
            subnet: "10.128.0.0/20".parse().expect("a subnet"),
            gateway: None,
            internal: false,
            peers: Vec::new(),
            names: None,
        }
    }

    #[test]
    fn on_a_network_with_names_netd_is_asked_and_asks_the_others() {
        let named = PlannedNetwork { names: Some(Vec::new()), ..network() };
        let text = resolv_conf(&container(ContainerSpec::default()), &[network(), named], "nameserver 10.0.0.2\n");
        assert_eq!(text, "nameserver 127.0.0.11\noptions ndots:0\n");
        let spec = ContainerSpec { dns: vec!["1.1.1.1".into()], ..ContainerSpec::default() };
        let asked = resolvers(&container(spec));
        assert_eq!(asked, [NetResolver { address: [1, 1, 1, 1].into(), from_host: false }]);
    }

    #[test]
    fn the_names_of_a_link_come_and_go_while_the_container_runs() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("files")).expect("made");
        let link = |name: &str| HostsLine { ip: [10, 128, 0, 9].into(), names: vec!["db".into(), name.into()] };
        let mut before = container(ContainerSpec::default());
        before.linked = vec![link("store"), link("other")];
        write(dir.path(), &before, &[network()], None).expect("written");
        let mut now = before.clone();
        now.linked = vec![link("other"), link("new")];
        adapt(dir.path(), &now, &before.linked, &[network()]).expect("adapted");
        let text = fs::read_to_string(dir.path().join("files/hosts")).expect("readable");
        let has = |name: &str| text.contains(&format!("10.128.0.9\tdb {name}\n"));
        assert!(has("other") && has("new") && !has("store"), "{text}");
    }

    #[test]
    fn the_files_of_a_running_container_follow_its_networks_and_keep_what_it_wrote() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("files")).expect("made");
        let before = container(ContainerSpec::default());
        write(dir.path(), &before, &[network()], None).expect("written");
        let hosts = dir.path().join("files/hosts");
        let own = fs::read_to_string(&hosts).expect("readable") + "10.9.9.9\tmine\n";
        fs::write(&hosts, own).expect("written");
        let mut now = before.clone();
        now.endpoints[0].ip = [10, 128, 7, 9].into();
        let named = PlannedNetwork { names: Some(Vec::new()), ..network() };
        adapt(dir.path(), &now, &now.linked, &[named]).expect("adapted");
        let text = fs::read_to_string(&hosts).expect("readable");
        assert!(text.contains("10.128.7.9\tabababababab\n") && text.contains("mine"), "{text}");
        assert!(!text.contains("10.128.0.5"), "{text}");
        let resolv = fs::read_to_string(dir.path().join("files/resolv.conf")).expect("readable");
        assert!(resolv.starts_with("nameserver 127.0.0.11\n"), "{resolv}");
        fs::write(dir.path().join("files/resolv.conf"), "nameserver 9.9.9.9\n").expect("written");
        adapt(dir.path(), &before, &before.linked, &[network()]).expect("adapted");
        let resolv = fs::read_to_string(dir.path().join("files/resolv.conf")).expect("readable");
        assert_eq!(resolv, "nameserver 9.9.9.9\n", "the container's own");
    }

    #[test]
    fn a_container_finds_itself_and_its_extra_hosts() {
        let spec = ContainerSpec {
            extra_hosts: vec!["db:10.0.0.9".into(), "up:host-gateway".into(), "six:[::2]".into()],
            ..ContainerSpec::default()
        };
        let text = hosts(&container(spec), &[network()]);
        assert!(text.ends_with("10.0.0.9\tdb\n10.128.0.1\tup\n::2\tsix\n10.128.0.5\tabababababab\n"), "{text}");
    }

    #[test]
    fn a_domain_gives_both_names() {
        let spec = ContainerSpec { hostname: "a".into(), domainname: "b.c".into(), ..ContainerSpec::default() };
        assert!(hosts(&container(spec), &[]).ends_with("10.128.0.5\ta.b.c a\n"));
    }

    #[test]
    fn loopback_resolvers_are_left_out() {
        let host = "# c\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch a b\noptions edns0\n";
        let text = resolv_conf(&container(ContainerSpec::default()), &[], host);
        assert_eq!(text, "nameserver 10.0.0.2\nsearch a b\noptions edns0\n");
        let text = resolv_conf(&container(ContainerSpec::default()), &[], "nameserver ::1\n");
        assert_eq!(text, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
    }

    #[test]
    fn what_the_user_asks_for_replaces_the_hosts() {
        let spec =
            ContainerSpec { dns: vec!["1.1.1.1".into()], dns_search: vec![".".into()], ..ContainerSpec::default() };
        assert_eq!(resolv_conf(&container(spec), &[], "nameserver 10.0.0.2\nsearch a\n"), "nameserver 1.1.1.1\n");
    }
}
