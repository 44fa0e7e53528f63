//! A project's networks and who is on them. Subnets are routed on every host, so no two in the fleet
//! overlap, whoever has them: a constraint sees to it.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;
use model::{ContainerId, ContainerName, Error, MacAddress, NetworkId, Result};
use serde_json::Value;
use sqlx::types::Json;
use time::OffsetDateTime;

use crate::{ProjectTx, store_error, stored::parsed};

/// Networks of one project, its own bridge among them.
pub const NETWORKS_PER_PROJECT: i64 = 64;
/// How often creation tries again when another one took the same network number meanwhile.
pub(crate) const NUMBER_TRIES: usize = 64;

/// A network of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRecord {
    /// Id.
    pub id: NetworkId,
    /// Unique in the project.
    pub name: String,
    /// What the client calls it.
    pub driver: String,
    /// Unique in the fleet.
    pub subnet: Ipv4Net,
    /// Where containers send what is not for their own network.
    pub gateway: Ipv4Addr,
    /// It leads nowhere.
    pub internal: bool,
    /// Shown again.
    pub attachable: bool,
    /// The user's.
    pub labels: BTreeMap<String, String>,
    /// Options of the driver, shown again.
    pub options: BTreeMap<String, String>,
    /// What was asked of IPAM, shown again.
    pub ipam: Option<Value>,
    /// The client chose the subnet.
    pub chosen: bool,
    /// Names are served on it: it is not the project's own bridge.
    pub named: bool,
    /// A container that runs is on it.
    pub in_use: bool,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// A network about to be made.
#[derive(Clone, Debug)]
pub struct NewNetwork<'a> {
    /// Drawn by the caller.
    pub id: &'a NetworkId,
    /// Free in the project, or it is refused.
    pub name: &'a str,
    /// What the client calls it.
    pub driver: &'a str,
    /// It leads nowhere.
    pub internal: bool,
    /// Shown again.
    pub attachable: bool,
    /// The user's.
    pub labels: &'a BTreeMap<String, String>,
    /// Options of the driver, shown again.
    pub options: &'a BTreeMap<String, String>,
    /// What was asked of IPAM, shown again.
    pub ipam: Option<&'a Value>,
    /// The subnet the client chose; `None` takes one of the pool.
    pub subnet: Option<ChosenSubnet>,
    /// Now.
    pub created_at: OffsetDateTime,
}

/// A subnet the client chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenSubnet {
    /// It.
    pub subnet: Ipv4Net,
    /// The gateway in it.
    pub gateway: Ipv4Addr,
    /// Addresses nobody gets besides the gateway.
    pub reserved: Vec<Ipv4Addr>,
    /// First and last address that is given, as offsets.
    pub offsets: (u32, u32),
}

/// A container on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkMember {
    /// The container.
    pub container: ContainerId,
    /// Its name.
    pub name: ContainerName,
    /// Its address.
    pub ip: Ipv4Addr,
    /// The address of its link, if the user chose it.
    pub mac: Option<MacAddress>,
}

impl ProjectTx {
    /// Every network of the project, by name.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn networks(&mut self) -> Result<Vec<NetworkRecord>> {
        let rows = sqlx::query!(
            r#"SELECT id, name, driver, subnet::text AS "subnet!", host(gateway) AS "gateway!", internal, attachable,
                   labels AS "labels!: Json<BTreeMap<String, String>>",
                   options AS "options!: Json<BTreeMap<String, String>>", ipam, chosen, coalesce(named, true) AS "named!",
                   EXISTS (SELECT FROM endpoints e JOIN containers c ON c.id = e.container_id
                           WHERE e.network_id = networks.id AND c.observed_phase = $2) AS "in_use!",
                   created_at
               FROM networks WHERE project_id = $1 ORDER BY name"#,
            self.project.0,
            model::Phase::Running.rank(),
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        rows.into_iter()
            .map(|row| {
                Ok(NetworkRecord {
                    id: parsed(&row.id)?,
                    name: row.name,
                    driver: row.driver,
                    subnet: parsed(&row.subnet)?,
                    gateway: parsed(&row.gateway)?,
                    internal: row.internal,
                    attachable: row.attachable,
                    labels: row.labels.0,
                    options: row.options.0,
                    ipam: row.ipam,
                    chosen: row.chosen,
                    named: row.named,
                    in_use: row.in_use,
                    created_at: row.created_at,
                })
            })
            .collect()
    }

    /// The running containers on a network, by name.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn network_members(&mut self, network: &NetworkId) -> Result<Vec<NetworkMember>> {
        let rows = sqlx::query!(
            r#"SELECT c.id, c.name, host(e.ip) AS "ip!", e.mac::text AS mac FROM endpoints e JOIN containers c ON c.id = e.container_id
               WHERE e.project_id = $1 AND e.network_id = $2 AND c.desired_state <> 'removed' AND c.observed_phase = $3
               ORDER BY c.name"#,
            self.project.0,
            network.as_str(),
            model::Phase::Running.rank()
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        rows.into_iter()
            .map(|row| {
                Ok(NetworkMember {
                    container: parsed(&row.id)?,
                    name: parsed(&row.name)?,
                    ip: parsed(&row.ip)?,
                    mac: row.mac.as_deref().map(parsed).transpose()?,
                })
            })
            .collect()
    }

    /// Makes a network.
    ///
    /// # Errors
    /// `Conflict` for a name that is taken, `Forbidden` for a subnet that is or that is not the
    /// tenant's to choose, `LimitExceeded`.
    pub async fn create_network(&mut self, new: &NewNetwork<'_>) -> Result<()> {
        for _ in 0..NUMBER_TRIES {
            self.check_new_network(new.name).await?;
            let (vni, subnet) = match &new.subnet {
                Some(chosen) => (self.number_for(chosen.subnet).await?, chosen.subnet.to_string()),
                None => self.free_slot().await?,
            };
            if self.insert_network(new, vni, &subnet).await? {
                return Ok(());
            }
        }
        Err(Error::Unavailable("too many networks are being made at once; try again".into()))
    }

    async fn check_new_network(&mut self, name: &str) -> Result<()> {
        let row = sqlx::query!(
            r#"SELECT count(*) AS "all!", count(*) FILTER (WHERE name = $2) AS "so_named!" FROM networks WHERE project_id = $1"#,
            self.project.0,
            name,
        )
        .fetch_one(self.connection())
        .await
        .map_err(store_error)?;
        if row.so_named > 0 {
            return Err(Error::Conflict(format!("network with name {name} already exists")));
        }
        if row.all >= NETWORKS_PER_PROJECT {
            return Err(Error::LimitExceeded(format!("a project may have {NETWORKS_PER_PROJECT} networks")));
        }
        Ok(())
    }

    async fn free_slot(&mut self) -> Result<(i32, String)> {
        let row = sqlx::query!(r#"SELECT vni AS "vni!", subnet::text AS "subnet!" FROM free_network_slot()"#)
            .fetch_optional(self.connection())
            .await
            .map_err(store_error)?
            .ok_or_else(|| Error::LimitExceeded("the platform's pool of networks is used up".into()))?;
        Ok((row.vni, row.subnet))
    }

    async fn number_for(&mut self, chosen: Ipv4Net) -> Result<i32> {
        let row = sqlx::query!(
            r#"SELECT free_network_number($1::text::cidr) AS number, network_subnet_is_taken($1::text::cidr) AS "taken!",
                   (SELECT array_to_string(choosable, ', ') FROM network_pool) AS "choosable!""#,
            chosen.to_string(),
        )
        .fetch_one(self.connection())
        .await
        .map_err(store_error)?;
        if row.taken {
            return Err(Error::Forbidden(format!(
                "invalid pool request: Pool overlaps with other one on this address space ({chosen})"
            )));
        }
        row.number.ok_or_else(|| {
            Error::Forbidden(format!(
                "subnet {chosen} is not available on Wharfage: choose one inside {}, or none",
                row.choosable
            ))
        })
    }

    /// `false`: somebody took the number, name or subnet meanwhile.
    async fn insert_network(&mut self, new: &NewNetwork<'_>, vni: i32, subnet: &str) -> Result<bool> {
        let chosen = new.subnet.as_ref();
        let reserved: Vec<String> = chosen.iter().flat_map(|c| &c.reserved).map(ToString::to_string).collect();
        let (first, last) = chosen.map_or((2, None), |c| (c.offsets.0, Some(c.offsets.1)));
        let offset = |n: u32| i32::try_from(n).map_err(Error::internal);
        let made = sqlx::query!(
            "INSERT INTO networks (id, project_id, name, driver, vni, subnet, gateway, reserved, first_offset, next_offset,
                 last_offset, internal, attachable, labels, options, ipam, chosen, created_at)
             VALUES ($1, $2, $3, $4, $5, $6::text::cidr, $7::text::inet, $8::text[]::inet[], $9, $9 - 1, $10, $11, $12,
                 $13, $14, $15, $16, $17)
             ON CONFLICT DO NOTHING",
            new.id.as_str(),
            self.project.0,
            new.name,
            new.driver,
            vni,
            subnet,
            chosen.map(|c| c.gateway.to_string()),
            &reserved,
            offset(first)?,
            last.map(offset).transpose()?,
            new.internal,
            new.attachable,
            Json(new.labels) as _,
            Json(new.options) as _,
            new.ipam,
            chosen.is_some(),
            new.created_at,
        )
        .execute(self.connection())
        .await
        .map_err(store_error)?;
        Ok(made.rows_affected() == 1)
    }

    /// Removes a network. Containers that do not run are no longer on it.
    ///
    /// # Errors
    /// `Forbidden` with dockerd's text while containers run on it.
    pub async fn delete_network(&mut self, network: &NetworkRecord) -> Result<()> {
        // Containers first, as everywhere: whoever holds one may be about to take an address.
        let on_it = sqlx::query!(
            r#"SELECT c.id, c.name,
                   container_is_named(c.desired_state, c.run, c.observed_run, c.observed_phase)
                       OR (c.desired_state = 'removed' AND c.removed_at IS NULL AND c.host_id IS NOT NULL) AS "active!"
               FROM containers c JOIN endpoints e ON e.container_id = c.id
               WHERE e.network_id = $1 AND c.project_id = $2 ORDER BY c.id FOR UPDATE OF c"#,
            network.id.as_str(),
            self.project.0,
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        let active: Vec<String> = on_it
            .iter()
            .filter(|row| row.active)
            .map(|row| format!("name:\"{}\" id:\"{}\"", row.name, &row.id[..12.min(row.id.len())]))
            .collect();
        if !active.is_empty() {
            return Err(in_use(network, &active.join(", ")));
        }
        for row in on_it {
            let container = parsed(&row.id)?;
            self.networks_changed(&container).await?;
            self.free_endpoint(&container, &network.id).await?;
        }
        sqlx::query!("DELETE FROM networks WHERE project_id = $1 AND id = $2", self.project.0, network.id.as_str())
            .execute(self.connection())
            .await
            .map_err(crate::on_constraint("endpoints_network_id_fkey", || in_use(network, "a new container")))?;
        Ok(())
    }
}

/// dockerd's text.
fn in_use(network: &NetworkRecord, by: &str) -> Error {
    Error::Forbidden(format!("error while removing network: network {} has active endpoints ({by})", network.name))
}
