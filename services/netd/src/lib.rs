//! netd: one per host. A compiler for the kernel's network: bridges, pairs, tunnels, one firewall.
//! It knows nothing of tenants, schedulers or credentials; it holds one plan and makes the kernel of
//! its network namespace match it.
//!
//! ```text
//! api ─▶ engine (one thread) ─▶ plan_file   what was accepted
//!                            ─▶ compile     plan → desired      pure
//!                            ─▶ diff        desired, observed → ops in a safe order      pure
//!                            ─▶ kernel      observe, apply      the only code that touches the kernel
//! ```

mod api;
pub mod compile;
mod config;
pub mod diff;
mod engine;
mod kernel;
mod measure;
mod plan_file;
mod resolver;

pub use api::api;
pub use config::Config;
pub use engine::{Engine, purge};

use chassis::{App, Ctx, Server, limits::HttpLimits};

/// The description of the API: what `openapi/netd.json` holds.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    api().1
}

/// A plan of some ten thousand containers.
const PLAN_MAX_BYTES: usize = 16 << 20;

/// Makes the service: starts the kernel thread, which goes on with the stored plan if there is one.
///
/// # Errors
/// The run directory or netlink cannot be used.
pub async fn build(config: Config, ctx: Ctx) -> anyhow::Result<App> {
    let socket = config.socket_path.clone();
    let measures = measure::Measures::new(ctx.metrics());
    let runtime = tokio::runtime::Handle::current();
    let engine = tokio::task::spawn_blocking(move || Engine::start(config, measures, runtime)).await??;
    let checked = engine.clone();
    ctx.health().check("kernel", move || {
        let engine = checked.clone();
        async move { engine.check().await }
    });
    let (router, _) = api();
    let limits = HttpLimits { body_bytes: PLAN_MAX_BYTES, ..HttpLimits::default() };
    let server = Server::unix(socket, router.with_state(engine)).with_ops().with_limits(limits);
    Ok(App { servers: vec![server] })
}
