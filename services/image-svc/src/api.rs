//! The HTTP face: pulls for the gateway, layers for hosts. Who may call what is decided by the
//! certificate, before anything else.

mod archives;
mod blob_answer;
mod distributions;
mod images;
mod layers;
mod logins;
mod pulls;
mod registry;

use axum::Router;
use chassis::Ctx;
use store::Store;
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    archive::Archives,
    blob_store::BlobStore,
    make::Maker,
    pull::{HostedNames, Puller},
    registry::Registry,
};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Wharfage image-svc",
        description = "Internal, over mutual TLS: pulls images for the gateway, keeps its registry, serves layers to hosts."
    ),
    // Only parameters name them, and those bring no schema along.
    components(schemas(model::RepositoryId, model::UploadId))
)]
struct Description;

/// What handlers work with.
#[derive(Clone)]
pub struct AppState {
    pub(crate) store: Store,
    pub(crate) blobs: BlobStore,
    pub(crate) puller: Puller,
    pub(crate) maker: Maker,
    pub(crate) archives: Archives,
    pub(crate) registry: Registry,
    pub(crate) hosted: HostedNames,
}

/// The routes and their description.
pub fn api() -> (Router<AppState>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(pulls::pull_image))
        .routes(routes!(logins::try_login))
        .routes(routes!(pulls::push_image))
        .routes(routes!(layers::read_layer))
        .routes(routes!(images::upload_layer))
        .routes(routes!(images::make_image))
        .routes(routes!(distributions::inspect_distribution))
        .routes(routes!(distributions::search_images))
        .routes(routes!(archives::save_images))
        .routes(routes!(archives::load_images))
        .merge(registry::routes())
        .split_for_parts()
}

impl AppState {
    pub(crate) fn watch_health(&self, ctx: &Ctx) {
        let store = self.store.clone();
        ctx.health().check("postgres", move || {
            let store = store.clone();
            async move { store.check().await.map_err(|e| e.to_string()) }
        });
        let blobs = self.blobs.clone();
        ctx.health().check("blobs", move || {
            let blobs = blobs.clone();
            async move { blobs.check().await.map_err(|e| e.to_string()) }
        });
    }
}
