//! The only SQL in the suite. Postgres is the truth; every fact has one writer, enforced by the
//! roles in `migrations/`.
//!
//! Tenancy is held twice. By type: a tenant query hangs off [`ProjectTx`], which needs a
//! [`ProjectScope`], which only [`Store::authenticate`] makes from a credential,
//! [`Store::authenticate_container`] for a container with the Docker socket (or
//! [`ProjectScope::delegated`], for a service the gateway has already vouched to). By Postgres:
//! opening a [`ProjectTx`] names the project to row-level security in the same round trip as BEGIN.

mod blobs;
mod collection;
mod containers;
mod endpoints;
mod error;
mod events;
mod execs;
mod host_plan;
mod host_states;
mod hosts;
mod image_changes;
mod images;
mod network_hosts;
mod networks;
mod plan;
mod policy;
mod ports;
mod projects;
mod purge;
mod registry;
mod report_history;
mod reports;
mod scope;
mod stored;
mod summary;
mod tenants;
mod tokens;
mod transaction;
mod volumes;

pub use containers::{ChangedLimits, ContainerProgress, ContainerRecord, EndpointRecord, HostAddress, NewContainer};
pub use endpoints::{DEFAULT_NETWORK, NewEndpoint};
pub use error::{on_constraint, store_error};
pub use execs::ExecRecord;
pub use hosts::{HostRecord, JoiningHost, condition};
pub use image_changes::{PulledImage, StoredImage};
pub use images::{ImageRow, ImageUse, TaggedImage};
pub use networks::{ChosenSubnet, NETWORKS_PER_PROJECT, NetworkMember, NetworkRecord, NewNetwork};
pub use plan::{Applied, PLANNED_AT_ONCE};
pub use policy::{PolicyChange, ProjectPolicy, docker_socket_is_off};
pub use projects::{NewProject, Project};
pub use purge::{EVENTS_KEPT, Purged, REMOVED_KEPT};
pub use registry::{
    Found, Look, LookedFor, ManifestRow, NewManifest, OpenUpload, Referrer, RegistryKey, RegistryQuota, Repository,
    RepositoryAccess, UPLOADS_PER_PROJECT,
};
pub use reports::Recorded;
pub use scope::{OperatorScope, Principal, ProjectScope};
pub use summary::{FleetCapacity, ProjectSummary};
pub use tenants::{Page, Tenant};
pub use tokens::{NewToken, Token, TokenKind};
pub use transaction::{OperatorTx, ProjectTx, ServiceTx};
pub use volumes::{NewVolume, RemovedVolume, VolumeRecord};

use std::time::Duration;

use containers::KeptRecords;

use model::{Error, Result};
use sqlx::{
    Connection as _, PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};

/// Every schema change, in order; embedded so that a binary knows which schema it speaks.
pub static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// How long a connection may have lain unused and still be taken without a look.
const IDLE_UNTESTED: Duration = Duration::from_millis(500);

/// A pool of connections under one service's role.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
    kept: KeptRecords,
}

impl Store {
    /// Connects lazily: a service starts, and answers 503, while Postgres is away.
    ///
    /// # Errors
    /// The URL does not parse.
    pub fn connect_lazy(url: &str, connections_max: u32) -> Result<Self> {
        let options: PgConnectOptions = url.parse().map_err(|e| Error::invalid("database url", &format!("{e}")))?;
        // Every statement is prepared, and written so that one plan serves all its arguments: planning
        // the reads of the hot paths takes several times as long as running them.
        let options = options.options([("plan_cache_mode", "force_generic_plan")]);
        let kept = KeptRecords::new();
        let server = kept.clone();
        let pool = PgPoolOptions::new()
            .max_connections(connections_max)
            .min_connections(1)
            .acquire_timeout(Duration::from_secs(5))
            // A round trip before every use would double the cost of a read. What has lain idle is asked
            // first: a Postgres that was restarted has left dead connections, and no request pays for them.
            .test_before_acquire(false)
            .before_acquire(|connection, found| {
                Box::pin(async move {
                    if found.idle_for >= IDLE_UNTESTED {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .after_connect(move |connection, _| {
                let server = server.clone();
                Box::pin(async move {
                    let started = sqlx::query_scalar!("SELECT pg_postmaster_start_time() AS \"at!\"");
                    server.connected_to(started.fetch_one(connection).await?);
                    Ok(())
                })
            })
            .connect_lazy_with(options.statement_cache_capacity(256));
        Ok(Self { pool, kept })
    }

    /// Applies what is missing of [`MIGRATIONS`], under Postgres' advisory lock: safe to run twice, or by two at once.
    ///
    /// # Errors
    /// Postgres is away, or the schema is one this binary does not know.
    pub async fn migrate(url: &str) -> Result<()> {
        let pool = PgPoolOptions::new().max_connections(1).connect(url).await.map_err(store_error)?;
        MIGRATIONS.run(&pool).await.map_err(Error::internal)?;
        pool.close().await;
        Ok(())
    }

    /// Whether Postgres answers and holds the schema this binary was built for.
    ///
    /// # Errors
    /// `Unavailable` if it does not answer, `Internal` for an unknown schema.
    pub async fn check(&self) -> Result<()> {
        sqlx::query_scalar!("SELECT 1 AS one").fetch_one(&self.pool).await.map_err(store_error)?;
        Ok(())
    }

    /// The pool itself, for queries of this crate that need no tenant.
    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// A store over an existing pool (tests).
    #[must_use]
    pub fn from_pool(pool: PgPool) -> Self {
        Self { pool, kept: KeptRecords::new() }
    }
}
