//! Over which hosts each network reaches. A host that is new to a network must become known to the
//! others on it, so they get a new generation too. Written under the plan epoch's lock only: whoever
//! holds it sees every placement there is. Placing extends networks (`plan.rs`), upkeep shrinks them.

use std::collections::BTreeSet;

use model::{HostId, Result};
use sqlx::PgConnection;

use crate::{Store, store_error};

/// Waits for its turn among plans. Held until the end of the transaction.
pub(crate) async fn lock_epoch(connection: &mut PgConnection) -> Result<()> {
    sqlx::query!("SELECT n FROM plan_epoch FOR UPDATE").fetch_one(connection).await.map_err(store_error)?;
    Ok(())
}

/// Gives every host of these networks a generation in which its peers are new.
pub(crate) async fn touch_networks(connection: &mut PgConnection, networks: &[String]) -> Result<BTreeSet<HostId>> {
    if networks.is_empty() {
        return Ok(BTreeSet::new());
    }
    let hosts = sqlx::query_scalar!(
        "WITH touched AS (
             UPDATE hosts SET generation = generation + 1
             WHERE id IN (SELECT host_id FROM network_hosts WHERE network_id = ANY($1))
             RETURNING id, generation)
         UPDATE network_hosts n SET generation = t.generation FROM touched t
         WHERE n.host_id = t.id AND n.network_id = ANY($1) RETURNING n.host_id",
        networks
    )
    .fetch_all(connection)
    .await
    .map_err(store_error)?;
    Ok(hosts.into_iter().map(HostId).collect())
}

impl Store {
    /// Tells every host of the networks that changed: who is on them, and what names they answer to.
    /// Hosts that are new to one are noted. Returns the hosts that have something to hear.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn spread_network_changes(&self) -> Result<BTreeSet<HostId>> {
        let any = sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM network_changes) AS "any!""#);
        if !any.fetch_one(self.pool()).await.map_err(store_error)? {
            return Ok(BTreeSet::new());
        }
        let mut tx = self.service_tx().await?;
        lock_epoch(tx.connection()).await?;
        let changed = sqlx::query_scalar!("DELETE FROM network_changes RETURNING network_id")
            .fetch_all(tx.connection())
            .await
            .map_err(store_error)?;
        let changed: Vec<String> = changed.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        sqlx::query!(
            "INSERT INTO network_hosts (network_id, host_id)
             SELECT DISTINCT e.network_id, c.host_id FROM endpoints e JOIN containers c ON c.id = e.container_id
             WHERE e.network_id = ANY($1) AND c.host_id IS NOT NULL AND c.removed_at IS NULL
             ON CONFLICT DO NOTHING",
            &changed
        )
        .execute(tx.connection())
        .await
        .map_err(store_error)?;
        let touched = touch_networks(tx.connection(), &changed).await?;
        tx.commit().await?;
        Ok(touched)
    }

    /// Forgets hosts that have nothing left on a network, and tells the others. Returns them.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn prune_network_hosts(&self) -> Result<BTreeSet<HostId>> {
        let mut tx = self.service_tx().await?;
        lock_epoch(tx.connection()).await?;
        let shrunk = sqlx::query_scalar!(
            "DELETE FROM network_hosts n WHERE NOT EXISTS (
                 SELECT FROM endpoints e JOIN containers c ON c.id = e.container_id
                 WHERE e.network_id = n.network_id AND c.host_id = n.host_id)
             RETURNING network_id"
        )
        .fetch_all(tx.connection())
        .await
        .map_err(store_error)?;
        let touched = touch_networks(tx.connection(), &shrunk).await?;
        tx.commit().await?;
        Ok(touched)
    }
}
