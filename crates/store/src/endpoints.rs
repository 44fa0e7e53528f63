//! A container's address on its network: a row whose unique constraint is the allocator. An address
//! is held from create to removal, and rests as long as possible before somebody else gets it.

use std::net::Ipv4Addr;

use model::{ContainerId, Endpoint, Error, NetworkId, Result};

use crate::{ProjectTx, store_error};

/// Next-fit first; after so many taken addresses in a row, search for the next free one.
const TRIES_BEFORE_SEARCH: usize = 4;

/// The network every container of a project is on, unless it wants none.
pub const DEFAULT_NETWORK: &str = "bridge";

impl ProjectTx {
    /// Gives the container an address on the project's default network. One round trip unless the
    /// address next in turn is still held. The network's row stays locked until the transaction ends.
    ///
    /// # Errors
    /// `Failed` with dockerd's text when every address is in use.
    pub async fn allocate_endpoint(&mut self, container: &ContainerId) -> Result<Endpoint> {
        for _ in 0..TRIES_BEFORE_SEARCH {
            if let Some(endpoint) = self.take_next_address(container).await? {
                return Ok(endpoint);
            }
        }
        self.search_address(container).await
    }

    /// Takes the address whose turn it is, unless somebody holds it. Offset 0 is the network, 1 the
    /// gateway, the last one the broadcast address.
    async fn take_next_address(&mut self, container: &ContainerId) -> Result<Option<Endpoint>> {
        let row = sqlx::query!(
            r#"WITH turn AS (
                UPDATE networks
                SET next_offset = CASE WHEN next_offset + 1 >= (1 << (32 - masklen(subnet))) - 1 THEN 2 ELSE next_offset + 1 END
                WHERE project_id = $1 AND name = $2
                RETURNING id, host(network(subnet))::inet AS base, next_offset)
            INSERT INTO endpoints (container_id, project_id, network_id, ip)
            SELECT $3, $1, turn.id, turn.base + turn.next_offset FROM turn
            ON CONFLICT (network_id, ip) DO NOTHING
            RETURNING network_id, host(ip) AS "ip!""#,
            self.project.0,
            DEFAULT_NETWORK,
            container.as_str(),
        )
        .fetch_optional(self.connection())
        .await
        .map_err(store_error)?;
        row.map(|row| endpoint(&row.network_id, &row.ip)).transpose()
    }

    /// The next free address after the one whose turn it was, once around. The network's row is
    /// locked by then, so nobody else allocates on it.
    async fn search_address(&mut self, container: &ContainerId) -> Result<Endpoint> {
        let row = sqlx::query!(
            r#"WITH net AS (
                SELECT id, host(network(subnet))::inet AS base, next_offset, (1 << (32 - masklen(subnet))) - 3 AS size
                FROM networks WHERE project_id = $1 AND name = $2),
            free AS (
                SELECT net.id, net.base, candidate.place
                FROM net, LATERAL (SELECT 2 + (net.next_offset - 2 + step) % net.size AS place FROM generate_series(0, net.size - 1) AS step) candidate
                WHERE NOT EXISTS (SELECT FROM endpoints e WHERE e.network_id = net.id AND e.ip = net.base + candidate.place)
                LIMIT 1),
            moved AS (UPDATE networks SET next_offset = free.place FROM free WHERE networks.id = free.id)
            INSERT INTO endpoints (container_id, project_id, network_id, ip)
            SELECT $3, $1, free.id, free.base + free.place FROM free
            RETURNING network_id, host(ip) AS "ip!""#,
            self.project.0,
            DEFAULT_NETWORK,
            container.as_str(),
        )
        .fetch_optional(self.connection())
        .await
        .map_err(store_error)?
        .ok_or_else(|| Error::Failed("no available IPv4 addresses on this network's address pools: bridge".into()))?;
        endpoint(&row.network_id, &row.ip)
    }
}

fn endpoint(network: &str, ip: &str) -> Result<Endpoint> {
    Ok(Endpoint {
        network: network.parse::<NetworkId>().map_err(Error::internal)?,
        ip: ip.parse::<Ipv4Addr>().map_err(Error::internal)?,
    })
}
