//! Lists of containers. A spec is most of a container's weight and hardly ever changes, so a list
//! reads rows without it and takes specs it has seen from [`SpecCache`]; Postgres decides which
//! containers there are, and by `spec_revision` whether a kept spec is still the one.
//!
//! Four queries at most, whatever the length: rows, specs not seen before, published ports, endpoints.

use std::{collections::HashMap, sync::Arc};

use model::{ContainerId, ContainerSpec, Error, Health, Observed, Phase, Progress, PublishedPort, Result};
use quick_cache::{Weighter, sync::Cache};
use sqlx::types::Json;

use super::{
    ContainerRecord, EndpointRecord, HostAddress, desired,
    find::{exit, revision, stored},
    unsigned,
};
use crate::{ProjectTx, store_error};

/// Specs that were read, as lists show them (without the client's own documents).
#[derive(Clone, Debug)]
pub(crate) struct SpecCache(Arc<Cache<(ContainerId, i32), Arc<ContainerSpec>, SpecWeight>>);

/// What is kept at most, roughly.
const KEPT_BYTES: u64 = 64 << 20;
/// A spec without its texts.
const BARE_SPEC_BYTES: usize = 2_048;

#[derive(Clone, Debug)]
struct SpecWeight;

impl Weighter<(ContainerId, i32), Arc<ContainerSpec>> for SpecWeight {
    fn weight(&self, _: &(ContainerId, i32), spec: &Arc<ContainerSpec>) -> u64 {
        let words = spec.env.iter().chain(&spec.cmd).chain(&spec.entrypoint).chain(&spec.extra_hosts);
        let labels = spec.labels.iter().chain(&spec.annotations).map(|(key, value)| key.len() + value.len());
        let bytes = BARE_SPEC_BYTES + words.map(String::len).chain(labels).map(|len| len + 48).sum::<usize>();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

impl SpecCache {
    pub(crate) fn new() -> Self {
        let expected = usize::try_from(KEPT_BYTES).unwrap_or(usize::MAX) / BARE_SPEC_BYTES;
        Self(Arc::new(Cache::with_weighter(expected, KEPT_BYTES, SpecWeight)))
    }
}

impl ProjectTx {
    /// Containers, newest first, without the client's own documents (`spec.shown` is empty).
    /// `all` includes those that do not run.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn list_containers(&mut self, all: bool) -> Result<Vec<ContainerRecord>> {
        let rows = sqlx::query!(
            "SELECT c.id, c.name, c.image_id, c.created_at, c.desired_state, c.run, c.stop_signal, c.stop_timeout_s,
                c.observed_run, c.observed_restart, c.observed_phase, c.pid, c.started_at, c.exit_code, c.oom_killed,
                c.exit_error, c.finished_at, c.prepare_error, c.observed_revision, c.paused, c.oom_kills,
                c.health AS \"health: Json<Health>\", c.removed_at, c.host_id, c.spec_revision,
                host(h.address) AS \"host_address?\", h.agent_port AS \"agent_port?\", h.last_seen_at AS \"last_seen_at?\"
             FROM containers c
             LEFT JOIN hosts h ON h.id = c.host_id
             WHERE c.project_id = $1 AND c.desired_state <> 'removed'
               AND ($2 OR c.desired_state = 'running' OR (c.desired_state = 'stopped' AND c.observed_phase < 5))
             ORDER BY c.created_at DESC, c.id",
            self.project.0,
            all,
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        let keys: Vec<(ContainerId, i32)> =
            rows.iter().map(|row| Ok((stored(&row.id)?, row.spec_revision))).collect::<Result<_>>()?;
        let specs = self.specs(&keys).await?;
        let mut ports = self.ports().await?;
        let mut endpoints = self.endpoints().await?;
        let mut records = Vec::with_capacity(rows.len());
        for (row, (id, _)) in rows.into_iter().zip(keys) {
            // A container that was removed between the two queries is no longer one.
            let Some(spec) = specs.get(&id).cloned() else { continue };
            let host = match (row.host_id, row.host_address, row.agent_port) {
                (Some(host), Some(address), Some(port)) => Some(HostAddress {
                    id: model::HostId(host),
                    address: stored(&address)?,
                    agent_port: u16::try_from(port).map_err(Error::internal)?,
                    last_seen_at: row.last_seen_at,
                }),
                _ => None,
            };
            records.push(ContainerRecord {
                name: stored(&row.name)?,
                image_id: stored(&row.image_id)?,
                spec,
                created_at: row.created_at,
                desired: desired(&row.desired_state, row.run, row.stop_signal, row.stop_timeout_s)?,
                run: unsigned(row.run)?,
                host,
                observed: Observed {
                    progress: Progress {
                        run: unsigned(row.observed_run)?,
                        restart: unsigned(row.observed_restart)?,
                        phase: Phase::from_rank(row.observed_phase),
                    },
                    revision: revision(row.observed_revision)?,
                    paused: row.paused,
                    oom_kills: unsigned(row.oom_kills)?,
                    health: row.health.map(|health| health.0),
                    pid: row.pid.and_then(|pid| u32::try_from(pid).ok()),
                    started_at: row.started_at,
                    exit: exit(row.exit_code, row.oom_killed, row.exit_error, row.finished_at),
                    prepare_error: row.prepare_error,
                },
                endpoints: endpoints.remove(&id).unwrap_or_default(),
                ports: ports.remove(&id).unwrap_or_default(),
                removed_at: row.removed_at,
                id,
            });
        }
        Ok(records)
    }

    /// The specs of these containers, in the revision asked for or a later one.
    async fn specs(&mut self, keys: &[(ContainerId, i32)]) -> Result<HashMap<ContainerId, Arc<ContainerSpec>>> {
        let mut found = HashMap::with_capacity(keys.len());
        let mut unseen = Vec::new();
        for key in keys {
            match self.specs.0.get(key) {
                Some(spec) => drop(found.insert(key.0.clone(), spec)),
                None => unseen.push(key.0.as_str().to_owned()),
            }
        }
        if unseen.is_empty() {
            return Ok(found);
        }
        let rows = sqlx::query!(
            "SELECT id, spec_revision, (spec - 'shown') AS \"spec!: Json<ContainerSpec>\" FROM containers
             WHERE project_id = $1 AND id = ANY($2)",
            self.project.0,
            &unseen,
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        for row in rows {
            let (id, spec) = (stored::<ContainerId>(&row.id)?, Arc::new(row.spec.0));
            self.specs.0.insert((id.clone(), row.spec_revision), spec.clone());
            found.insert(id, spec);
        }
        Ok(found)
    }

    /// Every endpoint of the project, by container, the preferred way out first. Flat rows: building a
    /// document a container in Postgres costs 50 µs each.
    async fn endpoints(&mut self) -> Result<HashMap<ContainerId, Vec<EndpointRecord>>> {
        let rows = sqlx::query!(
            "SELECT e.container_id, e.network_id, n.name, n.driver, n.subnet::text AS \"subnet!\",
                host(n.gateway) AS \"gateway!\", n.internal, n.named AS \"named!\", host(e.ip) AS \"ip!\", e.interface, e.aliases,
                e.fixed_ip, e.gw_priority, e.mac::text AS mac, e.links
             FROM endpoints e JOIN networks n ON n.id = e.network_id
             WHERE e.project_id = $1 ORDER BY e.gw_priority DESC, n.name",
            self.project.0,
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        let mut endpoints = HashMap::<ContainerId, Vec<EndpointRecord>>::with_capacity(rows.len());
        for row in rows {
            let endpoint = EndpointRecord {
                network: stored(&row.network_id)?,
                network_name: row.name,
                driver: row.driver,
                subnet: stored(&row.subnet)?,
                gateway: stored(&row.gateway)?,
                internal: row.internal,
                named: row.named,
                ip: stored(&row.ip)?,
                interface: u8::try_from(row.interface).map_err(Error::internal)?,
                aliases: row.aliases,
                fixed_ip: row.fixed_ip,
                gw_priority: row.gw_priority,
                mac: row.mac.as_deref().map(stored).transpose()?,
                links: row.links,
            };
            endpoints.entry(stored(&row.container_id)?).or_default().push(endpoint);
        }
        Ok(endpoints)
    }

    /// Every published port of the project, by container.
    async fn ports(&mut self) -> Result<HashMap<ContainerId, Vec<PublishedPort>>> {
        let rows = sqlx::query!(
            "SELECT container_id, jsonb_build_object('container_port', container_port, 'protocol', protocol,
                 'host_ip', host(host_ip), 'host_port', host_port) AS \"port!: Json<PublishedPort>\"
             FROM published_ports WHERE project_id = $1 ORDER BY container_port, protocol, host_port",
            self.project.0,
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        let mut ports = HashMap::<ContainerId, Vec<PublishedPort>>::new();
        for row in rows {
            ports.entry(stored(&row.container_id)?).or_default().push(row.port.0);
        }
        Ok(ports)
    }
}
