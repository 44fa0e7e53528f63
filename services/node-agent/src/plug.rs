//! Networks of containers that run: links come and go under the processes. Done with the plan, and
//! at once when the gateway asks; whoever comes does what the plan says by then, so neither undoes
//! what the other did.

use model::{ContainerId, Error, Result};

use crate::{files, host::Host, reconcile::Fleet};

/// Makes a container's networks what its plan says now.
///
/// # Errors
/// What netd could not make, and why.
pub(crate) async fn settle(host: &Host, fleet: &Fleet, id: &ContainerId) -> Result<()> {
    let keeper = fleet.get(id)?;
    let _turn = keeper.plugging.lock().await;
    let Some(plan) = keeper.plan() else { return Ok(()) };
    let networks = fleet.networks_of(&plan);
    host.net.change(&plan, &networks).await.map_err(Error::Failed)?;
    let dir = host.places.container(id);
    let adapted = tokio::task::spawn_blocking(move || files::adapt(&dir, &plan, &networks)).await;
    adapted.map_err(Error::internal)?.map_err(Error::internal)
}
