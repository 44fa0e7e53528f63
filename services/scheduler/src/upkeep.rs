//! What has to be done now and then and hurries nobody: old rows go, networks forget hosts they no
//! longer reach over, and it is told how many hosts there are.

use std::time::Duration;

use chassis::{Bus, CancellationToken, metrics::Metrics, prometheus::IntGaugeVec};
use contract::wake::Topic;
use model::{HostCondition, Result};
use store::{EVENTS_KEPT, REMOVED_KEPT, Store};

const EVERY: Duration = Duration::from_secs(10);

pub(crate) fn run(
    store: Store,
    bus: Bus,
    metrics: &Metrics,
    cancel: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let hosts = metrics.gauges("wharfage_hosts", "Hosts of the fleet", &["condition"]);
    async move {
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            if let Err(error) = round(&store, &bus, &hosts).await {
                tracing::warn!(%error, "upkeep waits for the next round");
            }
        }
    }
}

async fn round(store: &Store, bus: &Bus, hosts: &IntGaugeVec) -> Result<()> {
    let purged = store.purge(REMOVED_KEPT, EVENTS_KEPT).await?;
    if purged.containers + purged.events > 0 {
        tracing::info!(containers = purged.containers, events = purged.events, "purged");
    }
    for host in store.prune_network_hosts().await? {
        bus.publish(&Topic::Host(host));
    }
    let known = store.hosts().await?;
    for (condition, name) in [(HostCondition::Ready, "ready"), (HostCondition::Down, "down")] {
        let count = known.iter().filter(|host| host.condition == condition).count();
        hosts.with_label_values(&[name]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    Ok(())
}
