//! What every handler may reach: the truth, the wake-ups, the neighbours. Nothing in it changes
//! after start; a gateway keeps no state of its own, so that several can run side by side.

use std::{ops::Deref, sync::Arc};

use axum::body::Bytes;
use chassis::{Bus, Clock, Ctx, ExpectedPeer, client::Internal, tls};
use model::ProjectId;
use store::{Look, Principal, Store};

use crate::{
    agents::Agents,
    config::Config,
    docker::version::RequestedVersion,
    limits::Rates,
    registry::{self, Keys},
    together::Together,
};

/// The gateway; cheap to clone.
#[derive(Clone, Debug)]
pub struct Gateway(Arc<Parts>);

/// See [`Gateway`].
#[derive(Debug)]
pub struct Parts {
    /// Postgres, under the gateway's own role.
    pub(crate) store: Store,
    /// Wake-ups.
    pub(crate) bus: Bus,
    /// The scheduler.
    pub(crate) scheduler: Internal,
    /// image-svc.
    pub(crate) image: Internal,
    /// The hosts' agents.
    pub(crate) agents: Agents,
    /// Requests a project may make.
    pub(crate) rates: Rates,
    /// Keys that sign the registry's tokens.
    pub(crate) registry_keys: Keys,
    /// Credentials being looked up: PostgreSQL is asked for each request, and once for those at once.
    pub(crate) credentials: Together<(&'static str, [u8; 32]), Option<Principal>>,
    /// What is being asked about repositories: once for those who ask the same at once.
    pub(crate) looks: Together<registry::Question, Option<Look>>,
    /// Manifests that were read lately.
    pub(crate) manifests: registry::ManifestsRead,
    /// Containers being inspected, as a project names them; the answer as it is written.
    pub(crate) inspections: Together<(ProjectId, String, RequestedVersion), Bytes>,
    /// The time.
    pub(crate) clock: Clock,
    /// As configured.
    pub(crate) config: Config,
}

impl Deref for Gateway {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Gateway {
    /// Connects to nothing yet: every neighbour may be away when the gateway starts.
    ///
    /// # Errors
    /// An address or a certificate cannot be used.
    pub fn new(ctx: &Ctx, config: Config) -> anyhow::Result<Self> {
        let store = Store::connect_lazy(config.database.url.expose(), config.database.connections)?;
        let redis_url = config.redis.url.as_ref().map(|url| url.expose().as_str());
        let rates = Rates::new(config.rate_limit, redis_url)?;
        let bus = Bus::connect(redis_url, ctx.cancel());
        let neighbour = |base: &str, service: &str| match &config.internal_tls {
            Some(files) => Internal::new(base, tls::client(files, ExpectedPeer::service(service))?),
            None => Internal::plain(base),
        };
        let parts = Parts {
            scheduler: neighbour(&config.scheduler, "scheduler")?,
            image: neighbour(&config.image, "image")?,
            agents: Agents::new(config.internal_tls.clone()),
            rates,
            registry_keys: Keys::default(),
            credentials: Together::default(),
            looks: Together::default(),
            manifests: registry::ManifestsRead::default(),
            inspections: Together::default(),
            clock: ctx.clock().clone(),
            store,
            bus,
            config,
        };
        let gateway = Self(Arc::new(parts));
        gateway.register_health(ctx);
        Ok(gateway)
    }

    /// Ready means Postgres answers; Redis and the neighbours are told, and decide nothing.
    fn register_health(&self, ctx: &Ctx) {
        let store = self.store.clone();
        ctx.health().check("postgres", move || {
            let store = store.clone();
            async move { store.check().await.map_err(|e| e.to_string()) }
        });
        let bus = self.bus.clone();
        ctx.health().fact("redis", move || if bus.connected() { "connected" } else { "away" }.to_owned());
    }
}
