//! What a host has to do, as the document it gets: a projection of rows, without decisions. The
//! cost of a change is the size of the change.
//!
//! The generation is read before the rows. Whatever reached it was committed by then and is seen by
//! the later reads; whatever is newer may be seen too, and is then sent again. Nothing is missed,
//! and no transaction is needed.

use contract::host::{HostDelta, PlannedContainer, PlannedImage, PlannedNetwork, PlannedVolume};
use model::{ContainerSpec, Desired, Endpoint, Error, HostId, LayerDescriptor, ProjectId, PublishedPort, Result};
use sqlx::types::Json;

use crate::{
    Store, store_error,
    stored::{number, parsed},
};

impl Store {
    /// What changed for a host since the generation it has; everything if it has none. `None`: nothing.
    ///
    /// # Errors
    /// `Forbidden` if there is no such host any more.
    pub async fn host_changes(&self, host: HostId, has: Option<i64>) -> Result<Option<HostDelta>> {
        let generation = sqlx::query_scalar!("SELECT generation FROM hosts WHERE id = $1", host.0)
            .fetch_optional(self.pool())
            .await
            .map_err(store_error)?
            .ok_or_else(|| Error::Forbidden("this host is not part of the fleet; it must join again".into()))?;
        if has == Some(generation) {
            return Ok(None);
        }
        let after = has.unwrap_or(-1);
        let containers = self.planned_containers(host, after).await?;
        let networks = self.planned_networks(host, after, &containers).await?;
        let volumes = self.planned_volumes(host, has).await?;
        Ok(Some(HostDelta { generation, full: has.is_none(), containers, networks, volumes }))
    }

    /// All of them for a whole plan; otherwise those that were removed since.
    async fn planned_volumes(&self, host: HostId, has: Option<i64>) -> Result<Vec<PlannedVolume>> {
        let rows = sqlx::query!(
            "SELECT id, project_id, removing FROM volumes
             WHERE host_id = $1 AND ($2::bigint IS NULL OR (removing AND host_generation > $2)) ORDER BY id",
            host.0,
            has,
        )
        .fetch_all(self.pool())
        .await
        .map_err(store_error)?;
        rows.into_iter()
            .map(|row| {
                let project = ProjectId(row.project_id);
                Ok(PlannedVolume { id: parsed(&row.id)?, project, removed: row.removing })
            })
            .collect()
    }

    async fn planned_containers(&self, host: HostId, after: i64) -> Result<Vec<PlannedContainer>> {
        let rows = sqlx::query!(
            r#"SELECT c.id, c.project_id, o.uid_base, c.name, c.desired_state, c.run, c.stop_signal, c.stop_timeout_s, c.image_id,
                   (c.spec - 'shown') AS "spec!: Json<ContainerSpec>",
                   i.layers AS "layers?: Json<Vec<LayerDescriptor>>",
                   e.network_id AS "network_id?", host(e.ip) AS "ip?",
                   (SELECT coalesce(jsonb_agg(jsonb_build_object('container_port', p.container_port,
                           'protocol', p.protocol, 'host_ip', host(p.host_ip), 'host_port', p.host_port)
                           ORDER BY p.container_port, p.protocol, p.host_port), '[]')
                    FROM published_ports p WHERE p.container_id = c.id AND p.run = c.run)
                   AS "ports!: Json<Vec<PublishedPort>>"
               FROM containers c
               JOIN projects o ON o.id = c.project_id
               LEFT JOIN images i ON i.project_id = c.project_id AND i.id = c.image_id
               LEFT JOIN endpoints e ON e.container_id = c.id
               WHERE c.host_id = $1 AND c.host_generation > $2 AND c.removed_at IS NULL
               ORDER BY c.host_generation, c.id"#,
            host.0,
            after,
        )
        .fetch_all(self.pool())
        .await
        .map_err(store_error)?;
        rows.into_iter()
            .map(|row| {
                let endpoint = match (row.network_id, row.ip) {
                    (Some(network), Some(ip)) => Some(Endpoint { network: parsed(&network)?, ip: parsed(&ip)? }),
                    _ => None,
                };
                Ok(PlannedContainer {
                    id: parsed(&row.id)?,
                    project: ProjectId(row.project_id),
                    uid_base: Some(number(row.uid_base)?),
                    name: parsed(&row.name)?,
                    desired: desired(&row.desired_state, row.run, row.stop_signal, row.stop_timeout_s)?,
                    spec: row.spec.0,
                    // An image may be deleted under a container; what is prepared needs no layers.
                    image: PlannedImage {
                        id: parsed(&row.image_id)?,
                        layers: row.layers.map(|l| l.0).unwrap_or_default(),
                    },
                    endpoint,
                    ports: row.ports.0,
                })
            })
            .collect()
    }

    async fn planned_networks(
        &self,
        host: HostId,
        after: i64,
        containers: &[PlannedContainer],
    ) -> Result<Vec<PlannedNetwork>> {
        let needed = containers.iter().filter_map(|container| container.endpoint.as_ref());
        let needed: Vec<String> = needed.map(|endpoint| endpoint.network.as_str().to_owned()).collect();
        let rows = sqlx::query!(
            r#"SELECT n.id, n.project_id, n.vni, n.subnet::text AS "subnet!",
                   ARRAY(SELECT host(h.address) FROM network_hosts o JOIN hosts h ON h.id = o.host_id
                         WHERE o.network_id = n.id AND o.host_id <> $1 ORDER BY h.address) AS "peers!: Vec<String>"
               FROM network_hosts m JOIN networks n ON n.id = m.network_id
               WHERE m.host_id = $1 AND (m.generation > $2 OR n.id = ANY($3)) ORDER BY n.id"#,
            host.0,
            after,
            &needed,
        )
        .fetch_all(self.pool())
        .await
        .map_err(store_error)?;
        rows.into_iter()
            .map(|row| {
                Ok(PlannedNetwork {
                    id: parsed(&row.id)?,
                    project: ProjectId(row.project_id),
                    vni: number(row.vni)?,
                    subnet: parsed(&row.subnet)?,
                    peers: row.peers.iter().map(|address| parsed(address)).collect::<Result<_>>()?,
                })
            })
            .collect()
    }
}

fn desired(state: &str, run: i32, signal: String, timeout_s: i64) -> Result<Desired> {
    let run = number(run)?;
    match state {
        "created" => Ok(Desired::Created),
        "running" => Ok(Desired::Running { run }),
        "stopped" => Ok(Desired::Stopped { run, signal, timeout_s }),
        "removed" => Ok(Desired::Removed),
        other => Err(Error::Internal(format!("unknown desired state {other:?}"))),
    }
}
