//! Networks of containers that run: interfaces and names come and go under the processes. Done with the plan, and
//! at once when the gateway asks; whoever comes does what the plan says by then, so neither undoes
//! what the other did.

use contract::host::HostsLine;
use model::{ContainerId, Error, Result};

use crate::{files, host::Host, reconcile::Fleet};

/// Makes a container's networks what its plan says now; `linked` is what its plan before said of links, if
/// that may have changed.
///
/// # Errors
/// What netd could not make, and why.
pub(crate) async fn settle(host: &Host, fleet: &Fleet, id: &ContainerId, linked: Option<Vec<HostsLine>>) -> Result<()> {
    let keeper = fleet.get(id)?;
    let _turn = keeper.plugging.lock().await;
    let Some(plan) = keeper.plan() else { return Ok(()) };
    let networks = fleet.networks_of(&plan);
    host.net.change(&plan, &networks).await.map_err(|why| Error::Failed(host.told(id, &why)))?;
    let (dir, linked) = (host.places.container(id), linked.unwrap_or_else(|| plan.linked.clone()));
    let adapted = tokio::task::spawn_blocking(move || files::adapt(&dir, &plan, &linked, &networks)).await;
    adapted.map_err(Error::internal)?.map_err(Error::internal)
}
