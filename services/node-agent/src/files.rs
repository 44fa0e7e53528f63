//! `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf` of a container, as dockerd writes them. Text
//! is made by pure functions; only [`write`] touches the disk.

use std::{
    fmt::Write as _,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use contract::host::{PlannedContainer, PlannedNetwork};

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

/// Writes all three below the container's directory; they belong to `owner`, the container's root.
///
/// # Errors
/// The disk is full.
pub(crate) fn write(
    dir: &Path,
    container: &PlannedContainer,
    network: Option<&PlannedNetwork>,
    owner: Option<u32>,
) -> io::Result<Files> {
    let files = dir.join("files");
    let host_resolv = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
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
        hosts: at("hosts", hosts(container, network))?,
        resolv_conf: at("resolv.conf", resolv_conf(container, &host_resolv))?,
    })
}

fn hosts(container: &PlannedContainer, network: Option<&PlannedNetwork>) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    let gateway = network.and_then(|n| n.subnet.hosts().next());
    for extra in &container.spec.extra_hosts {
        let Some((name, address)) = extra.split_once([':', '=']) else { continue };
        match (address, gateway) {
            ("host-gateway", Some(gateway)) => _ = writeln!(text, "{gateway}\t{name}"),
            ("host-gateway", None) => {}
            _ => _ = writeln!(text, "{}\t{name}", address.trim_matches(['[', ']'])),
        }
    }
    if let Some(endpoint) = &container.endpoint {
        let (name, domain) = (hostname(container), &container.spec.domainname);
        if domain.is_empty() {
            _ = writeln!(text, "{}\t{name}", endpoint.ip);
        } else {
            _ = writeln!(text, "{}\t{name}.{domain} {name}", endpoint.ip);
        }
    }
    text
}

/// A resolver on the host's loopback is not on the container's.
fn resolv_conf(container: &PlannedContainer, host: &str) -> String {
    let spec = &container.spec;
    let lines = |keyword: &str| -> Vec<String> {
        let words = host.lines().filter_map(|l| l.split_once(char::is_whitespace)).filter(|(k, _)| *k == keyword);
        words.flat_map(|(_, rest)| rest.split_whitespace().map(str::to_owned)).collect()
    };
    let reachable = |s: &String| s.parse::<IpAddr>().is_ok_and(|ip| !ip.is_loopback());
    let mut servers: Vec<String> = if spec.dns.is_empty() {
        lines("nameserver").into_iter().filter(reachable).collect()
    } else {
        spec.dns.clone()
    };
    if servers.is_empty() {
        servers = vec!["8.8.8.8".into(), "8.8.4.4".into()];
    }
    let search = if spec.dns_search.is_empty() { lines("search") } else { spec.dns_search.clone() };
    let options = if spec.dns_options.is_empty() { lines("options") } else { spec.dns_options.clone() };
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
            endpoint: Some(Endpoint { network: NetworkId::from_bytes([1; 32]), ip: [10, 128, 0, 5].into() }),
            ports: Vec::new(),
        }
    }

    fn network() -> PlannedNetwork {
        PlannedNetwork {
            id: NetworkId::from_bytes([1; 32]),
            project: ProjectId(uuid::Uuid::nil()),
            vni: 1,
            subnet: "10.128.0.0/20".parse().expect("a subnet"),
            peers: Vec::new(),
        }
    }

    #[test]
    fn a_container_finds_itself_and_its_extra_hosts() {
        let spec = ContainerSpec {
            extra_hosts: vec!["db:10.0.0.9".into(), "up:host-gateway".into(), "six:[::2]".into()],
            ..ContainerSpec::default()
        };
        let text = hosts(&container(spec), Some(&network()));
        assert!(text.ends_with("10.0.0.9\tdb\n10.128.0.1\tup\n::2\tsix\n10.128.0.5\tabababababab\n"), "{text}");
    }

    #[test]
    fn a_domain_gives_both_names() {
        let spec = ContainerSpec { hostname: "a".into(), domainname: "b.c".into(), ..ContainerSpec::default() };
        assert!(hosts(&container(spec), None).ends_with("10.128.0.5\ta.b.c a\n"));
    }

    #[test]
    fn loopback_resolvers_are_left_out() {
        let host = "# c\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch a b\noptions edns0\n";
        let text = resolv_conf(&container(ContainerSpec::default()), host);
        assert_eq!(text, "nameserver 10.0.0.2\nsearch a b\noptions edns0\n");
        let text = resolv_conf(&container(ContainerSpec::default()), "nameserver ::1\n");
        assert_eq!(text, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
    }

    #[test]
    fn what_the_user_asks_for_replaces_the_hosts() {
        let spec =
            ContainerSpec { dns: vec!["1.1.1.1".into()], dns_search: vec![".".into()], ..ContainerSpec::default() };
        assert_eq!(resolv_conf(&container(spec), "nameserver 10.0.0.2\nsearch a\n"), "nameserver 1.1.1.1\n");
    }
}
