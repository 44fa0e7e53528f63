//! A container's addresses on its networks: rows whose unique constraint is the allocator. An address
//! is held from create or connect to removal or disconnect, and rests as long as possible before
//! somebody else gets it.

use std::net::Ipv4Addr;

use model::{ContainerId, Endpoint, Error, MacAddress, NetworkId, Result};

use crate::{ProjectTx, store_error};

/// Next-fit first; after so many taken addresses in a row, search for the next free one.
const TRIES_BEFORE_SEARCH: usize = 4;

/// The network every container of a project is on, unless it wants another or none.
pub const DEFAULT_NETWORK: &str = "bridge";

/// A container about to get an address on a network.
#[derive(Clone, Debug, Default)]
pub struct NewEndpoint<'a> {
    /// The network; `None` is the project's default one.
    pub network: Option<&'a NetworkId>,
    /// Number of its link in the container.
    pub interface: u8,
    /// Other names of it there.
    pub aliases: &'a [String],
    /// The address it shall have; `None` takes whichever is next.
    pub ip: Option<Ipv4Addr>,
    /// The greater, the more its way out is preferred to other networks'.
    pub gw_priority: i32,
    /// The address of its link, if the user chose it.
    pub mac: Option<MacAddress>,
    /// `other:alias`: names that it alone sees there.
    pub links: &'a [String],
}

impl ProjectTx {
    /// Gives the container an address on a network. One round trip unless the address next in turn is
    /// still held. The network's row stays locked until the transaction ends.
    ///
    /// # Errors
    /// `Failed` with dockerd's text when every address is in use, `Forbidden` when the chosen one is.
    pub async fn allocate_endpoint(&mut self, container: &ContainerId, new: &NewEndpoint<'_>) -> Result<Endpoint> {
        if let Some(ip) = new.ip {
            return self.take_address(container, new, ip).await;
        }
        for _ in 0..TRIES_BEFORE_SEARCH {
            if let Some(endpoint) = self.take_next_address(container, new).await? {
                return Ok(endpoint);
            }
        }
        self.search_address(container, new).await
    }

    /// Takes one address and no other.
    async fn take_address(&mut self, container: &ContainerId, new: &NewEndpoint<'_>, ip: Ipv4Addr) -> Result<Endpoint> {
        let row = sqlx::query!(
            r#"INSERT INTO endpoints (container_id, project_id, network_id, ip, interface, aliases, gw_priority, mac, links, fixed_ip)
            SELECT $3, $1, id, $4::text::inet, $5, $6, $7, $8::text::macaddr, $9, true FROM networks
            WHERE project_id = $1 AND (id = $2 OR ($2 IS NULL AND name = 'bridge'))
                AND NOT $4::text::inet = ANY(reserved) AND $4::text::inet << subnet
                AND $4::text::inet <> host(broadcast(subnet))::inet AND $4::text::inet <> host(network(subnet))::inet
            ON CONFLICT (network_id, ip) DO NOTHING
            RETURNING network_id, host(ip) AS "ip!""#,
            self.project.0,
            new.network.map(NetworkId::as_str),
            container.as_str(),
            ip.to_string(),
            i16::from(new.interface),
            new.aliases,
            new.gw_priority,
            new.mac.map(String::from),
            new.links,
        )
        .fetch_optional(self.connection())
        .await
        .map_err(store_error)?
        .ok_or_else(|| Error::Forbidden("Address already in use".into()))?;
        endpoint(&row.network_id, &row.ip, new)
    }

    /// Takes the address whose turn it is, unless somebody holds it.
    async fn take_next_address(&mut self, container: &ContainerId, new: &NewEndpoint<'_>) -> Result<Option<Endpoint>> {
        let row = sqlx::query!(
            r#"WITH turn AS (
                UPDATE networks
                SET next_offset = CASE WHEN next_offset + 1 > last_offset THEN first_offset
                                       ELSE greatest(next_offset + 1, first_offset) END
                WHERE project_id = $1 AND (id = $2 OR ($2 IS NULL AND name = 'bridge'))
                RETURNING id, host(network(subnet))::inet AS base, next_offset, reserved)
            INSERT INTO endpoints (container_id, project_id, network_id, ip, interface, aliases, gw_priority, mac, links)
            SELECT $3, $1, turn.id, turn.base + turn.next_offset, $4, $5, $6, $7::text::macaddr, $8 FROM turn
            WHERE NOT turn.base + turn.next_offset = ANY(turn.reserved)
            ON CONFLICT (network_id, ip) DO NOTHING
            RETURNING network_id, host(ip) AS "ip!""#,
            self.project.0,
            new.network.map(NetworkId::as_str),
            container.as_str(),
            i16::from(new.interface),
            new.aliases,
            new.gw_priority,
            new.mac.map(String::from),
            new.links,
        )
        .fetch_optional(self.connection())
        .await
        .map_err(store_error)?;
        row.map(|row| endpoint(&row.network_id, &row.ip, new)).transpose()
    }

    /// The next free address after the one whose turn it was, once around. The network's row is
    /// locked by then, so nobody else allocates on it.
    async fn search_address(&mut self, container: &ContainerId, new: &NewEndpoint<'_>) -> Result<Endpoint> {
        let row = sqlx::query!(
            r#"WITH net AS (
                SELECT id, host(network(subnet))::inet AS base, reserved, first_offset,
                    greatest(next_offset, first_offset) AS next_offset, last_offset - first_offset + 1 AS size
                FROM networks WHERE project_id = $1 AND (id = $2 OR ($2 IS NULL AND name = 'bridge'))),
            free AS (
                SELECT net.id, net.base, candidate.place
                FROM net, LATERAL (
                    SELECT net.first_offset + (net.next_offset - net.first_offset + step) % net.size AS place
                    FROM generate_series(0, net.size - 1) AS step) candidate
                WHERE NOT EXISTS (SELECT FROM endpoints e WHERE e.network_id = net.id AND e.ip = net.base + candidate.place)
                    AND NOT net.base + candidate.place = ANY(net.reserved)
                LIMIT 1),
            moved AS (UPDATE networks SET next_offset = free.place FROM free WHERE networks.id = free.id)
            INSERT INTO endpoints (container_id, project_id, network_id, ip, interface, aliases, gw_priority, mac, links)
            SELECT $3, $1, free.id, free.base + free.place, $4, $5, $6, $7::text::macaddr, $8 FROM free
            RETURNING network_id, host(ip) AS "ip!""#,
            self.project.0,
            new.network.map(NetworkId::as_str),
            container.as_str(),
            i16::from(new.interface),
            new.aliases,
            new.gw_priority,
            new.mac.map(String::from),
            new.links,
        )
        .fetch_optional(self.connection())
        .await
        .map_err(store_error)?
        .ok_or_else(|| {
            let name = new.network.map_or(DEFAULT_NETWORK, NetworkId::short);
            Error::Failed(format!("no available IPv4 addresses on this network's address pools: {name}"))
        })?;
        endpoint(&row.network_id, &row.ip, new)
    }

    /// Gives up an address. Say so with [`ProjectTx::networks_changed`] first.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn free_endpoint(&mut self, container: &ContainerId, network: &NetworkId) -> Result<()> {
        sqlx::query!(
            "DELETE FROM endpoints WHERE project_id = $1 AND container_id = $2 AND network_id = $3",
            self.project.0,
            container.as_str(),
            network.as_str(),
        )
        .execute(self.connection())
        .await
        .map_err(store_error)?;
        Ok(())
    }

    /// The container's networks are about to be others, or were made others: its host is told, and
    /// every host of a network it is on now. Returns the generation in which its host knows.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn networks_changed(&mut self, container: &ContainerId) -> Result<i64> {
        let generation = sqlx::query_scalar!(
            "UPDATE containers SET network_revision = network_revision + 1
             WHERE project_id = $1 AND id = $2 RETURNING host_generation",
            self.project.0,
            container.as_str(),
        )
        .fetch_optional(self.connection())
        .await
        .map_err(store_error)?;
        Ok(generation.unwrap_or_default())
    }
}

fn endpoint(network: &str, ip: &str, new: &NewEndpoint<'_>) -> Result<Endpoint> {
    Ok(Endpoint {
        network: network.parse::<NetworkId>().map_err(Error::internal)?,
        ip: ip.parse::<Ipv4Addr>().map_err(Error::internal)?,
        interface: new.interface,
        mac: new.mac,
        links: new.links.to_vec(),
    })
}
