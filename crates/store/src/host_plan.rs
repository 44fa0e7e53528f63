//! What a host has to do, as the document it gets: a projection of rows, without decisions. The
//! cost of a change is the size of the change.
//!
//! The generation is read before the rows. Whatever reached it was committed by then and is seen by
//! the later reads; whatever is newer may be seen too, and is then sent again. Nothing is missed,
//! and no transaction is needed.

use contract::{
    host::{HostDelta, HostsLine, PlannedContainer, PlannedImage, PlannedNetwork, PlannedVolume},
    net::NetName,
};
use model::{ContainerSpec, Endpoint, Error, HostId, LayerDescriptor, ProjectId, PublishedPort, Result};
use sqlx::types::Json;

use crate::{
    Store,
    containers::desired,
    store_error,
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
                   (SELECT coalesce(jsonb_agg(jsonb_build_object('network', e.network_id, 'ip', host(e.ip), 'interface', e.interface,
                           'mac', e.mac, 'links', e.links)
                           ORDER BY e.gw_priority DESC, n.name), '[]')
                    FROM endpoints e JOIN networks n ON n.id = e.network_id WHERE e.container_id = c.id)
                   AS "endpoints!: Json<Vec<Endpoint>>",
                   (SELECT coalesce(jsonb_agg(jsonb_build_object('container_port', p.container_port,
                           'protocol', p.protocol, 'host_ip', host(p.host_ip), 'host_port', p.host_port)
                           ORDER BY p.container_port, p.protocol, p.host_port), '[]')
                    FROM published_ports p WHERE p.container_id = c.id AND p.run = c.run)
                   AS "ports!: Json<Vec<PublishedPort>>",
                   -- A link goes with the container it leads to.
                   (SELECT coalesce(jsonb_agg(jsonb_build_object('ip', host(e.ip), 'names', jsonb_build_array(l->>'alias',
                           coalesce(nullif(t.spec->>'hostname', ''), left(t.id, 12)), t.name)) ORDER BY l->>'alias'), '[]')
                    FROM jsonb_array_elements(c.spec->'links') AS l
                    JOIN containers t ON t.id = l->>'container' AND t.project_id = c.project_id AND t.desired_state <> 'removed'
                    JOIN endpoints e ON e.container_id = t.id JOIN networks n ON n.id = e.network_id AND NOT n.named)
                   AS "linked!: Json<Vec<HostsLine>>"
               FROM containers c
               JOIN projects o ON o.id = c.project_id
               LEFT JOIN images i ON i.project_id = c.project_id AND i.id = c.image_id
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
                    endpoints: row.endpoints.0,
                    ports: row.ports.0,
                    linked: row.linked.0,
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
        let needed = containers.iter().flat_map(|container| &container.endpoints);
        let needed: Vec<String> = needed.map(|endpoint| endpoint.network.as_str().to_owned()).collect();
        let rows = sqlx::query!(
            r#"SELECT n.id, n.project_id, n.vni, n.subnet::text AS "subnet!", host(n.gateway) AS "gateway!", n.internal,
                   CASE WHEN n.named THEN
                       (SELECT coalesce(jsonb_agg(jsonb_build_object('name', lower(answers.name), 'ip', host(e.ip))
                               ORDER BY answers.name, e.ip), '[]')
                        FROM endpoints e JOIN containers c ON c.id = e.container_id, LATERAL (
                            SELECT c.name UNION SELECT left(c.id, 12) UNION SELECT unnest(e.aliases)
                            UNION SELECT c.spec->>'hostname' WHERE c.spec->>'hostname' <> '') AS answers (name)
                        WHERE e.network_id = n.id
                            AND container_is_named(c.desired_state, c.run, c.observed_run, c.observed_phase))
                   END AS "names: Json<Vec<NetName>>",
                   ARRAY(SELECT host(h.address) FROM network_hosts o JOIN hosts h ON h.id = o.host_id
                         WHERE o.network_id = n.id AND o.host_id <> $1 ORDER BY h.address) AS "peers!: Vec<String>"
               FROM networks n LEFT JOIN network_hosts m ON m.network_id = n.id AND m.host_id = $1
               -- A container that was connected just now may be ahead of `network_hosts`.
               WHERE m.generation > $2 OR n.id = ANY($3) ORDER BY n.id"#,
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
                    gateway: Some(parsed(&row.gateway)?),
                    internal: row.internal,
                    names: row.names.map(|names| names.0),
                    peers: row.peers.iter().map(|address| parsed(address)).collect::<Result<_>>()?,
                })
            })
            .collect()
    }
}
