//! How large volumes are: their hosts are asked, all at once, and one that does not answer leaves its
//! volumes out.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use contract::agent::{VOLUME_USAGE, VolumeUsage, VolumeUsageRequest};
use model::{HostId, VolumeId};
use store::{HostAddress, ProjectScope, VolumeRecord};

use crate::Gateway;

/// A host may have many files to look at.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes in each volume whose host answers. What is on no host is empty.
pub(crate) async fn sizes(
    gateway: &Gateway,
    scope: &ProjectScope,
    volumes: &[VolumeRecord],
) -> BTreeMap<VolumeId, u64> {
    let mut by_host: HashMap<HostId, (&HostAddress, Vec<VolumeId>)> = HashMap::new();
    let mut sizes = BTreeMap::new();
    for volume in volumes {
        match &volume.host {
            Some(host) => by_host.entry(host.id).or_insert_with(|| (host, Vec::new())).1.push(volume.id.clone()),
            None => _ = sizes.insert(volume.id.clone(), 0),
        }
    }
    let asked = by_host.into_values().map(|(host, ids)| async move {
        let request = VolumeUsageRequest { project: scope.project(), volumes: ids };
        let client = gateway.agents.at(host)?.with_timeout(PATIENCE);
        client.post::<_, VolumeUsage>(VOLUME_USAGE, &request).await
    });
    for answer in futures::future::join_all(asked).await {
        match answer {
            Ok(usage) => sizes.extend(usage.bytes),
            Err(error) => tracing::warn!(%error, "a host does not tell the size of its volumes"),
        }
    }
    sizes
}
