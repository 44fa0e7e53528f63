//! What containers weigh. Their hosts measure when they are asked, all at once and within a bound; what
//! could not be told in time is left out rather than told as nothing.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use contract::agent::{ContainerSize, SIZES, SizesReply, SizesRequest};
use futures::{FutureExt as _, StreamExt as _, stream};
use model::{ContainerId, HostId};
use serde_json::{Value, json};
use store::{ContainerRecord, HostAddress};

use crate::Gateway;

/// Time for a host to measure.
const PATIENCE: Duration = Duration::from_secs(15);
/// Hosts asked at once for one request.
const HOSTS_AT_ONCE: usize = 32;

/// Sizes by container.
#[derive(Debug, Default)]
pub(crate) struct Sizes(HashMap<ContainerId, ContainerSize>);

impl Sizes {
    /// Asks the hosts of these containers.
    pub(crate) async fn ask(gateway: &Gateway, containers: &[&ContainerRecord]) -> Self {
        let mut by_host: BTreeMap<HostId, (HostAddress, Vec<ContainerId>)> = BTreeMap::new();
        for container in containers {
            if let Some(host) = &container.host {
                by_host.entry(host.id).or_insert_with(|| (host.clone(), Vec::new())).1.push(container.id.clone());
            }
        }
        let mut questions = Vec::with_capacity(by_host.len());
        for (host, containers) in by_host.into_values() {
            questions.push(ask_one(gateway.clone(), host, containers).boxed());
        }
        let answers = stream::iter(questions).buffer_unordered(HOSTS_AT_ONCE).collect::<Vec<_>>().await;
        Self(answers.into_iter().flatten().map(|size| (size.id.clone(), size)).collect())
    }

    /// Bytes in the writable layers of these.
    pub(crate) fn rw_bytes<'a>(&self, containers: impl Iterator<Item = &'a ContainerId>) -> u64 {
        containers.filter_map(|id| self.0.get(id)).fold(0, |sum, size| sum.saturating_add(size.rw_bytes))
    }

    /// Of one of them, if its host told.
    pub(crate) fn of(&self, id: &ContainerId) -> Option<&ContainerSize> {
        self.0.get(id)
    }

    /// The answer of inspect with its sizes.
    pub(super) fn in_inspect(&self, mut shown: Value, id: &ContainerId) -> Value {
        if let Some(size) = self.0.get(id) {
            (shown["SizeRw"], shown["SizeRootFs"]) = (json!(size.rw_bytes), json!(size.rootfs_bytes));
        }
        shown
    }
}

async fn ask_one(gateway: Gateway, host: HostAddress, containers: Vec<ContainerId>) -> Vec<ContainerSize> {
    let asked = async {
        let agent = gateway.agents.at(&host)?.with_timeout(PATIENCE);
        agent.post::<_, SizesReply>(SIZES, &SizesRequest { containers }).await
    };
    match asked.await {
        Ok(reply) => reply.sizes,
        Err(error) => {
            tracing::warn!(host = %host.id, %error, "a host does not tell sizes");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_told_is_not_zero() {
        let id = ContainerId::from_bytes([1; 32]);
        let size = ContainerSize { id: id.clone(), rw_bytes: 0, rootfs_bytes: 7 };
        let sizes = Sizes([(id.clone(), size)].into());
        assert_eq!(sizes.in_inspect(json!({}), &id), json!({"SizeRw": 0, "SizeRootFs": 7}));
        let other = ContainerId::from_bytes([2; 32]);
        assert_eq!(sizes.in_inspect(json!({}), &other), json!({}), "not told is not zero");
        assert_eq!(sizes.rw_bytes([&id, &other].into_iter()), 0);
    }
}
