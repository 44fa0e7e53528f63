//! node-agent: one per host. It makes what the scheduler plans for this host true, and tells how far
//! it got. It owns no process of a container: shims do, so it can be replaced at any moment.
//!
//! ```text
//!  scheduler ══plan══▶ link ─▶ reconcile ─▶ keeper (one task a container) ─▶ prepare  image, layers, rootfs
//!      ▲                          │             │  machine::step decides      start    net, bundle, shims
//!      │                          ▼             ▼                            release, remove
//!      └──────reports── report ◀─ ledger (disk) ◀─ state of each container
//!  gateway ──▶ api ─▶ streams (attach, exec, logs, top, stats) ─▶ the container's shim
//! ```
//! Invariants: only a keeper changes its container's state; progress never goes back; a run is begun
//! once; nothing an image or tenant names is opened by path outside of its own root.

mod api;
pub mod config;
mod discard;
mod files;
mod freezer;
mod host;
mod identity;
mod image;
mod keeper;
mod layers;
mod ledger;
mod limits;
mod link;
mod neighbours;
mod net;
mod plug;
pub mod purge;
mod reconcile;
mod report;
mod resolve;
mod rootfs;
mod runtimes;
mod shims;
mod shm;
mod socket;
mod streams;
mod tenancy;
mod tree;
mod upkeep;
mod volumes;
mod words;

use std::{fs, sync::Arc};

pub use api::openapi;
use chassis::{App, Ctx, Server, client::Internal};
pub use config::Config;
use runtime::Sealed;

use crate::{
    api::AgentState,
    config::LayersAs,
    discard::Trash,
    host::{Host, Places, boot_id},
    identity::Identity,
    image::Images,
    layers::{Form, Layers},
    ledger::Ledger,
    neighbours::Neighbours,
    net::Net,
    reconcile::Fleet,
    report::Reports,
    streams::follow::LogWatch,
    tenancy::Tenancy,
    tree::{Slots, measure::LayerWeights},
    volumes::Volumes,
};

/// Makes the service: joins if need be, takes up what the last agent left, and begins to follow the
/// plan. Containers are looked after from here on, before anything is bound.
///
/// # Errors
/// The configuration or the directories cannot be used, or the host may not join.
pub async fn build(config: Config, ctx: Ctx) -> anyhow::Result<App> {
    config.check()?;
    raise_descriptor_limit();
    let places = Places::new(&config.data_dir, &config.run_dir);
    places.make()?;
    let identity = Identity::obtain(&config, places.identity()).await?;
    let scheduler = Internal::new(&config.scheduler_url, identity.client(&config.scheduler_cn)?)?;
    let images = Internal::new(&config.image_url, identity.client(&config.image_cn)?)?;
    let capacity = config.probe_capacity();
    let gateway = socket::Gateway::new(&config.gateway_url, identity.client(&config.gateway_cn)?);
    let host = make_host(config, places, images, gateway, &ctx)?;
    host.reports.runtimes_are(runtimes::find(&host).await);
    let fleet = Fleet::resume(host.clone())?;
    ctx.health().fact("containers", {
        let host = host.clone();
        move || fs::read_dir(host.places.containers()).map_or(0, Iterator::count).to_string()
    });
    let (forgetting, at) = (fleet.clone(), host.clone());
    let acknowledged = Box::new(move |noted| match noted {
        report::Noted::Removed(id) => forgetting.forget(&id),
        report::Noted::ExecEnded(container, exec) => streams::exec::forget(&at, &container, &exec),
    });
    until_cancelled(&ctx, "reports", host.reports.clone().send(scheduler.clone(), capacity, acknowledged));
    until_cancelled(&ctx, "netd", host.net.clone().keep_in_sync());
    until_cancelled(&ctx, "upkeep", upkeep::watch_over(host.clone(), fleet.clone()));
    until_cancelled(&ctx, "trash", host.trash.clone().sweep());
    ctx.spawn("plan", link::follow(scheduler, host.clone(), fleet.clone(), ctx.cancel()));
    let listen = host.config.listen;
    let server = Server::tcp(listen, api::router(AgentState { host, fleet })).with_tls(identity.server());
    Ok(App { servers: vec![server] })
}

fn make_host(
    config: Config,
    places: Places,
    images: Internal,
    gateway: socket::Gateway,
    ctx: &Ctx,
) -> anyhow::Result<Arc<Host>> {
    let boot = boot_id();
    let boot_file = places.data_dir().join("boot");
    let rebooted = fs::read_to_string(&boot_file).is_ok_and(|last| last != boot);
    let trash = Trash::open(places.trash())?;
    let tenancy = Tenancy::open(places.namespaces(), places.layers(), &places.probe())?;
    let form = layer_form(&config, &tenancy, &places);
    let layers = Layers::open(places.layers(), trash.clone(), &boot, form)?;
    fs::write(&boot_file, &boot)?;
    Ok(Arc::new(Host {
        images: Images::new(layers, images, config.image_limits),
        net: Net::new(&config.netd_socket)?,
        tenancy,
        ledger: Ledger::new(places.clone()),
        clock: ctx.clock().clone(),
        reports: Reports::default(),
        log_watch: LogWatch::open()?,
        slots: Slots::default(),
        layer_weights: LayerWeights::default(),
        volumes: Volumes::new(places.clone(), trash.clone()),
        gateway,
        neighbours: Neighbours::default(),
        probe_slots: keeper::probe_slots(),
        shim: sealed_shim(&config),
        trash,
        places,
        config,
        rebooted,
    }))
}

/// What layers become here.
fn layer_form(config: &Config, tenancy: &Tenancy, places: &Places) -> Form {
    if config.layers_as == LayersAs::Directories {
        return Form::Directory;
    }
    let trial = layers::try_images(&places.layer_trial(), |layer| tenancy.try_layer(layer, &places.probe()));
    match trial {
        Ok(()) => Form::Image,
        Err(error) => {
            tracing::warn!(%error, "this kernel cannot take layers as images: they become directories");
            Form::Directory
        }
    }
}

/// The shim as nobody can write to it. A kernel that cannot do that runs it as it is, and all execs are
/// the OCI runtime's.
fn sealed_shim(config: &Config) -> Option<Sealed> {
    let sealed = Sealed::of(&config.shim_path);
    if let Err(error) = &sealed {
        tracing::warn!(%error, program = %config.shim_path.display(), "the shim cannot be sealed: execs are the runtime's");
    }
    sealed.ok()
}

/// Tasks that have no end of their own end with the process.
fn until_cancelled(ctx: &Ctx, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    let cancel = ctx.cancel();
    ctx.spawn(name, async move {
        tokio::select! {
            () = task => {}
            () = cancel.cancelled() => {}
        }
    });
}

/// A host has a thousand containers with a few streams each; the usual soft limit is 1024.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, "the descriptor limit stays low");
    }
}
