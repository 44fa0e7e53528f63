//! Who answers to which name, and who may ask: the plan's names, by network. Kept beside the plan
//! and changed with it, so that a change of one network costs no more than that network.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    sync::{Arc, PoisonError, RwLock},
};

use contract::net::{NetDelta, NetEndpoint, NetNetwork, NetPlan, NetResolver};
use model::{ContainerId, NetworkId};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Directory(RwLock<Entries>);

#[derive(Debug, Default)]
struct Entries {
    networks: HashMap<NetworkId, Arc<Zone>>,
    askers: HashMap<ContainerId, Arc<Asker>>,
}

/// The names of one network.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Zone {
    addresses: HashMap<String, Vec<Ipv4Addr>>,
    /// The first name of each address.
    names: HashMap<Ipv4Addr, String>,
    leads_outside: bool,
}

/// One container that asks.
#[derive(Debug)]
struct Asker {
    networks: Vec<(NetworkId, Links)>,
    resolvers: Vec<NetResolver>,
}

/// Names that one container alone sees on a network, and the names they stand for.
type Links = Arc<BTreeMap<String, String>>;

/// What one container is told: the networks it is on, and whom to ask further.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) zones: Vec<Arc<Zone>>,
    /// Its links on each of them.
    pub(super) links: Vec<Links>,
    /// None if no network of it leads outside.
    pub(super) resolvers: Vec<NetResolver>,
}

impl Directory {
    pub(super) fn replace(&self, plan: &NetPlan) {
        let mut entries = Entries::default();
        for network in plan.networks.values() {
            entries.put_network(network);
        }
        for endpoint in plan.endpoints.values() {
            entries.put_asker(endpoint);
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = entries;
    }

    pub(super) fn change(&self, plan: &NetPlan, delta: &NetDelta) {
        let mut entries = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for network in &delta.networks {
            entries.put_network(network);
        }
        for container in &delta.remove_endpoints {
            entries.askers.remove(container);
        }
        for endpoint in &delta.endpoints {
            entries.put_asker(endpoint);
        }
        entries.networks.retain(|id, _| plan.networks.contains_key(id.as_str()));
    }

    /// Whether a container is on a network that serves names.
    pub(super) fn serves(&self, container: &ContainerId) -> bool {
        let entries = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let asker = entries.askers.get(container);
        asker.is_some_and(|asker| asker.networks.iter().any(|(network, _)| entries.networks.contains_key(network)))
    }

    /// What a container is told now.
    pub(super) fn view(&self, container: &ContainerId) -> View {
        let entries = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(asker) = entries.askers.get(container) else { return View::default() };
        let zone = |(id, links): &(NetworkId, Links)| Some((entries.networks.get(id).cloned()?, links.clone()));
        let (zones, links): (Vec<_>, Vec<_>) = asker.networks.iter().filter_map(zone).unzip();
        // A network without names is the project's own bridge, which leads outside.
        let leads_outside = zones.len() < asker.networks.len() || zones.iter().any(|zone| zone.leads_outside);
        View { zones, links, resolvers: if leads_outside { asker.resolvers.clone() } else { Vec::new() } }
    }
}

impl Entries {
    fn put_network(&mut self, network: &NetNetwork) {
        match &network.names {
            Some(_) => drop(self.networks.insert(network.id.clone(), Arc::new(Zone::of(network)))),
            None => drop(self.networks.remove(&network.id)),
        }
    }

    fn put_asker(&mut self, endpoint: &NetEndpoint) {
        let networks =
            endpoint.attachments.iter().map(|one| (one.network.clone(), Arc::new(one.links.clone()))).collect();
        let asker = Asker { networks, resolvers: endpoint.resolvers.clone() };
        self.askers.insert(endpoint.container.clone(), Arc::new(asker));
    }
}

impl View {
    /// Who answers to a name, which is in lower case. A link comes before everybody's names, and hides
    /// what has its name on its own network.
    pub(super) fn addresses(&self, name: &str) -> Vec<Ipv4Addr> {
        let all = || self.zones.iter().zip(&self.links);
        let linked = all().filter_map(|(zone, links)| Some(zone.addresses(links.get(name)?)));
        let linked: Vec<Ipv4Addr> = linked.flatten().copied().collect();
        if !linked.is_empty() {
            return linked;
        }
        let rest = all().filter(|(_, links)| !links.contains_key(name));
        rest.flat_map(|(zone, _)| zone.addresses(name)).copied().collect()
    }
}

impl Zone {
    pub(super) fn of(network: &NetNetwork) -> Self {
        let mut zone = Self { leads_outside: !network.internal, ..Self::default() };
        for entry in network.names.iter().flatten() {
            let addresses = zone.addresses.entry(entry.name.to_ascii_lowercase()).or_default();
            if !addresses.contains(&entry.ip) {
                addresses.push(entry.ip);
            }
            zone.names.entry(entry.ip).or_insert_with(|| entry.name.clone());
        }
        zone
    }

    /// Who answers to a name, which is in lower case.
    pub(super) fn addresses(&self, name: &str) -> &[Ipv4Addr] {
        self.addresses.get(name).map_or(&[], Vec::as_slice)
    }

    /// What an address is called.
    pub(super) fn name(&self, address: Ipv4Addr) -> Option<&str> {
        self.names.get(&address).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use contract::net::{NetAttachment, NetName};

    use super::*;

    fn network(n: u8, internal: bool, names: Option<&[(&str, u8)]>) -> NetNetwork {
        let name = |(name, last): &(&str, u8)| NetName { name: (*name).into(), ip: [10, 128, n, *last].into() };
        NetNetwork {
            id: NetworkId::from_bytes([n; 32]),
            vni: n.into(),
            subnet: format!("10.128.{n}.0/24").parse().expect("a subnet"),
            gateway: None,
            internal,
            peers: Vec::new(),
            names: names.map(|names| names.iter().map(name).collect()),
        }
    }

    fn endpoint(n: u8, on: &[u8]) -> NetEndpoint {
        let attachment = |(interface, on): (usize, &u8)| NetAttachment {
            network: NetworkId::from_bytes([*on; 32]),
            ip: [10, 128, *on, n].into(),
            interface: u8::try_from(interface).expect("small"),
            mac: None,
            links: BTreeMap::new(),
        };
        NetEndpoint {
            container: ContainerId::from_bytes([n; 32]),
            attachments: on.iter().enumerate().map(attachment).collect(),
            ports: Vec::new(),
            resolvers: vec![NetResolver { address: [192, 0, 2, 53].into(), from_host: true }],
            owner: None,
        }
    }

    fn directory(networks: Vec<NetNetwork>, endpoints: Vec<NetEndpoint>) -> Directory {
        let directory = Directory::default();
        directory.replace(&NetPlan {
            networks: networks.into_iter().map(|n| (n.id.to_string(), n)).collect(),
            endpoints: endpoints.into_iter().map(|e| (e.container.to_string(), e)).collect(),
        });
        directory
    }

    #[test]
    fn a_container_is_told_the_names_of_its_own_networks_only() {
        let networks = vec![
            network(1, false, Some(&[("web", 2)])),
            network(2, false, Some(&[("db", 3)])),
            network(3, false, None),
        ];
        let directory = directory(networks, vec![endpoint(2, &[1]), endpoint(3, &[2]), endpoint(4, &[3])]);
        let id = |n: u8| ContainerId::from_bytes([n; 32]);
        let view = directory.view(&id(2));
        assert_eq!(view.zones.len(), 1);
        assert_eq!(view.zones[0].addresses("web"), [Ipv4Addr::new(10, 128, 1, 2)]);
        assert!(view.zones[0].addresses("db").is_empty());
        assert!(directory.serves(&id(3)) && !directory.serves(&id(4)), "the project's own bridge serves none");
    }

    #[test]
    fn a_link_is_a_name_of_one_container_alone_and_hides_everybodys() {
        let mut linked = endpoint(4, &[1]);
        linked.attachments[0].links = BTreeMap::from([("db".into(), "store".into()), ("gone".into(), "nobody".into())]);
        let names = [("store", 2), ("db", 3)];
        let directory = directory(vec![network(1, false, Some(&names))], vec![linked, endpoint(5, &[1])]);
        let of = |n: u8, name: &str| directory.view(&ContainerId::from_bytes([n; 32])).addresses(name);
        assert_eq!(of(4, "db"), [Ipv4Addr::new(10, 128, 1, 2)]);
        assert_eq!(of(4, "store"), [Ipv4Addr::new(10, 128, 1, 2)]);
        assert!(of(4, "gone").is_empty());
        assert_eq!(of(5, "db"), [Ipv4Addr::new(10, 128, 1, 3)]);
    }

    #[test]
    fn whoever_is_on_internal_networks_alone_is_not_asked_for_outside() {
        let networks = vec![network(1, true, Some(&[])), network(2, false, Some(&[]))];
        let directory = directory(networks, vec![endpoint(2, &[1]), endpoint(3, &[1, 2])]);
        assert!(directory.view(&ContainerId::from_bytes([2; 32])).resolvers.is_empty());
        assert_eq!(directory.view(&ContainerId::from_bytes([3; 32])).resolvers.len(), 1);
    }

    #[test]
    fn a_delta_changes_what_it_names() {
        let net = network(1, false, Some(&[("web", 2)]));
        let directory = directory(vec![net.clone()], vec![endpoint(2, &[1])]);
        let mut plan = NetPlan::default();
        let renamed = network(1, false, Some(&[("site", 2), ("site", 5)]));
        plan.networks.insert(net.id.to_string(), renamed.clone());
        directory.change(&plan, &NetDelta { networks: vec![renamed], ..NetDelta::default() });
        let view = directory.view(&ContainerId::from_bytes([2; 32]));
        assert!(view.zones[0].addresses("web").is_empty());
        assert_eq!(view.zones[0].addresses("site").len(), 2);
        assert_eq!(view.zones[0].name([10, 128, 1, 5].into()), Some("site"));
        let gone = NetDelta { remove_endpoints: vec![ContainerId::from_bytes([2; 32])], ..NetDelta::default() };
        directory.change(&NetPlan::default(), &gone);
        assert!(!directory.serves(&ContainerId::from_bytes([2; 32])));
    }
}
