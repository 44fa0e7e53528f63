//! Plans in, keepers out: each delta is compared with what is here (`diff`), written down, and handed
//! to the keepers it is about. What a delta does not name is not looked at.

pub(crate) mod diff;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use contract::host::{HostDelta, HostsLine, PlannedContainer, PlannedNetwork};
use diff::{Action, Stale, diff};
use model::{ContainerId, Phase, VolumeId};
use tokio::sync::watch;

use crate::{
    host::SharedHost,
    keeper::{self, Handle, Message, machine::State},
    ledger::Entry,
    plug,
    volumes::Removals,
};

/// Every container of this host.
#[derive(Clone)]
pub(crate) struct Fleet(Arc<Inner>);

struct Inner {
    host: SharedHost,
    removals: Removals,
    book: Mutex<Book>,
    /// Changes whenever there are new containers.
    arrivals: watch::Sender<()>,
    /// The generation reached.
    reached: watch::Sender<i64>,
}

struct Book {
    keepers: BTreeMap<ContainerId, Handle>,
    networks: BTreeMap<String, PlannedNetwork>,
    generation: i64,
    /// Runs that live and of which it is not known what they hold, until a plan tells.
    lost: BTreeSet<ContainerId>,
}

impl Book {
    fn networks_of(&self, plan: &PlannedContainer) -> Vec<PlannedNetwork> {
        plan.endpoints.iter().filter_map(|e| self.networks.get(e.network.as_str()).cloned()).collect()
    }

    fn knows_networks_of(&self, plan: &PlannedContainer) -> bool {
        plan.endpoints.iter().all(|e| self.networks.contains_key(e.network.as_str()))
    }

    /// What lost runs hold, as far as this plan says. A whole plan says everything: what it does not name goes.
    fn find_lost(&mut self, host: &SharedHost, delta: &HostDelta) {
        if self.lost.is_empty() {
            return;
        }
        for plan in delta.containers.iter().filter(|plan| self.lost.contains(&plan.id)) {
            take_up(host, plan, &self.networks_of(plan));
            host.volumes.adopt(plan);
        }
        if delta.full {
            tracing::info!(containers = self.lost.len(), "what was lost is known again");
            self.lost.clear();
            host.net.is_complete();
        }
    }
}

impl Fleet {
    /// Takes up what the last agent left. Every container is looked after from here on, with or
    /// without a scheduler.
    ///
    /// # Errors
    /// The data directory cannot be read.
    pub(crate) fn resume(host: SharedHost) -> std::io::Result<Self> {
        let mut book = Book {
            keepers: BTreeMap::new(),
            networks: host.ledger.networks(),
            generation: host.ledger.generation(),
            lost: BTreeSet::new(),
        };
        let entries = host.ledger.containers()?;
        // netd's plan must know of every run that lives before it is sent for the first time.
        for Entry { id, plan, .. } in entries.iter().filter(|entry| entry.state.is_alive()) {
            match plan.as_ref().filter(|plan| book.knows_networks_of(plan)) {
                Some(plan) => take_up(&host, plan, &book.networks_of(plan)),
                None => drop(book.lost.insert(id.clone())),
            }
        }
        if book.lost.is_empty() {
            let projects: Vec<_> = entries.iter().filter_map(|e| Some(e.plan.as_ref()?.project)).collect();
            host.tenancy.forget_others(&projects);
        } else {
            tracing::error!(containers = ?book.lost, "what these hold is not known: nothing is taken away until a plan tells");
            host.net.is_incomplete();
        }
        host.reports.reached(book.generation.max(0));
        adopt_volumes(&host, &entries, book.lost.is_empty());
        for entry in entries {
            let (id, observed) = (entry.id.clone(), entry.state.observed.clone());
            let plan = entry.plan.clone();
            let networks = plan.as_ref().map(|p| book.networks_of(p)).unwrap_or_default();
            host.reports.moved(&id, &observed, false);
            let handle = keeper::keep(host.clone(), entry, networks.clone());
            if let Some(plan) = plan {
                handle.tell(Message::Plan(Box::new(plan), networks));
            }
            book.keepers.insert(id, handle);
        }
        tracing::info!(containers = book.keepers.len(), generation = book.generation, "resumed");
        let removals = Removals::new(host.volumes.clone(), host.reports.clone());
        let reached = watch::Sender::new(book.generation);
        let (book, arrivals) = (Mutex::new(book), watch::Sender::new(()));
        Ok(Self(Arc::new(Inner { host, removals, book, arrivals, reached })))
    }

    /// Applies one line of the plan stream. Returns the networks that changed, for netd.
    ///
    /// # Errors
    /// It is older than what was reached.
    pub(crate) fn apply(&self, delta: HostDelta) -> Result<Vec<PlannedNetwork>, Stale> {
        let host = &self.0.host;
        let mut book = self.0.book.lock().unwrap_or_else(PoisonError::into_inner);
        let known = if delta.full {
            book.keepers.iter().map(|(id, k)| (id.clone(), k.plan())).collect()
        } else {
            let named = delta.containers.iter().filter_map(|c| Some((c.id.clone(), book.keepers.get(&c.id)?.plan())));
            named.collect()
        };
        let actions = diff(book.generation, &known, &delta)?;
        let changed = update_networks(&mut book.networks, &delta);
        if !changed.is_empty() || delta.full {
            log_failure("networks", host.ledger.save_networks(&book.networks));
        }
        book.find_lost(host, &delta);
        let arrived = actions.iter().any(|action| matches!(action, Action::Keep(_)));
        let replugged: Vec<(ContainerId, Vec<HostsLine>)> =
            actions.iter().filter_map(|action| replugged(action, &known)).collect();
        for action in actions {
            act(host, &mut book, action, &known);
        }
        book.generation = delta.generation;
        log_failure("generation", host.ledger.save_generation(delta.generation));
        host.reports.reached(delta.generation);
        let generation = book.generation;
        drop(book);
        let fleet = self.clone();
        self.0.removals.begin(&delta.volumes, delta.full, move |volume| fleet.uses(volume));
        self.0.reached.send_replace(generation);
        for (id, linked) in replugged {
            let fleet = self.clone();
            tokio::spawn(async move {
                if let Err(error) = plug::settle(&fleet.0.host, &fleet, &id, Some(linked)).await {
                    tracing::warn!(container = %id, %error, "its networks could not be changed");
                }
            });
        }
        if arrived {
            self.0.arrivals.send_replace(());
        }
        Ok(changed)
    }

    /// Every keeper.
    pub(crate) fn all(&self) -> Vec<Handle> {
        let book = self.0.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.keepers.values().cloned().collect()
    }

    /// Returns once the plan is as young as `generation`.
    ///
    /// # Errors
    /// It was not within `patience`.
    pub(crate) async fn reached(&self, generation: i64, patience: Duration) -> model::Result<()> {
        let mut reached = self.0.reached.subscribe();
        let wait = tokio::time::timeout(patience, reached.wait_for(|now| *now >= generation));
        match wait.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(model::Error::Unavailable("the host has not heard of the change yet".into())),
        }
    }

    /// The networks a container is planned to be on.
    pub(crate) fn networks_of(&self, plan: &PlannedContainer) -> Vec<PlannedNetwork> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner).networks_of(plan)
    }

    /// The keeper of a container.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn get(&self, id: &ContainerId) -> model::Result<Handle> {
        let book = self.0.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.keepers.get(id).cloned().ok_or_else(|| model::Error::NotFound(format!("No such container: {id}")))
    }

    /// The keeper of a container the plan may still be about to name.
    ///
    /// # Errors
    /// There is none by then.
    pub(crate) async fn awaited(&self, id: &ContainerId, patience: Duration) -> model::Result<Handle> {
        // Listen first, then look: what arrives in between wakes us.
        let mut arrivals = self.0.arrivals.subscribe();
        let known = async {
            loop {
                if let Ok(handle) = self.get(id) {
                    return handle;
                }
                if arrivals.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        match tokio::time::timeout(patience, known).await {
            Ok(handle) => Ok(handle),
            Err(_) => self.get(id),
        }
    }

    /// Does a container that is not gone have this volume?
    fn uses(&self, volume: &VolumeId) -> bool {
        let book = self.0.book.lock().unwrap_or_else(PoisonError::into_inner);
        let has = |plan: PlannedContainer| plan.spec.volumes.iter().any(|mount| mount.volume == *volume);
        let is_there = |keeper: &Handle| keeper.observed().borrow().progress.phase != Phase::Removed;
        book.keepers.values().any(|keeper| is_there(keeper) && keeper.plan().is_some_and(has))
    }

    /// A removal was taken note of: the last trace of the container goes.
    pub(crate) fn forget(&self, id: &ContainerId) {
        let mut book = self.0.book.lock().unwrap_or_else(PoisonError::into_inner);
        let removed = |k: &Handle| k.observed().borrow().progress.phase == Phase::Removed;
        if book.keepers.get(id).is_some_and(removed) {
            book.keepers.remove(id);
            self.0.host.neighbours.gone(id);
            let dir = self.0.host.places.container(id);
            log_failure("a removed container", self.0.host.trash.discard(&dir));
        }
    }
}

/// The network namespace of a run that lives is its own again.
fn take_up(host: &SharedHost, plan: &PlannedContainer, networks: &[PlannedNetwork]) {
    match &plan.spec.network_of {
        Some(other) => host.neighbours.joined(&plan.id, other),
        None if plan.spec.network_none => {}
        None => host.net.remember(plan, networks, host.tenancy.pin_of(plan)),
    }
}

/// Containers that live go on having their volumes; what others left mounted is unmounted, unless it is
/// not known what they have.
fn adopt_volumes(host: &SharedHost, entries: &[Entry], all_known: bool) {
    let alive = entries.iter().filter(|entry| entry.state.is_alive());
    let alive: BTreeSet<ContainerId> = alive
        .map(|entry| {
            if let Some(plan) = &entry.plan {
                host.volumes.adopt(plan);
            }
            entry.id.clone()
        })
        .collect();
    host.volumes.tidy(&alive, all_known);
}

/// A known container that is to be on other networks than before, or to have other links; and its links
/// before.
fn replugged(
    action: &Action,
    known: &BTreeMap<ContainerId, Option<PlannedContainer>>,
) -> Option<(ContainerId, Vec<HostsLine>)> {
    let Action::Retarget(plan) = action else { return None };
    let before = known.get(&plan.id)?.as_ref()?;
    let changed = before.endpoints != plan.endpoints || before.linked != plan.linked;
    changed.then(|| (plan.id.clone(), before.linked.clone()))
}

fn act(host: &SharedHost, book: &mut Book, action: Action, known: &BTreeMap<ContainerId, Option<PlannedContainer>>) {
    match action {
        Action::Keep(plan) => {
            log_failure("a plan", host.ledger.save_plan(&plan));
            let entry = Entry { id: plan.id.clone(), plan: None, state: State::new() };
            let networks = book.networks_of(&plan);
            let handle = keeper::keep(host.clone(), entry, networks.clone());
            // Before anybody finds it: who waited for it to arrive asks at once what is planned.
            handle.plan_is(plan.as_ref().clone());
            book.keepers.insert(plan.id.clone(), handle.clone());
            handle.tell(Message::Plan(plan, networks));
        }
        Action::Retarget(mut plan) => {
            // The image may have been deleted since: its layers are still known here.
            if let Some(Some(before)) = known.get(&plan.id)
                && plan.image.layers.is_empty()
            {
                plan.image.layers.clone_from(&before.image.layers);
            }
            log_failure("a plan", host.ledger.save_plan(&plan));
            let networks = book.networks_of(&plan);
            if let Some(handle) = book.keepers.get(&plan.id) {
                handle.plan_is(plan.as_ref().clone());
                handle.tell(Message::Plan(plan, networks));
            }
        }
        Action::Discard(id) => {
            tracing::info!(container = %id, "in no plan: it goes");
            if let Some(handle) = book.keepers.get(&id) {
                handle.tell(Message::Discard);
            }
        }
    }
}

fn update_networks(networks: &mut BTreeMap<String, PlannedNetwork>, delta: &HostDelta) -> Vec<PlannedNetwork> {
    let changed: Vec<PlannedNetwork> =
        delta.networks.iter().filter(|n| networks.get(n.id.as_str()) != Some(n)).cloned().collect();
    if delta.full {
        networks.clear();
    }
    networks.extend(delta.networks.iter().map(|n| (n.id.to_string(), n.clone())));
    changed
}

/// A plan that could not be saved comes again from the scheduler: no reason not to follow it.
fn log_failure(what: &str, outcome: std::io::Result<()>) {
    if let Err(error) = outcome {
        tracing::error!(%error, "{what} could not be written down");
    }
}
