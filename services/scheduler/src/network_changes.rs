//! The loop that tells hosts what changed on their networks: who is on them, and what they are called.
//! Containers start and end without waiting for it; what they need themselves comes with their plan.

use chassis::{Bus, reconcile::Reconciler};
use contract::wake::Topic;
use store::Store;

pub(crate) struct NetworkChanges {
    store: Store,
    bus: Bus,
}

impl NetworkChanges {
    pub(crate) fn new(store: Store, bus: Bus) -> Self {
        Self { store, bus }
    }
}

impl Reconciler for NetworkChanges {
    type Status = ();

    async fn reconcile(&mut self) {
        match self.store.spread_network_changes().await {
            Ok(hosts) => hosts.into_iter().for_each(|host| self.bus.publish(&Topic::Host(host))),
            Err(error) => tracing::warn!(%error, "hosts are not told of their networks' changes"),
        }
    }
}
