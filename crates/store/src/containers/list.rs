//! Lists of containers. Most of a list is what it was a moment ago: Postgres tells which containers there
//! are and who wrote their rows last, and only those that are not kept at that version are read.
//!
//! Two queries of narrow rows, whatever the length; two more if something has changed.

use std::{collections::HashMap, sync::Arc};

use model::{ContainerId, Error, HostId, Result};

use super::{ContainerRecord, HostAddress, find::stored, kept::Version};
use crate::{ProjectTx, store_error};

/// A container of a list, before it is read.
struct Listed {
    id: ContainerId,
    version: Version,
    host: Option<HostId>,
}

/// Narrow rows: [`Listed`] as they are stored.
macro_rules! versions {
    ($rest:literal, $($argument:expr),* $(,)?) => {
        sqlx::query!(
            "SELECT c.id, c.xmin::text::bigint AS \"own!\", c.host_id, a.versions AS attached,
                 pg_current_xact_id_if_assigned() IS NULL AS \"only_reads!\"
             FROM containers c
             LEFT JOIN (SELECT s.container_id, array_agg(s.version ORDER BY s.version) AS versions
                        FROM (SELECT container_id, xmin::text::bigint AS version FROM endpoints WHERE project_id = $1
                              UNION ALL
                              SELECT container_id, -xmin::text::bigint FROM published_ports WHERE project_id = $1) s
                        GROUP BY s.container_id) a ON a.container_id = c.id
             WHERE c.project_id = $1 AND c.desired_state <> 'removed' " + $rest,
            $($argument),*
        )
    };
}

impl ProjectTx {
    /// Containers, newest first, without the client's own documents (`spec.shown` is empty).
    /// `all` includes those that do not run.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn list_containers(&mut self, all: bool) -> Result<Vec<ContainerRecord>> {
        let listed = self.listed(all).await?;
        let mut records = HashMap::with_capacity(listed.len());
        let mut changed = Vec::new();
        for container in &listed {
            match self.kept.get(&container.id, &container.version) {
                Some(record) => drop(records.insert(&container.id, record)),
                None => changed.push(container),
            }
        }
        let read = self.read(&changed).await?;
        records.extend(read.iter().map(|record| (&record.id, record.clone())));
        let hosts = self.hosts_of(&listed).await?;
        // One that was removed between the queries is no longer one.
        let shown = listed.iter().filter_map(|container| {
            let host = container.host.and_then(|host| hosts.get(&host).cloned());
            let record = records.get(&container.id)?;
            Some(ContainerRecord { host, ..ContainerRecord::clone(record) })
        });
        Ok(shown.collect())
    }

    async fn listed(&mut self, all: bool) -> Result<Vec<Listed>> {
        let rows = versions!(
            "AND ($2 OR c.desired_state = 'running' OR (c.desired_state = 'stopped' AND c.observed_phase < 5))
             ORDER BY c.created_at DESC, c.id",
            self.project.0,
            all,
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        let listed = rows.into_iter().map(|row| {
            let version = Version { own: row.own, attached: row.attached };
            Ok(Listed { id: stored(&row.id)?, version, host: row.host_id.map(HostId) })
        });
        listed.collect()
    }

    /// Reads containers, and keeps those that were at the version they were listed with. A record is read
    /// by one query, hence is of one moment; if the version before is the version after, it is the record's.
    /// A transaction that writes keeps nothing: what it has written it may write again under the same number.
    async fn read(&mut self, changed: &[&Listed]) -> Result<Vec<Arc<ContainerRecord>>> {
        if changed.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<&ContainerId> = changed.iter().map(|container| &container.id).collect();
        let records = self.find_containers(&ids).await?;
        let ids: Vec<String> = ids.iter().map(|id| id.as_str().to_owned()).collect();
        let rows = versions!("AND c.id = ANY($2)", self.project.0, &ids);
        let rows = rows.fetch_all(self.connection()).await.map_err(store_error)?;
        let read_only = rows.into_iter().filter(|row| row.only_reads);
        let after: HashMap<String, Version> =
            read_only.map(|row| (row.id, Version { own: row.own, attached: row.attached })).collect();
        let before: HashMap<&ContainerId, &Version> = changed.iter().map(|c| (&c.id, &c.version)).collect();
        let records = records.into_iter().map(|mut record| {
            Arc::make_mut(&mut record.spec).shown.clear();
            Arc::new(ContainerRecord { host: None, ..record })
        });
        let records: Vec<_> = records.collect();
        for record in &records {
            if let Some(version) = after.get(record.id.as_str()).filter(|after| before.get(&record.id) == Some(after)) {
                self.kept.keep(version.clone(), record.clone());
            }
        }
        Ok(records)
    }

    /// Where these containers are. Hosts report all the time: never kept.
    async fn hosts_of(&mut self, listed: &[Listed]) -> Result<HashMap<HostId, HostAddress>> {
        let mut hosts: Vec<uuid::Uuid> =
            listed.iter().filter_map(|container| container.host).map(|host| host.0).collect();
        hosts.sort_unstable();
        hosts.dedup();
        let rows = sqlx::query!(
            "SELECT id, host(address) AS \"address!\", agent_port, last_seen_at FROM hosts WHERE id = ANY($1)",
            &hosts,
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        let hosts = rows.into_iter().map(|row| {
            let (id, agent_port) = (HostId(row.id), u16::try_from(row.agent_port).map_err(Error::internal)?);
            let address = stored(&row.address)?;
            Ok((id, HostAddress { id, address, agent_port, last_seen_at: row.last_seen_at }))
        });
        hosts.collect()
    }
}
