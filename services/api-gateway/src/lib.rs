//! The public door of Wharfage: the Docker Engine API, the platform API, the registry, the
//! OpenAPI document.
//!
//! A handler is: extract (who, what), one transaction, render. Existence and permission are decided
//! by Postgres inside the caller's project and by nothing else; another project's thing is *not
//! found*. The gateway keeps no state, so that several can run side by side.

mod agents;
mod auth;
mod config;
mod docker;
mod edge;
mod inside;
mod json;
mod limits;
mod openapi;
mod platform;
mod registry;
mod state;
mod together;

pub use config::Config;
pub use openapi::openapi;
pub use state::Gateway;

use axum::{Extension, Router};
use chassis::{App, Ctx, Server};

/// Assembles the service; nothing listens yet.
///
/// # Errors
/// The configuration does not fit: a certificate cannot be read, an address does not parse.
#[expect(clippy::unused_async, reason = "the chassis builds every service in an async context")]
pub async fn build(config: Config, ctx: Ctx) -> anyhow::Result<App> {
    let gateway = Gateway::new(&ctx, config)?;
    let router = router(&gateway);
    let plain = gateway.config.listen.map(|address| Server::tcp(address, router.clone()));
    let over_tls = router.layer(Extension(registry::OverTls));
    let tls = gateway.config.tls.as_ref().map(|tls| Server::tcp(tls.listen, over_tls).with_tls(tls.server()));
    let mut servers: Vec<Server> = plain.into_iter().chain(tls).collect();
    anyhow::ensure!(!servers.is_empty(), "neither `listen` nor `[tls]` is configured: nobody could reach the gateway");
    if let Some(address) = gateway.config.hosts_listen {
        let tls = gateway.config.hosts_tls()?;
        servers.push(Server::tcp(address, hosts_router(&gateway)).with_tls(tls));
    }
    Ok(App { servers })
}

/// Everything a public listener serves.
pub fn router(gateway: &Gateway) -> Router {
    Router::new().fallback(edge::enter).with_state(faces(gateway))
}

/// Everything the listener for hosts serves: the Docker API, to containers that have its socket.
pub fn hosts_router(gateway: &Gateway) -> Router {
    Router::new().fallback(inside::enter).with_state(faces(gateway))
}

fn faces(gateway: &Gateway) -> edge::Faces {
    edge::Faces {
        gateway: gateway.clone(),
        docker: docker::router(gateway),
        platform: platform::router(gateway),
        registry: registry::router(gateway),
    }
}
