//! The planner's input and output as rows. A snapshot is read in one REPEATABLE READ transaction;
//! a plan is applied by compare-and-swap on the epoch it was made at, so that placements are totally
//! ordered and no capacity is promised twice, however many schedulers there are.

use std::collections::{BTreeMap, BTreeSet};

use contract::host::HostRuntime;
use model::{
    ContainerId, Error, HostId, MemoryBytes, NanoCpus, PortBinding, PortProtocol, ProjectId, Result, VolumeId,
};
use planner::{Demand, HostView, JoinedView, Plan, Snapshot, VolumeView, WantedPort};
use sqlx::{PgConnection, types::Json};

use crate::{
    Store,
    hosts::{capacity, condition, host_state},
    network_hosts::touch_networks,
    store_error,
    stored::{number, parsed},
};

/// Containers planned at once. More wait for the next round, which follows at once.
pub const PLANNED_AT_ONCE: i64 = 1_000;

/// What became of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Another plan was applied meanwhile. Nothing was written; read again.
    Stale,
    /// It is durable.
    Done {
        /// What was placed: less than was planned where a container was removed meanwhile.
        placed: BTreeMap<ContainerId, HostId>,
        /// Hosts whose plan changed.
        changed: BTreeSet<HostId>,
    },
}

impl Store {
    /// Reads what the planner needs; `None` if nothing is unplaced. `first` come before others where
    /// there are more than [`PLANNED_AT_ONCE`].
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn plan_snapshot(&self, first: &[ContainerId]) -> Result<Option<Snapshot>> {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let mut tx = self.pool().begin_with(begin).await.map_err(store_error)?;
        let unplaced = unplaced(&mut tx, first).await?;
        if unplaced.is_empty() {
            tx.rollback().await.map_err(store_error)?;
            return Ok(None);
        }
        let (epoch, mut hosts) = hosts(&mut tx).await?;
        add_ports(&mut tx, &unplaced, &mut hosts).await?;
        add_images(&mut tx, &unplaced, &mut hosts).await?;
        let volumes = volumes(&mut tx, &unplaced).await?;
        tx.commit().await.map_err(store_error)?;
        Ok(Some(Snapshot { epoch, hosts, unplaced, volumes }))
    }

    /// Applies a plan, if nothing was applied since its snapshot.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn apply_plan(&self, plan: &Plan) -> Result<Applied> {
        let containers: Vec<String> = plan.steps.iter().map(|step| step.container.as_str().to_owned()).collect();
        let hosts: Vec<uuid::Uuid> = plan.steps.iter().map(|step| step.host.0).collect();
        let mut tx = self.service_tx().await?;
        // The epoch comes first: the update of containers needs its row. Without it, nothing happens.
        let rows = sqlx::query!(
            r#"WITH epoch AS (UPDATE plan_epoch SET n = n + 1 WHERE n = $1 RETURNING n),
               placed AS (
                   UPDATE containers c SET host_id = p.host
                   FROM unnest($2::text[], $3::uuid[]) AS p (container, host), epoch
                   WHERE c.id = p.container AND c.host_id IS NULL AND c.desired_state <> 'removed'
                   RETURNING c.id, c.host_id),
               -- A volume goes where its first container goes. A plan that puts another one elsewhere breaks
               -- container_volumes_place_fkey, and nothing of it is written.
               used AS (
                   UPDATE container_volumes u SET host_id = placed.host_id FROM placed
                   WHERE u.container_id = placed.id RETURNING u.volume_id, u.host_id),
               bound AS (
                   UPDATE volumes v SET host_id = used.host_id FROM used
                   WHERE v.id = used.volume_id AND v.host_id IS NULL),
               extended AS (
                   INSERT INTO network_hosts (network_id, host_id)
                   SELECT DISTINCT e.network_id, placed.host_id FROM placed JOIN endpoints e ON e.container_id = placed.id
                   ON CONFLICT DO NOTHING RETURNING network_id)
               SELECT placed.id AS "id?", placed.host_id AS "host_id?",
                      ARRAY(SELECT DISTINCT network_id FROM extended) AS "extended!: Vec<String>"
               FROM epoch LEFT JOIN placed ON true"#,
            plan.epoch,
            &containers,
            &hosts,
        )
        .fetch_all(tx.connection())
        .await
        .map_err(store_error)?;
        let Some(first) = rows.first() else { return Ok(Applied::Stale) };
        let mut changed = touch_networks(tx.connection(), &first.extended).await?;
        let mut placed = BTreeMap::new();
        for row in rows {
            if let (Some(id), Some(host)) = (row.id, row.host_id) {
                placed.insert(parsed::<ContainerId>(&id)?, HostId(host));
            }
        }
        tx.commit().await?;
        changed.extend(placed.values());
        Ok(Applied::Done { placed, changed })
    }

    /// Where these are now; what is missing is unplaced or gone.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn placements(&self, containers: &[ContainerId]) -> Result<BTreeMap<ContainerId, HostId>> {
        let ids: Vec<String> = containers.iter().map(|id| id.as_str().to_owned()).collect();
        sqlx::query!(
            r#"SELECT id, host_id AS "host_id!" FROM containers WHERE id = ANY($1) AND host_id IS NOT NULL"#,
            &ids
        )
        .fetch_all(self.pool())
        .await
        .map_err(store_error)?
        .into_iter()
        .map(|row| Ok((parsed(&row.id)?, HostId(row.host_id))))
        .collect()
    }
}

/// A container that another one joins.
#[derive(Debug, serde::Deserialize)]
struct Joined {
    name: String,
    host: Option<HostId>,
}

async fn unplaced(connection: &mut PgConnection, first: &[ContainerId]) -> Result<Vec<Demand>> {
    let first: Vec<String> = first.iter().map(|id| id.as_str().to_owned()).collect();
    let rows = sqlx::query!(
        r#"SELECT c.id, c.project_id, c.image_id,
               coalesce((c.spec->'resources'->>'nano_cpus')::bigint, 0) AS "nano_cpus!",
               coalesce((c.spec->'resources'->>'memory_bytes')::bigint, 0) AS "memory_bytes!",
               nullif(c.spec->>'runtime', '') AS runtime, coalesce(c.spec->'port_bindings', '[]') AS "ports!: Json<Vec<PortBinding>>",
               ARRAY(SELECT u.volume_id FROM container_volumes u WHERE u.container_id = c.id) AS "volumes!: Vec<String>",
               (SELECT coalesce(jsonb_agg(jsonb_build_object('name', coalesce(j.name, w.id), 'host', j.host_id)), '[]')
                FROM unnest(ARRAY[c.spec->>'network_of', c.spec->>'pid_of', c.spec->>'ipc_of']) AS w (id)
                LEFT JOIN containers j ON j.id = w.id AND j.project_id = c.project_id
                WHERE w.id IS NOT NULL) AS "joins!: Json<Vec<Joined>>"
           FROM containers c
           WHERE c.host_id IS NULL AND c.desired_state <> 'removed'
           ORDER BY (c.id = ANY($1)) DESC, c.created_at, c.id LIMIT $2"#,
        &first,
        PLANNED_AT_ONCE,
    )
    .fetch_all(connection)
    .await
    .map_err(store_error)?;
    rows.into_iter()
        .map(|row| {
            let wanted = row.ports.0.iter().filter_map(|port| Some((port.protocol, port.host_port?)));
            let ranges = row.ports.0.iter().filter_map(|port| Some((port.protocol, port.host_range?)));
            Ok(Demand {
                container: parsed(&row.id)?,
                project: ProjectId(row.project_id),
                nano_cpus: NanoCpus(number(row.nano_cpus)?),
                memory: MemoryBytes(number(row.memory_bytes)?),
                ports: wanted.collect(),
                port_ranges: ranges.map(|(protocol, (from, to))| (protocol, from, to)).collect(),
                image: row.image_id.parse().ok(),
                volumes: row.volumes.iter().map(|id| parsed(id)).collect::<Result<_>>()?,
                runtime: row.runtime,
                joins: row.joins.0.into_iter().map(|Joined { name, host }| JoinedView { name, host }).collect(),
            })
        })
        .collect()
}

async fn hosts(connection: &mut PgConnection) -> Result<(i64, BTreeMap<HostId, HostView>)> {
    let rows = sqlx::query!(
        r#"SELECT e.n, now() AS "now!", h.id AS "id?", h.name AS "name?", h.state AS "state?", h.nano_cpus AS "nano_cpus?",
               h.memory_bytes AS "memory_bytes?", h.max_containers AS "max_containers?", h.last_seen_at,
               coalesce(h.placed, 0) AS "placed!", coalesce(h.reserved_nano_cpus, 0) AS "reserved_nano_cpus!",
               coalesce(h.reserved_memory_bytes, 0) AS "reserved_memory_bytes!",
               h.runtimes AS "runtimes?: Json<Vec<HostRuntime>>"
           FROM plan_epoch e LEFT JOIN hosts h ON true"#
    )
    .fetch_all(connection)
    .await
    .map_err(store_error)?;
    let epoch = rows.first().map(|row| row.n).ok_or_else(|| Error::Internal("there is no plan epoch".into()))?;
    let mut hosts = BTreeMap::new();
    for row in rows {
        let (Some(id), Some(name), Some(state)) = (row.id, row.name, row.state) else { continue };
        let view = HostView {
            name,
            condition: condition(row.last_seen_at, row.now),
            state: host_state(&state)?,
            capacity: capacity(
                row.nano_cpus.unwrap_or_default(),
                row.memory_bytes.unwrap_or_default(),
                row.max_containers.unwrap_or_default(),
            )?,
            reserved_nano_cpus: NanoCpus(number(row.reserved_nano_cpus)?),
            reserved_memory: MemoryBytes(number(row.reserved_memory_bytes)?),
            containers: number(row.placed)?,
            used_ports: BTreeSet::new(),
            runtimes: row.runtimes.map(|all| offered(all.0)).unwrap_or_default(),
            local_images: BTreeSet::new(),
        };
        hosts.insert(HostId(id), view);
    }
    Ok((epoch, hosts))
}

fn offered(runtimes: Vec<HostRuntime>) -> BTreeSet<String> {
    runtimes.into_iter().filter(|runtime| runtime.missing.is_none()).map(|runtime| runtime.name).collect()
}

/// Which of the ports that are asked for are taken, and where.
async fn add_ports(
    connection: &mut PgConnection,
    unplaced: &[Demand],
    hosts: &mut BTreeMap<HostId, HostView>,
) -> Result<()> {
    let wanted: BTreeSet<WantedPort> = unplaced.iter().flat_map(|demand| demand.ports.iter().copied()).collect();
    let ranges: BTreeSet<(u16, u16)> =
        unplaced.iter().flat_map(|demand| &demand.port_ranges).map(|(_, from, to)| (*from, *to)).collect();
    if wanted.is_empty() && ranges.is_empty() {
        return Ok(());
    }
    let single = wanted.iter().map(|(_, port)| (*port, *port));
    let (from, to): (Vec<i32>, Vec<i32>) =
        single.chain(ranges).map(|(from, to)| (i32::from(from), i32::from(to))).unzip();
    let rows = sqlx::query!(
        "SELECT DISTINCT p.host_id, p.protocol, p.host_port
         FROM unnest($1::integer[], $2::integer[]) AS w (first, last)
         JOIN published_ports p ON p.host_port BETWEEN w.first AND w.last",
        &from,
        &to,
    )
    .fetch_all(connection)
    .await
    .map_err(store_error)?;
    for row in rows {
        if let Some(view) = hosts.get_mut(&HostId(row.host_id)) {
            view.used_ports.insert((parsed::<PortProtocol>(&row.protocol)?, number(row.host_port)?));
        }
    }
    Ok(())
}

/// Where containers of the images that are asked for are already.
async fn add_images(
    connection: &mut PgConnection,
    unplaced: &[Demand],
    hosts: &mut BTreeMap<HostId, HostView>,
) -> Result<()> {
    // With one host there is nothing to choose.
    if hosts.len() < 2 {
        return Ok(());
    }
    let wanted: BTreeSet<&str> = unplaced.iter().filter_map(|demand| Some(demand.image.as_ref()?.as_str())).collect();
    let wanted: Vec<String> = wanted.into_iter().map(str::to_owned).collect();
    let rows = sqlx::query!(
        // LIMIT keeps it one look into the index per host and image, whatever Postgres thinks of the table.
        r#"SELECT w.image AS "image_id!", h.id AS "host_id!" FROM unnest($1::text[]) AS w (image) CROSS JOIN hosts h
           CROSS JOIN LATERAL (
               SELECT FROM containers c WHERE c.image_id = w.image AND c.host_id = h.id LIMIT 1) AS has"#,
        &wanted
    )
    .fetch_all(connection)
    .await
    .map_err(store_error)?;
    for row in rows {
        if let Some(view) = hosts.get_mut(&HostId(row.host_id)) {
            view.local_images.insert(parsed(&row.image_id)?);
        }
    }
    Ok(())
}

/// Where the volumes are that are used, as far as they are anywhere.
async fn volumes(connection: &mut PgConnection, unplaced: &[Demand]) -> Result<BTreeMap<VolumeId, VolumeView>> {
    let used: BTreeSet<&VolumeId> = unplaced.iter().flat_map(|demand| &demand.volumes).collect();
    if used.is_empty() {
        return Ok(BTreeMap::new());
    }
    let used: Vec<String> = used.into_iter().map(|id| id.as_str().to_owned()).collect();
    let rows = sqlx::query!("SELECT id, name, host_id FROM volumes WHERE id = ANY($1)", &used)
        .fetch_all(connection)
        .await
        .map_err(store_error)?;
    rows.into_iter()
        .map(|row| Ok((parsed(&row.id)?, VolumeView { name: row.name, host: row.host_id.map(HostId) })))
        .collect()
}
