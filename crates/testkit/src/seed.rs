//! Rows to begin a test with, written as the owner of the database. Ids are counted, so that a test
//! gives the same ids each time.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use model::{ContainerId, ContainerSpec, HostCapacity, HostId, MemoryBytes, NanoCpus, NetworkId, ProjectId};
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::Database;

/// Writes rows into one database.
#[derive(Debug)]
pub struct Seed {
    pool: PgPool,
    next: AtomicU32,
}

/// A project with its network.
#[derive(Clone, Debug)]
pub struct SeededProject {
    /// The project.
    pub id: ProjectId,
    /// Its default network.
    pub network: NetworkId,
    /// Image every container of it is made of.
    pub image: String,
}

impl Seed {
    /// Connects as the owner.
    ///
    /// # Errors
    /// The database is not there.
    pub async fn connect(database: &Database) -> Result<Self> {
        let pool = PgPoolOptions::new().max_connections(4).connect(&database.owner).await?;
        Ok(Self { pool, next: AtomicU32::new(1) })
    }

    /// The owner's connections, for what is not foreseen here.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    fn number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn uuid(number: u32) -> String {
        format!("01900000-0000-7000-8000-0000{number:08x}")
    }

    /// A tenant with one project, its network and one image.
    ///
    /// # Errors
    /// Postgres refuses.
    pub async fn project(&self) -> Result<SeededProject> {
        let n = self.number();
        let id = Self::uuid(n);
        sqlx::query("INSERT INTO tenants (id, name) VALUES ($1::text::uuid, 'tenant-' || $2::text)")
            .bind(&id)
            .bind(n.to_string())
            .execute(&self.pool)
            .await?;
        sqlx::query("INSERT INTO projects (id, tenant_id, name) VALUES ($1::text::uuid, $1::text::uuid, 'main')")
            .bind(&id)
            .execute(&self.pool)
            .await?;
        let network = NetworkId::from_bytes(bytes(n));
        sqlx::query("INSERT INTO networks (id, project_id, name, vni, subnet) VALUES ($1, $2::text::uuid, 'bridge', $3, $4::text::cidr)")
            .bind(network.as_str())
            .bind(&id)
            .bind(i32::try_from(n)?)
            .bind(format!("10.{}.{}.0/20", 128 + n / 16, (n % 16) * 16))
            .execute(&self.pool)
            .await?;
        let image = format!("sha256:{n:064x}");
        sqlx::query(
            "INSERT INTO images (project_id, id, manifest_digest, manifest, config, layers, architecture, os, size_bytes)
             VALUES ($1::text::uuid, $2, $2, '', '', '[]', 'amd64', 'linux', 0)",
        )
        .bind(&id)
        .bind(&image)
        .execute(&self.pool)
        .await?;
        Ok(SeededProject { id: id.parse()?, network, image })
    }

    /// An operator's bearer token, known by its digest.
    ///
    /// # Errors
    /// Postgres refuses.
    pub async fn operator_token(&self, secret_sha256: &[u8; 32]) -> Result<()> {
        sqlx::query("INSERT INTO tokens (id, kind, secret_sha256) VALUES ($1::text::uuid, 'bearer', $2)")
            .bind(Self::uuid(self.number()))
            .bind(secret_sha256.as_slice())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// A host that was heard from just now.
    ///
    /// # Errors
    /// Postgres refuses.
    pub async fn host(&self, name: &str, capacity: HostCapacity) -> Result<HostId> {
        let n = self.number();
        sqlx::query(
            "INSERT INTO hosts (id, name, address, agent_port, nano_cpus, memory_bytes, max_containers, last_seen_at)
             VALUES ($1::text::uuid, $2, $3::text::inet, 7400, $4, $5, $6, now())",
        )
        .bind(Self::uuid(n))
        .bind(name)
        .bind(format!("192.0.2.{}", n % 250 + 1))
        .bind(i64::try_from(capacity.nano_cpus.0)?)
        .bind(i64::try_from(capacity.memory_bytes.0)?)
        .bind(i32::try_from(capacity.containers)?)
        .execute(&self.pool)
        .await?;
        Ok(Self::uuid(n).parse()?)
    }

    /// An unplaced container with an address in its project's network.
    ///
    /// # Errors
    /// Postgres refuses.
    pub async fn container(&self, project: &SeededProject, spec: &ContainerSpec) -> Result<ContainerId> {
        let n = self.number();
        let id = ContainerId::from_bytes(bytes(n));
        sqlx::query(
            "WITH made AS (
                 INSERT INTO containers (id, project_id, name, image_id, spec)
                 VALUES ($1, $2::text::uuid, $3, $4, $5) RETURNING id)
             INSERT INTO endpoints (container_id, project_id, network_id, ip)
             SELECT $1, $2::text::uuid, id, host(network(subnet) + 1 + $6)::inet FROM networks WHERE id = $7",
        )
        .bind(id.as_str())
        .bind(project.id.to_string())
        .bind(format!("c{n}"))
        .bind(&project.image)
        .bind(serde_json::to_value(spec)?)
        .bind(i64::from(n))
        .bind(project.network.as_str())
        .execute(&self.pool)
        .await?;
        Ok(id)
    }

    /// Wants one more run of a container, as the gateway would.
    ///
    /// # Errors
    /// Postgres refuses.
    pub async fn want_running(&self, container: &ContainerId) -> Result<()> {
        sqlx::query("UPDATE containers SET desired_state = 'running', run = run + 1 WHERE id = $1")
            .bind(container.as_str())
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

/// Room for that many containers, and as many CPUs and GiB.
#[must_use]
pub fn room_for(containers: u32) -> HostCapacity {
    HostCapacity {
        nano_cpus: NanoCpus(u64::from(containers) * 1_000_000_000),
        memory_bytes: MemoryBytes(u64::from(containers) << 30),
        containers,
    }
}

fn bytes(number: u32) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.swap_bytes().to_be_bytes());
    bytes
}
