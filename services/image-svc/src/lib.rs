//! `image-svc`: brings images from upstream registries into projects, keeps their content once for
//! the fleet, and serves layers to the hosts that need them. Only writer of blobs and images.

mod api;
mod archive;
mod blob_store;
mod config;
mod distribution;
mod egress;
mod image_config;
mod limits;
mod make;
mod pull;
mod push;
mod registry;
mod search;
mod upload;
mod upstream;

use std::time::Duration;

use anyhow::Context as _;
use chassis::{App, Bus, Ctx, Server};
use store::Store;

pub use api::{AppState, api};
pub use config::{Collection, Config, Egress, HostedRegistry, Timeouts, TlsFiles, Upstream};

use archive::Archives;
use blob_store::BlobStore;
use make::Maker;
use pull::{HostedNames, Puller};
use registry::{Registry, collection::Collector};
use upstream::{Platform, Upstreams};

/// The description of the API: what `openapi/image-svc.json` holds.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    api().1
}

/// Makes the service; binds nothing.
///
/// # Errors
/// The configuration cannot be used.
#[expect(clippy::unused_async, reason = "the chassis builds services asynchronously")]
pub async fn build(config: Config, ctx: Ctx) -> anyhow::Result<App> {
    let tls = config.tls.server();
    let listen = config.listen;
    let collection = config.collection;
    let state = state(config, &ctx)?;
    Collector::new(state.registry.clone(), &collection, ctx.metrics()).start(&ctx);
    let (router, _) = api();
    Ok(App { servers: vec![Server::tcp(listen, router.with_state(state)).with_tls(tls).with_ops()] })
}

/// Everything behind the HTTP face.
///
/// # Errors
/// The configuration cannot be used.
pub fn state(config: Config, ctx: &Ctx) -> anyhow::Result<AppState> {
    let store = Store::connect_lazy(config.database_url.expose(), config.database_connections)?;
    let blobs = BlobStore::open(&config.data_dir).with_context(|| format!("blobs in {}", config.data_dir.display()))?;
    let upstreams = Upstreams::new(config.upstreams, &config.egress, config.timeouts)?;
    let bus = Bus::connect(config.redis_url.as_ref().map(|url| url.expose().as_str()), ctx.cancel());
    let redis = bus.clone();
    ctx.health().fact("redis", move || if redis.connected() { "connected".into() } else { "away".into() });
    let platform = Platform::parse(&config.platform).with_context(|| format!("platform {:?}", config.platform))?;
    let maker = Maker { store: store.clone(), blobs: blobs.clone(), bus: bus.clone(), platform: platform.clone() };
    let archives = Archives::new(store.clone(), blobs.clone(), bus.clone(), platform.clone());
    let registry = Registry::new(store.clone(), blobs.clone(), Duration::from_millis(config.collection.link_kept_ms));
    let hosted = HostedNames::new(&config.registry.names);
    let puller = Puller::new(store.clone(), blobs.clone(), upstreams, hosted.clone(), bus, platform);
    let state = AppState { store, blobs, puller, maker, archives, registry, hosted };
    state.watch_health(ctx);
    Ok(state)
}
