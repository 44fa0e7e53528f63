//! `EndpointSettings`: how a container's places on networks are shown, in inspect and in every line
//! of a list. Written straight from the record: a list of a thousand makes no tree of values first.

use model::MacAddress;
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::net::Ipv4Addr;
use store::{ContainerRecord, EndpointRecord};

use crate::docker::networks::endpoint_id;

/// `Networks`: by name.
pub(super) struct Networks<'a> {
    container: &'a ContainerRecord,
    running: bool,
}

impl<'a> Networks<'a> {
    pub(super) fn of(container: &'a ContainerRecord, running: bool) -> Self {
        Self { container, running }
    }
}

impl<'a> Serialize for Networks<'a> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (container, running): (&'a ContainerRecord, bool) = (self.container, self.running);
        if container.endpoints.is_empty() && container.spec.network_none {
            return serializer.collect_map([("none", EndpointSettings::of(container, None, running))]);
        }
        let shown = |e: &'a EndpointRecord| (&e.network_name, EndpointSettings::of(container, Some(e), running));
        serializer.collect_map(container.endpoints.iter().map(shown))
    }
}

/// One of them. What is only there while it runs is empty otherwise.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct EndpointSettings<'a> {
    #[serde(rename = "IPAMConfig")]
    ipam_config: Option<IpamConfig>,
    links: Option<&'a [String]>,
    aliases: Option<&'a [String]>,
    driver_opts: Option<&'a Value>,
    gw_priority: i32,
    #[serde(rename = "NetworkID")]
    network_id: &'a str,
    #[serde(rename = "EndpointID")]
    pub(super) endpoint_id: String,
    pub(super) gateway: String,
    #[serde(rename = "IPAddress")]
    pub(super) ip_address: String,
    pub(super) mac_address: String,
    #[serde(rename = "IPPrefixLen")]
    pub(super) ip_prefix_len: u8,
    #[serde(rename = "IPv6Gateway")]
    ipv6_gateway: &'static str,
    #[serde(rename = "GlobalIPv6Address")]
    global_ipv6_address: &'static str,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    global_ipv6_prefix_len: u8,
    #[serde(rename = "DNSNames")]
    dns_names: Option<Vec<&'a str>>,
}

/// What the user asked for.
#[derive(Serialize)]
struct IpamConfig {
    #[serde(rename = "IPv4Address", skip_serializing_if = "Option::is_none")]
    ipv4_address: Option<Ipv4Addr>,
}

impl<'a> EndpointSettings<'a> {
    /// Of a place on a network; of none, as dockerd shows the network `none`.
    pub(super) fn of(container: &'a ContainerRecord, endpoint: Option<&'a EndpointRecord>, running: bool) -> Self {
        let live = endpoint.filter(|_| running);
        let named = endpoint.filter(|e| e.named);
        let fixed = endpoint.filter(|e| e.fixed_ip);
        // One that was chosen is shown before it is there.
        let mac = endpoint.and_then(|e| e.mac).or_else(|| live.map(|e| MacAddress::of(e.ip)));
        Self {
            ipam_config: fixed.or(named).map(|_| IpamConfig { ipv4_address: fixed.map(|e| e.ip) }),
            links: endpoint.map(|e| e.links.as_slice()).filter(|links| !links.is_empty()),
            aliases: endpoint.map(|e| e.aliases.as_slice()).filter(|aliases| !aliases.is_empty()),
            driver_opts: endpoint.and_then(|e| driver_options(container, e)),
            gw_priority: endpoint.map_or(0, |e| e.gw_priority),
            network_id: endpoint.map_or("", |e| e.network.as_str()),
            endpoint_id: live.map(|e| endpoint_id(&container.id, &e.network)).unwrap_or_default(),
            // An internal network has no way out.
            gateway: live.filter(|e| !e.internal).map(|e| e.gateway.to_string()).unwrap_or_default(),
            ip_address: live.map(|e| e.ip.to_string()).unwrap_or_default(),
            mac_address: mac.map(|mac| mac.to_string()).unwrap_or_default(),
            ip_prefix_len: live.map_or(0, |e| e.subnet.prefix_len()),
            ipv6_gateway: "",
            global_ipv6_address: "",
            global_ipv6_prefix_len: 0,
            dns_names: named.map(|e| names_on(container, e)),
        }
    }
}

/// As they were given, by the network's name or id.
fn driver_options<'a>(container: &'a ContainerRecord, endpoint: &EndpointRecord) -> Option<&'a Value> {
    let given = container.spec.shown.get("DriverOpts")?;
    given.get(&endpoint.network_name).or_else(|| given.get(endpoint.network.as_str()))
}

/// What the container answers to on a network, each name once.
fn names_on<'a>(container: &'a ContainerRecord, endpoint: &'a EndpointRecord) -> Vec<&'a str> {
    let hostname = Some(container.spec.hostname.as_str()).filter(|name| !name.is_empty());
    let aliases = endpoint.aliases.iter().map(String::as_str);
    let all = std::iter::once(container.name.as_str()).chain(aliases).chain([container.id.short()]).chain(hostname);
    let mut names = Vec::new();
    for name in all {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
