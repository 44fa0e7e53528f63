//! The agent's side of netd. The agent's plan is the truth: it is sent whole when the agent begins
//! and after any call that may have been lost, and as deltas in between. A start waits for its own
//! delta only.
//!
//! What is sent whole takes away whatever it does not name. So an agent that has lost what it knew of a
//! container that runs sends what it knows as additions, until the scheduler has told it everything.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chassis::{backoff::Backoff, client::Internal};
use contract::{
    host::{PlannedContainer, PlannedNetwork},
    net::{DELTA, NetAttachment, NetDelta, NetEndpoint, NetNetwork, NetPlan, NetStatus, PLAN},
};
use model::{ContainerId, Error};
use tokio::sync::{Notify, RwLock};

use crate::files;

/// netd may be restarting: a start waits this often, about five seconds in all.
const ATTEMPTS: u32 = 12;

/// The connection to netd.
#[derive(Clone)]
pub(crate) struct Net(Arc<Inner>);

struct Inner {
    netd: Internal,
    plan: Mutex<NetPlan>,
    /// Where netd said that each endpoint's namespace is.
    namespaces: Mutex<BTreeMap<String, PathBuf>>,
    /// netd has the plan, but for deltas under way.
    synced: AtomicBool,
    /// There are endpoints that the plan does not know of.
    incomplete: AtomicBool,
    /// Deltas read, a whole plan writes: a plan made before a delta must not overtake it.
    order: RwLock<()>,
    lost: Notify,
}

impl Net {
    /// netd on a unix socket, which need not answer yet.
    pub(crate) fn new(socket: &Path) -> anyhow::Result<Self> {
        let netd = Internal::unix(socket)?;
        Ok(Self(Arc::new(Inner {
            netd,
            plan: Mutex::default(),
            namespaces: Mutex::default(),
            synced: AtomicBool::new(false),
            incomplete: AtomicBool::new(false),
            order: RwLock::default(),
            lost: Notify::new(),
        })))
    }

    /// The namespace of an endpoint that is in the plan, once netd has told.
    pub(crate) fn namespace_of(&self, id: &ContainerId) -> Option<PathBuf> {
        self.namespaces().get(id.as_str()).cloned()
    }

    fn namespaces(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, PathBuf>> {
        self.0.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an endpoint to the plan without telling netd: for containers found running.
    pub(crate) fn remember(&self, container: &PlannedContainer, networks: &[PlannedNetwork], owner: Option<PathBuf>) {
        self.edit(|plan| put(plan, netd_endpoint(container, owner), networks));
    }

    /// Some container runs whose endpoint is not known: until the plan is complete it is only added to.
    pub(crate) fn is_incomplete(&self) {
        self.0.incomplete.store(true, Ordering::SeqCst);
    }

    /// Every endpoint is in the plan now, or goes.
    pub(crate) fn is_complete(&self) {
        if self.0.incomplete.swap(false, Ordering::SeqCst) {
            self.lose();
        }
    }

    /// Sends the whole plan whenever netd may not have it, for as long as the agent lives.
    pub(crate) async fn keep_in_sync(self) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            match self.sync().await {
                Ok(()) => {
                    backoff.reset();
                    self.0.lost.notified().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "netd does not take the plan");
                    backoff.wait().await;
                }
            }
        }
    }

    /// Makes the endpoint of a run; answers with its namespace.
    ///
    /// # Errors
    /// What netd could not make, and why.
    pub(crate) async fn attach(
        &self,
        container: &PlannedContainer,
        networks: &[PlannedNetwork],
        owner: Option<PathBuf>,
    ) -> Result<PathBuf, String> {
        let endpoint = netd_endpoint(container, owner);
        self.edit(|plan| put(plan, endpoint.clone(), networks));
        let delta = NetDelta {
            networks: networks.iter().map(netd_network).collect(),
            endpoints: vec![endpoint],
            ..NetDelta::default()
        };
        let status = self.call(&delta).await.map_err(|e| format!("network: {e}"))?;
        let id = container.id.as_str();
        match (failure(&status, id, networks), status.netns.get(id)) {
            (Some(why), _) => Err(format!("network: {why}")),
            (None, Some(path)) => {
                self.namespaces().insert(id.to_owned(), PathBuf::from(path));
                Ok(PathBuf::from(path))
            }
            (None, None) => Err("network: netd made no namespace".to_owned()),
        }
    }

    /// Changes the networks of a run that goes on; of one that does not, nothing.
    ///
    /// # Errors
    /// What netd could not make, and why.
    pub(crate) async fn change(&self, container: &PlannedContainer, networks: &[PlannedNetwork]) -> Result<(), String> {
        let id = container.id.as_str();
        let endpoint = self.edit(|plan| {
            let had = plan.endpoints.get(id)?;
            let endpoint = netd_endpoint(container, had.owner.clone());
            put(plan, endpoint.clone(), networks);
            drop_unused_networks(plan);
            Some(endpoint)
        });
        let Some(endpoint) = endpoint else { return Ok(()) };
        let delta = NetDelta {
            networks: networks.iter().map(netd_network).collect(),
            endpoints: vec![endpoint],
            ..NetDelta::default()
        };
        let status = self.call(&delta).await.map_err(|e| format!("network: {e}"))?;
        failure(&status, id, networks).map_or(Ok(()), |why| Err(format!("network: {why}")))
    }

    /// Gives up the endpoint of a run that ended; `is_joined`: somebody else is in its namespace, which
    /// stays. Never fails: what netd missed, the next plan tells.
    pub(crate) async fn detach(&self, id: &ContainerId, is_joined: bool) {
        let had = self.edit(|plan| {
            let had = plan.endpoints.remove(id.as_str()).is_some();
            drop_unused_networks(plan);
            had
        });
        self.namespaces().remove(id.as_str());
        if !had {
            return;
        }
        let held = if is_joined { vec![id.clone()] } else { Vec::new() };
        let delta = NetDelta { remove_endpoints: vec![id.clone()], held, ..NetDelta::default() };
        let _order = self.0.order.read().await;
        if let Err(error) = self.0.netd.post::<_, NetStatus>(DELTA, &delta).await {
            tracing::warn!(%error, container = %id, "netd did not take an endpoint back");
            self.lose();
        }
    }

    /// A network reaches other hosts now.
    pub(crate) async fn refresh(&self, network: &PlannedNetwork) {
        let changed = self.edit(|plan| match plan.networks.get_mut(network.id.as_str()) {
            Some(known) if *known != netd_network(network) => {
                *known = netd_network(network);
                true
            }
            Some(_) | None => false,
        });
        if changed {
            let delta = NetDelta { networks: vec![netd_network(network)], ..NetDelta::default() };
            if let Err(error) = self.call(&delta).await {
                tracing::warn!(%error, network = %network.id, "netd did not take a network's change");
            }
        }
    }

    /// One delta, tried again while netd restarts.
    async fn call(&self, delta: &NetDelta) -> model::Result<NetStatus> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        for attempt in 1.. {
            let outcome = if self.0.synced.load(Ordering::SeqCst) {
                let _order = self.0.order.read().await;
                self.0.netd.post(DELTA, delta).await
            } else {
                self.sync_and_answer().await
            };
            match outcome {
                Err(Error::Unavailable(_)) if attempt < ATTEMPTS => {
                    self.lose();
                    backoff.wait().await;
                }
                Err(error) => {
                    self.lose();
                    return Err(error);
                }
                Ok(status) => return Ok(status),
            }
        }
        Err(Error::Unavailable("netd does not answer".into()))
    }

    async fn sync(&self) -> model::Result<()> {
        if self.0.synced.load(Ordering::SeqCst) { Ok(()) } else { self.sync_and_answer().await.map(drop) }
    }

    async fn sync_and_answer(&self) -> model::Result<NetStatus> {
        let _order = self.0.order.write().await;
        let plan = self.edit(|plan| plan.clone());
        let incomplete = self.0.incomplete.load(Ordering::SeqCst);
        let status: NetStatus = if incomplete {
            let (networks, endpoints) = (plan.networks.values().cloned(), plan.endpoints.values().cloned());
            let all = NetDelta { networks: networks.collect(), endpoints: endpoints.collect(), ..NetDelta::default() };
            match self.0.netd.post(DELTA, &all).await {
                // It has lost its plan too: nothing can be added to it before everything is known.
                Err(Error::Conflict(why)) => return Err(Error::Unavailable(why)),
                answer => answer?,
            }
        } else {
            self.0.netd.put(PLAN, &plan).await?
        };
        for (id, why) in &status.failed {
            tracing::warn!(id, why, "netd could not make a part of the plan");
        }
        // One that went away meanwhile stays gone.
        let there = status.netns.iter().map(|(id, path)| (id.clone(), PathBuf::from(path)));
        *self.namespaces() = there.filter(|(id, _)| plan.endpoints.contains_key(id)).collect();
        self.0.synced.store(true, Ordering::SeqCst);
        if incomplete && !self.0.incomplete.load(Ordering::SeqCst) {
            // It was completed meanwhile.
            self.lose();
        }
        Ok(status)
    }

    fn lose(&self) {
        self.0.synced.store(false, Ordering::SeqCst);
        self.0.lost.notify_one();
    }

    fn edit<T>(&self, change: impl FnOnce(&mut NetPlan) -> T) -> T {
        change(&mut self.0.plan.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn put(plan: &mut NetPlan, endpoint: NetEndpoint, networks: &[PlannedNetwork]) {
    for network in networks {
        plan.networks.insert(network.id.to_string(), netd_network(network));
    }
    plan.endpoints.insert(endpoint.container.to_string(), endpoint);
}

fn drop_unused_networks(plan: &mut NetPlan) {
    let used = |id: &String| plan.endpoints.values().any(|e| e.attachments.iter().any(|a| a.network.as_str() == id));
    let unused: Vec<String> = plan.networks.keys().filter(|id| !used(id)).cloned().collect();
    for id in unused {
        plan.networks.remove(&id);
    }
}

/// What went wrong with a container or a network of it.
fn failure<'a>(status: &'a NetStatus, id: &str, networks: &[PlannedNetwork]) -> Option<&'a String> {
    let of_networks = || networks.iter().find_map(|network| status.failed.get(network.id.as_str()));
    status.failed.get(id).or_else(of_networks)
}

fn netd_network(network: &PlannedNetwork) -> NetNetwork {
    NetNetwork {
        id: network.id.clone(),
        vni: network.vni,
        subnet: network.subnet,
        gateway: network.gateway,
        internal: network.internal,
        peers: network.peers.clone(),
        names: network.names.clone(),
    }
}

fn netd_endpoint(container: &PlannedContainer, owner: Option<PathBuf>) -> NetEndpoint {
    let link = |written: &String| {
        let (other, alias) = model::parse_link(written).ok()?;
        Some((alias.to_ascii_lowercase(), other.to_ascii_lowercase()))
    };
    let attachment = |e: &model::Endpoint| NetAttachment {
        network: e.network.clone(),
        ip: e.ip,
        interface: e.interface,
        mac: e.mac,
        links: e.links.iter().filter_map(link).collect(),
    };
    NetEndpoint {
        container: container.id.clone(),
        attachments: container.endpoints.iter().map(attachment).collect(),
        ports: container.ports.clone(),
        resolvers: files::resolvers(container),
        owner,
    }
}
