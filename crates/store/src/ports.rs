//! Published ports: rows unique by (host, protocol, port) over all projects. Reserved in the
//! transaction that wants the run, so that of two starts one is refused; freed when the run is over.

use std::net::IpAddr;

use model::{ContainerId, HostId, PublishedPort, Result};

use crate::{ProjectTx, store_error};

impl ProjectTx {
    /// Frees whatever earlier runs of a container still hold. Only valid while it does not run.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn free_ports(&mut self, container: &ContainerId) -> Result<()> {
        sqlx::query!(
            "DELETE FROM published_ports WHERE project_id = $1 AND container_id = $2",
            self.project.0,
            container.as_str(),
        )
        .execute(self.connection())
        .await
        .map_err(store_error)?;
        Ok(())
    }

    /// Reserves ports for a run. Returns the ones that somebody has already, on which the caller
    /// gives up the transaction. Whose they are is not told: it may be another tenant.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn reserve_ports(
        &mut self,
        host: HostId,
        container: &ContainerId,
        run: u32,
        ports: &[PublishedPort],
    ) -> Result<Vec<PublishedPort>> {
        let protocols: Vec<String> = ports.iter().map(|p| p.protocol.as_str().to_owned()).collect();
        let host_ports: Vec<i32> = ports.iter().map(|p| i32::from(p.host_port)).collect();
        let host_ips: Vec<Option<String>> = ports.iter().map(|p| p.host_ip.as_ref().map(IpAddr::to_string)).collect();
        let container_ports: Vec<i32> = ports.iter().map(|p| i32::from(p.container_port)).collect();
        let taken = sqlx::query!(
            r#"INSERT INTO published_ports (host_id, protocol, host_port, host_ip, container_id, project_id, container_port, run)
            SELECT $1, p.protocol, p.host_port, p.host_ip::inet, $2, $3, p.container_port, $4
            FROM unnest($5::text[], $6::int[], $7::text[], $8::int[]) AS p (protocol, host_port, host_ip, container_port)
            ON CONFLICT DO NOTHING
            RETURNING protocol, host_port"#,
            host.0,
            container.as_str(),
            self.project.0,
            i32::try_from(run).unwrap_or(i32::MAX),
            &protocols,
            &host_ports,
            &host_ips as &[Option<String>],
            &container_ports,
        )
        .fetch_all(self.connection())
        .await
        .map_err(store_error)?;
        let got = |p: &PublishedPort| {
            taken.iter().any(|row| row.protocol == p.protocol.as_str() && row.host_port == i32::from(p.host_port))
        };
        Ok(ports.iter().filter(|p| !got(p)).cloned().collect())
    }
}
