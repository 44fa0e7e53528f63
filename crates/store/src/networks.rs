//! A project's networks and who is on them, read.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use model::{ContainerId, ContainerName, NetworkId, Result};
use time::OffsetDateTime;

use crate::{ProjectTx, store_error, stored::parsed};

/// A network of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRecord {
    /// Id.
    pub id: NetworkId,
    /// Unique in the project.
    pub name: String,
    /// Unique in the fleet.
    pub subnet: Ipv4Net,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

impl NetworkRecord {
    /// Where containers send what is not for their own network: its first address.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.subnet.network()).saturating_add(1))
    }
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
}

impl ProjectTx {
    /// Every network of the project, by name.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn networks(&mut self) -> Result<Vec<NetworkRecord>> {
        let rows = sqlx::query!(
            r#"SELECT id, name, subnet::text AS "subnet!", created_at FROM networks WHERE project_id = $1 ORDER BY name"#,
            self.project.0
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        rows.into_iter()
            .map(|row| {
                let (id, subnet) = (parsed(&row.id)?, parsed(&row.subnet)?);
                Ok(NetworkRecord { id, name: row.name, subnet, created_at: row.created_at })
            })
            .collect()
    }

    /// The running containers on a network, by name.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn network_members(&mut self, network: &NetworkId) -> Result<Vec<NetworkMember>> {
        let rows = sqlx::query!(
            r#"SELECT c.id, c.name, host(e.ip) AS "ip!" FROM endpoints e JOIN containers c ON c.id = e.container_id
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
                Ok(NetworkMember { container: parsed(&row.id)?, name: parsed(&row.name)?, ip: parsed(&row.ip)? })
            })
            .collect()
    }
}
