//! The nft tables, as text. One transaction replaces both; when only published ports changed, one
//! transaction changes the elements of the two maps and no rule. What reviewers read are the
//! rendered rulesets in `tests/rulesets/*.nft`.
//!
//! Rules match links by prefix (`wb*`, `wv*`, `wx*`) and ask the routing table (`fib`) for the rest,
//! so that networks and containers come and go without a rule being touched, and a bridge is shut
//! in before the first frame can cross it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
};

use super::{HostConfig, PortKey, PortTarget, Tunnel};
use ipnet::IpNet;

/// What nft shall hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firewall {
    /// The rules and sets; everything but the published ports.
    pub rules: String,
    /// Elements of the maps `published` and `published_at`.
    pub published: BTreeMap<PortKey, PortTarget>,
}

/// Elements to change in the maps, as one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortChange {
    /// To be taken out.
    pub remove: BTreeMap<PortKey, PortTarget>,
    /// To be put in, after the removals.
    pub add: BTreeMap<PortKey, PortTarget>,
}

impl Firewall {
    pub(super) fn compile(
        host: &HostConfig,
        tunnels: &BTreeMap<u32, Tunnel>,
        published: BTreeMap<PortKey, PortTarget>,
    ) -> Self {
        let peers: BTreeSet<IpAddr> = tunnels.values().flat_map(|t| t.peers.iter().copied()).collect();
        Self { rules: rules(host, &peers), published }
    }

    /// The script that replaces both tables and their contents, whatever was there before.
    #[must_use]
    pub fn script(&self) -> String {
        let all = PortChange { remove: BTreeMap::new(), add: self.published.clone() };
        format!("{}{}", self.rules, all.script())
    }

    /// What turns `before` into `self`, if the rules are the same in both.
    #[must_use]
    pub fn port_change(&self, before: &Self) -> Option<PortChange> {
        if self.rules != before.rules {
            return None;
        }
        let missing = |from: &Self, other: &Self| {
            let entries = from.published.iter().filter(|(k, t)| other.published.get(k) != Some(t));
            entries.map(|(k, t)| (*k, *t)).collect()
        };
        Some(PortChange { remove: missing(before, self), add: missing(self, before) })
    }
}

impl PortChange {
    /// The script that makes the change.
    #[must_use]
    pub fn script(&self) -> String {
        let mut script = String::new();
        for (verb, entries) in [("delete", &self.remove), ("add", &self.add)] {
            for (key, target) in entries {
                let (map, address) = match key.address {
                    None => ("published", String::new()),
                    Some(address) => ("published_at", format!("{address} . ")),
                };
                let protocol = key.protocol.as_str();
                let (port, to, to_port) = (key.port, target.address, target.port);
                writeln!(
                    script,
                    "{verb} element inet wharfage {map} {{ {address}{protocol} . {port} : {to} . {to_port} }}"
                )
                .expect("a String takes everything");
            }
        }
        script
    }
}

fn rules(host: &HostConfig, peers: &BTreeSet<IpAddr>) -> String {
    let protected = host.protected.iter().filter_map(|net| match net {
        IpNet::V4(net) => Some(net.trunc()),
        IpNet::V6(_) => None, // containers have no IPv6 at all
    });
    let protected = set("protected", "ipv4_addr", "flags interval; auto-merge;", aggregated(protected));
    let v4 = peers.iter().filter(|p| p.is_ipv4()).map(ToString::to_string);
    let v6 = peers.iter().filter(|p| p.is_ipv6()).map(ToString::to_string);
    let peers_v4 = set("vxlan_peers", "ipv4_addr", "", v4);
    let peers_v6 = set("vxlan_peers6", "ipv6_addr", "", v6);
    let port = host.vxlan_port;
    // Without a tunnel there is no socket to guard, and the port may be another program's.
    let guard = if peers.is_empty() {
        String::new()
    } else {
        format!(
            "\t\tudp dport {port} ip saddr != @vxlan_peers drop comment \"tunnels: from peers only\"\n\
             \t\tudp dport {port} ip6 saddr != @vxlan_peers6 drop comment \"tunnels: from peers only\"\n"
        )
    };
    include_str!("rules.nft")
        .replace("#protected#\n", &protected)
        .replace("#peers#\n", &format!("{peers_v4}{peers_v6}"))
        .replace("#tunnel-guard#\n", &guard)
        .replace("#vxlan-port#", &port.to_string())
}

/// nft refuses overlapping elements even with `auto-merge` in some versions; merge them here.
fn aggregated(nets: impl Iterator<Item = ipnet::Ipv4Net>) -> impl Iterator<Item = String> {
    ipnet::Ipv4Net::aggregate(&nets.collect::<Vec<_>>()).into_iter().map(|net| net.to_string())
}

fn set(name: &str, kind: &str, flags: &str, elements: impl Iterator<Item = String>) -> String {
    let elements: Vec<_> = elements.collect();
    let elements =
        if elements.is_empty() { String::new() } else { format!("\t\telements = {{ {} }}\n", elements.join(", ")) };
    let flags = if flags.is_empty() { String::new() } else { format!("\t\t{flags}\n") };
    format!("\tset {name} {{\n\t\ttype {kind}\n{flags}{elements}\t}}\n")
}
