//! Hosts: joining, being heard from, and what an operator sees of them. A host counts as ready by
//! one rule, [`condition`], on Postgres' clock alone: hosts' clocks never matter.

use std::{collections::BTreeSet, net::IpAddr};

use contract::host::{HOST_LATE_AFTER_MS, HostReport, HostRuntime};
use model::{Error, HostCapacity, HostCondition, HostId, HostState, MemoryBytes, NanoCpus, Result};
use sqlx::types::Json;
use time::OffsetDateTime;

use crate::{
    OperatorTx, Store,
    network_hosts::{lock_epoch, touch_networks},
    store_error,
    stored::{number, parsed},
};

/// Whether a host that was last heard from at `last_seen` is there at `now`.
#[must_use]
pub fn condition(last_seen: Option<OffsetDateTime>, now: OffsetDateTime) -> HostCondition {
    let late_after = time::Duration::milliseconds(i64::try_from(HOST_LATE_AFTER_MS).unwrap_or(i64::MAX));
    match last_seen {
        Some(seen) if now - seen <= late_after => HostCondition::Ready,
        Some(_) | None => HostCondition::Down,
    }
}

/// What a joining host says of itself.
#[derive(Clone, Debug)]
pub struct JoiningHost<'a> {
    /// The id it gets if it is new.
    pub new_id: HostId,
    /// Its name.
    pub name: &'a str,
    /// Where it is reached.
    pub address: IpAddr,
    /// Its agent's port.
    pub agent_port: u16,
    /// What it can give.
    pub capacity: HostCapacity,
}

/// A host as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRecord {
    /// Id.
    pub id: HostId,
    /// Name.
    pub name: String,
    /// Where it is reached.
    pub address: IpAddr,
    /// Its agent's port.
    pub agent_port: u16,
    /// What the operator wants of it.
    pub state: HostState,
    /// Is it heard from?
    pub condition: HostCondition,
    /// What it can give.
    pub capacity: HostCapacity,
    /// OCI runtimes it has.
    pub runtimes: Vec<HostRuntime>,
    /// CPU time promised to its containers.
    pub reserved_nano_cpus: NanoCpus,
    /// Memory promised to its containers.
    pub reserved_memory_bytes: MemoryBytes,
    /// Containers on it.
    pub containers: u32,
    /// Those that run.
    pub running: u32,
    /// When it first joined.
    pub joined_at: OffsetDateTime,
    /// When it last reported.
    pub last_seen_at: Option<OffsetDateTime>,
}

pub(crate) fn host_state(text: &str) -> Result<HostState> {
    match text {
        "active" => Ok(HostState::Active),
        "paused" => Ok(HostState::Paused),
        other => Err(Error::Internal(format!("unknown host state {other:?}"))),
    }
}

pub(crate) fn capacity(nano_cpus: i64, memory_bytes: i64, containers: i32) -> Result<HostCapacity> {
    Ok(HostCapacity {
        nano_cpus: NanoCpus(number(nano_cpus)?),
        memory_bytes: MemoryBytes(number(memory_bytes)?),
        containers: number(containers)?,
    })
}

/// Capacity as columns; what does not fit is as good as endless.
fn columns(capacity: HostCapacity) -> (i64, i64, i32) {
    (
        i64::try_from(capacity.nano_cpus.0).unwrap_or(i64::MAX),
        i64::try_from(capacity.memory_bytes.0).unwrap_or(i64::MAX),
        i32::try_from(capacity.containers).unwrap_or(i32::MAX),
    )
}

impl Store {
    /// Takes a host in, if the token allows it. A token is for one host; a host that joins again
    /// (same name, valid token) keeps its row, and with it its containers.
    ///
    /// # Errors
    /// `Unauthenticated` for a token that is unknown or expired, `Forbidden` for another host's.
    pub async fn join_host(&self, token_sha256: &[u8; 32], host: &JoiningHost<'_>) -> Result<HostId> {
        let mut tx = self.service_tx().await?;
        let token = sqlx::query!(
            "SELECT host_id FROM join_tokens WHERE secret_sha256 = $1 AND expires_at > now() FOR UPDATE",
            token_sha256
        )
        .fetch_optional(tx.connection())
        .await
        .map_err(store_error)?
        .ok_or_else(|| Error::Unauthenticated("the join token is unknown or expired".into()))?;
        let id = token_host(&mut tx, token.host_id, host).await?;
        sqlx::query!("UPDATE join_tokens SET host_id = $2 WHERE secret_sha256 = $1", token_sha256, id.0)
            .execute(tx.connection())
            .await
            .map_err(store_error)?;
        tx.commit().await?;
        Ok(id)
    }

    /// A host was heard from. At most one write a second, because the row is also what orders
    /// changes to the host's plan.
    ///
    /// # Errors
    /// `Forbidden` if there is no such host any more.
    pub async fn host_seen(&self, host: HostId, said: &HostReport) -> Result<()> {
        let mut connection = self.pool().acquire().await.map_err(store_error)?;
        note_seen(&mut connection, host, said).await
    }

    /// A host that has connected says where it is reached now: its configuration may have changed
    /// since it joined. Returns the hosts that have to learn of it.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn host_reached_at(&self, host: HostId, address: IpAddr, agent_port: u16) -> Result<BTreeSet<HostId>> {
        let (address, agent_port) = (address.to_string(), i32::from(agent_port));
        let same = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM hosts
                   WHERE id = $1 AND address = $2::text::inet AND agent_port = $3) AS "same!""#,
            host.0,
            address,
            agent_port
        )
        .fetch_one(self.pool())
        .await
        .map_err(store_error)?;
        if same {
            return Ok(BTreeSet::new());
        }
        let mut tx = self.service_tx().await?;
        lock_epoch(tx.connection()).await?;
        sqlx::query!(
            "UPDATE hosts SET address = $2::text::inet, agent_port = $3 WHERE id = $1",
            host.0,
            address,
            agent_port
        )
        .execute(tx.connection())
        .await
        .map_err(store_error)?;
        let touched = tell_peers(tx.connection(), host).await?;
        tx.commit().await?;
        Ok(touched)
    }

    /// Every host, by name. For the scheduler and for operators.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn hosts(&self) -> Result<Vec<HostRecord>> {
        let rows = sqlx::query!(
            r#"SELECT h.id, h.name, host(h.address) AS "address!", h.agent_port, h.state, h.nano_cpus, h.memory_bytes,
                   h.max_containers, h.runtimes AS "runtimes: Json<Vec<HostRuntime>>", h.joined_at, h.last_seen_at, now() AS "now!",
                   coalesce(u.placed, 0) AS "placed!", coalesce(u.running, 0) AS "running!",
                   coalesce(u.reserved_nano_cpus, 0) AS "reserved_nano_cpus!",
                   coalesce(u.reserved_memory_bytes, 0) AS "reserved_memory_bytes!"
               FROM hosts h LEFT JOIN host_usage() u ON u.host_id = h.id ORDER BY h.name"#
        )
        .fetch_all(self.pool())
        .await
        .map_err(store_error)?;
        rows.into_iter()
            .map(|row| {
                Ok(HostRecord {
                    id: HostId(row.id),
                    name: row.name,
                    address: parsed(&row.address)?,
                    agent_port: number(row.agent_port)?,
                    state: host_state(&row.state)?,
                    condition: condition(row.last_seen_at, row.now),
                    capacity: capacity(row.nano_cpus, row.memory_bytes, row.max_containers)?,
                    runtimes: row.runtimes.0,
                    reserved_nano_cpus: NanoCpus(number(row.reserved_nano_cpus)?),
                    reserved_memory_bytes: MemoryBytes(number(row.reserved_memory_bytes)?),
                    containers: number(row.placed)?,
                    running: number(row.running)?,
                    joined_at: row.joined_at,
                    last_seen_at: row.last_seen_at,
                })
            })
            .collect()
    }
}

impl OperatorTx {
    /// Makes a token one host may join with.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn create_join_token(&mut self, secret_sha256: &[u8; 32], expires_at: OffsetDateTime) -> Result<()> {
        sqlx::query!("INSERT INTO join_tokens (secret_sha256, expires_at) VALUES ($1, $2)", secret_sha256, expires_at)
            .execute(self.connection())
            .await
            .map_err(store_error)?;
        Ok(())
    }
}

/// Writes the host's row and returns its id.
async fn token_host(tx: &mut crate::ServiceTx, bound_to: Option<uuid::Uuid>, host: &JoiningHost<'_>) -> Result<HostId> {
    let before = sqlx::query!(r#"SELECT id, host(address) AS "address!" FROM hosts WHERE name = $1"#, host.name)
        .fetch_optional(tx.connection())
        .await
        .map_err(store_error)?;
    if let Some(bound) = bound_to
        && before.as_ref().is_none_or(|row| row.id != bound)
    {
        return Err(Error::Forbidden("the join token was used by another host".into()));
    }
    // Other hosts send to its address: they are told of a new one. Lock order: epoch before hosts.
    let moved = before.as_ref().is_some_and(|row| row.address != host.address.to_string());
    if moved {
        lock_epoch(tx.connection()).await?;
    }
    let (nano_cpus, memory_bytes, containers) = columns(host.capacity);
    let id = sqlx::query_scalar!(
        "INSERT INTO hosts (id, name, address, agent_port, nano_cpus, memory_bytes, max_containers)
         VALUES ($1, $2, $3::text::inet, $4, $5, $6, $7)
         ON CONFLICT ON CONSTRAINT hosts_name_key DO UPDATE SET address = excluded.address,
             agent_port = excluded.agent_port, nano_cpus = excluded.nano_cpus,
             memory_bytes = excluded.memory_bytes, max_containers = excluded.max_containers
         RETURNING id",
        host.new_id.0,
        host.name,
        host.address.to_string(),
        i32::from(host.agent_port),
        nano_cpus,
        memory_bytes,
        containers,
    )
    .fetch_one(tx.connection())
    .await
    .map_err(store_error)?;
    if moved {
        tell_peers(tx.connection(), HostId(id)).await?;
    }
    Ok(HostId(id))
}

/// Gives every host that shares a network with this one a generation in which its address is new.
async fn tell_peers(connection: &mut sqlx::PgConnection, host: HostId) -> Result<BTreeSet<HostId>> {
    let networks = sqlx::query_scalar!("SELECT network_id FROM network_hosts WHERE host_id = $1", host.0)
        .fetch_all(&mut *connection)
        .await
        .map_err(store_error)?;
    touch_networks(connection, &networks).await
}

/// See [`Store::host_seen`].
pub(crate) async fn note_seen(connection: &mut sqlx::PgConnection, host: HostId, said: &HostReport) -> Result<()> {
    let (nano_cpus, memory_bytes, containers) = columns(said.capacity);
    let runtimes = said.runtimes.clone().unwrap_or_else(|| vec![HostRuntime { name: "runc".into(), missing: None }]);
    let known = sqlx::query_scalar!(
        r#"WITH seen AS (
               UPDATE hosts SET last_seen_at = now(), nano_cpus = $2, memory_bytes = $3, max_containers = $4, runtimes = $5
               WHERE id = $1 AND (last_seen_at IS NULL OR last_seen_at < now() - interval '1 second'
                   OR (nano_cpus, memory_bytes, max_containers, runtimes) IS DISTINCT FROM ($2, $3, $4, $5)))
           SELECT EXISTS (SELECT FROM hosts WHERE id = $1) AS "known!""#,
        host.0,
        nano_cpus,
        memory_bytes,
        containers,
        Json(&runtimes) as Json<&Vec<HostRuntime>>,
    )
    .fetch_one(connection)
    .await
    .map_err(store_error)?;
    if known { Ok(()) } else { Err(Error::Forbidden("this host is not part of the fleet; it must join again".into())) }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_host_is_down_once_it_was_silent_for_more_than_twelve_seconds() {
        let now = datetime!(2026-01-01 00:00:12 UTC);
        assert_eq!(condition(Some(datetime!(2026-01-01 00:00:00 UTC)), now), HostCondition::Ready);
        assert_eq!(condition(Some(datetime!(2025-12-31 23:59:59.999 UTC)), now), HostCondition::Down);
        assert_eq!(condition(None, now), HostCondition::Down);
    }
}
