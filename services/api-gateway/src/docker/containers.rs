//! Containers: Docker's `/containers/…`. Handlers are thin: extract, one transaction, render; a
//! host is only asked for what is not state (streams, signals, processes).

mod archive;
pub(crate) mod attach;
pub(crate) mod attachments;
pub(crate) mod body;
mod changes;
mod commit;
mod create;
mod elapsed;
mod host_config;
mod image_defaults;
mod inspect;
mod joining;
mod links;
mod list;
mod logs;
mod names;
mod path_stat;
mod pause;
mod publish;
pub(crate) mod recorded;
mod remove;
mod rename;
mod render;
mod sizes;
pub(crate) mod start;
pub(crate) mod state;
mod stats;
mod stop;
mod translate;
mod update;
mod volumes;
mod wait;
mod waiting;

pub(crate) use body::typed;
pub(crate) use body::{ContainerConfig, Healthcheck, Words};
pub(crate) use commit::{image_name, shown as image_config};
pub(crate) use list::patterns;
pub(crate) use sizes::Sizes;
pub(crate) use translate::{byte_size, memory_size};

pub(crate) use render::Line;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::Gateway;

/// Every operation on containers that is built.
pub(crate) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default()
        .routes(routes!(archive::stat, archive::get, archive::put))
        .routes(routes!(changes::changes))
        .routes(routes!(changes::export))
        .routes(routes!(commit::commit))
        .routes(routes!(list::list))
        .routes(routes!(create::create))
        .routes(routes!(inspect::inspect))
        .routes(routes!(inspect::top))
        .routes(routes!(logs::logs))
        .routes(routes!(attach::attach))
        .routes(routes!(attach::attach_websocket))
        .routes(routes!(attach::resize))
        .routes(routes!(start::start))
        .routes(routes!(stats::stats))
        .routes(routes!(stop::stop))
        .routes(routes!(stop::restart))
        .routes(routes!(stop::kill))
        .routes(routes!(pause::pause))
        .routes(routes!(pause::unpause))
        .routes(routes!(update::update))
        .routes(routes!(wait::wait))
        .routes(routes!(rename::rename))
        .routes(routes!(remove::remove))
        .routes(routes!(remove::prune))
}
