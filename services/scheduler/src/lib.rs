//! What runs where. One loop plans (pure, in `planner`) and applies by compare-and-swap; any number
//! of schedulers may run side by side without electing a leader. It is also the hosts' door: they
//! join, are told what to do, and report how far they got.
//!
//! ```text
//!   gateway ── POST placements ──► plan_loop ──► Postgres ──wake──► host_plan ── NDJSON ──► host
//!   gateway ◄──wake── Postgres ◄── report ◄────────── POST report ◄───────────────────────── host
//! ```

mod api;
mod config;
mod host_plan;
mod join;
mod network_changes;
mod placements;
mod plan_loop;
mod report;
mod upkeep;

pub use api::{api, openapi};
pub use config::{AuthorityFiles, Config, TlsFiles};

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use chassis::{App, Bus, CancellationToken, Ctx, Server, pki::Authority, reconcile};
use contract::wake::Topic;
use store::Store;
use tokio::sync::Notify;

use crate::{network_changes::NetworkChanges, placements::Placements, plan_loop::PlanLoop};

/// Unplaced containers are looked at again after this long in any case.
const RESYNC: Duration = Duration::from_secs(2);

/// What handlers share.
#[derive(Clone, Debug)]
pub struct State {
    pub(crate) store: Store,
    pub(crate) bus: Bus,
    pub(crate) placements: Arc<Placements>,
    /// Woken when a report may have changed who answers to which name.
    pub(crate) names: Arc<Notify>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) draining: CancellationToken,
}

/// Makes the service; binds nothing.
///
/// # Errors
/// A file or address of the configuration is unusable.
pub async fn build(config: Config, ctx: Ctx) -> anyhow::Result<App> {
    let store = Store::connect_lazy(config.database_url.expose(), config.database_connections)?;
    let redis = config.redis_url.as_ref().map(|url| url.expose().as_str());
    let bus = Bus::connect(redis, ctx.cancel());
    let state = State {
        store: store.clone(),
        bus: bus.clone(),
        placements: Arc::default(),
        names: Arc::default(),
        authority: Arc::new(load_authority(&config.authority).await?),
        draining: ctx.health().draining(),
    };
    let checked = store.clone();
    ctx.health().check("postgres", move || {
        let store = checked.clone();
        async move { store.check().await.map_err(|error| error.public_message()) }
    });
    let told = bus.clone();
    ctx.health().fact("redis", move || if told.connected() { "connected".into() } else { "absent; sweeping".into() });

    let plan_loop = PlanLoop::new(store.clone(), bus.clone(), state.placements.clone(), ctx.metrics());
    let wake = (state.placements.wake(), bus.subscribe(&Topic::Unplaced));
    let (_, driver) = reconcile::run(plan_loop, wake, RESYNC, ctx.cancel());
    ctx.spawn("plan loop", driver);
    let changes = NetworkChanges::new(store.clone(), bus.clone());
    let wake = (state.names.clone(), bus.subscribe(&Topic::Networks));
    let (_, driver) = reconcile::run(changes, wake, RESYNC, ctx.cancel());
    ctx.spawn("network changes", driver);
    ctx.spawn("upkeep", upkeep::run(store, bus, ctx.metrics(), ctx.cancel()));

    let (router, _) = api(state);
    Ok(App { servers: vec![Server::tcp(config.listen, router).with_tls(config.tls.server()).with_ops()] })
}

async fn load_authority(files: &AuthorityFiles) -> anyhow::Result<Authority> {
    let read = |path: std::path::PathBuf| async move {
        tokio::fs::read_to_string(&path).await.with_context(|| format!("cannot read {}", path.display()))
    };
    let (cert, key) = (read(files.cert.clone()).await?, read(files.key.clone()).await?);
    Authority::load(&cert, &key).context("the internal authority")
}
