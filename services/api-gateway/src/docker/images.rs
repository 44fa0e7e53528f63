//! Images of a project: list, inspect, history, tag, prune. What another project pulled is unknown here.

mod archive;
mod describe;
mod import;
mod pull;
mod push;
mod references;
mod remove;
mod search;

use std::collections::HashMap;

use axum::{extract::Path, http::StatusCode};
use model::{Error, ImageReference, Result};
use store::{ImageRow, ProjectTx};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(crate) use self::describe::Described;
use self::describe::{HistoryEntry, ImageInspect, ImageSummary};
pub(crate) use self::pull::registry_auth;
use super::{
    body::{DockerResponse, json},
    call::Call,
    error::{ErrorResponse, empty},
    filters::Filters,
    instant, platform,
};
use crate::Gateway;

pub(crate) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default()
        .routes(routes!(list))
        .routes(routes!(inspect))
        .routes(routes!(history))
        .routes(routes!(tag))
        .merge(archive::routes())
        .merge(pull::routes())
        .merge(push::routes())
        .merge(remove::routes())
        .merge(search::routes())
}

const LIST_FILTERS: [&str; 8] = ["before", "dangling", "label", "label!", "reference", "since", "until", "id"];

/// List images, the youngest first
#[utoipa::path(get, path = "/images/json", operation_id = "ImageList", tag = "Image",
    params(
        ("all" = Option<bool>, Query, description = "Taken for compatibility: there are no intermediate images"),
        ("filters" = Option<String>, Query, description = "JSON: before, dangling, label, reference, since, until"),
        ("shared-size" = Option<bool>, Query, description = "Taken for compatibility: not computed, -1"),
    ),
    responses((status = 200, description = "Images", body = Vec<ImageSummary>),
        (status = 400, description = "A filter is wrong", body = ErrorResponse)))]
async fn list(call: Call) -> DockerResponse {
    let filters = Filters::parse(call.query.text("filters"), &LIST_FILTERS)?;
    let mut tx = call.tx().await?;
    let images = tx.list_images().await?;
    let window = Window::of(&filters, &mut tx, &call.gateway).await?;
    let uses = uses(&mut tx).await?;
    let dangling = filters.boolean("dangling")?;
    let mut shown = Vec::new();
    for image in images {
        let described = Described::new(image)?;
        let fits = dangling.is_none_or(|wanted| wanted == described.row.tags.is_empty())
            && filters.labels(&described.labels)
            && filters.any("id", |id| described.row.id.as_str().starts_with(id))
            && window.has(&described);
        let Some(described) = Some(described).filter(|_| fits).and_then(|d| references::narrow(d, &filters)) else {
            continue;
        };
        let containers = uses.get(described.row.id.as_str()).copied().unwrap_or(0);
        shown.push(described.summary(call.version, containers));
    }
    json(StatusCode::OK, &shown)
}

/// How many containers were made from each image.
pub(crate) async fn uses(tx: &mut ProjectTx) -> Result<HashMap<String, i64>> {
    Ok(tx.image_use_counts().await?.into_iter().map(|(id, count)| (id.to_string(), count)).collect())
}

/// Bounds on when an image was built, from `before`, `since` and `until`.
struct Window {
    after: Option<time::OffsetDateTime>,
    before: Option<time::OffsetDateTime>,
}

impl Window {
    async fn of(filters: &Filters, tx: &mut ProjectTx, gateway: &Gateway) -> Result<Self> {
        let mut window = Self { after: None, before: None };
        for name in filters.values("before") {
            let built = Described::new(tx.resolve_image(name).await?)?.created();
            window.before = Some(window.before.map_or(built, |at| at.min(built)));
        }
        for name in filters.values("since") {
            let built = Described::new(tx.resolve_image(name).await?)?.created();
            window.after = Some(window.after.map_or(built, |at| at.max(built)));
        }
        for written in filters.values("until") {
            let at = instant::parse("until", written, gateway.clock.now())?;
            window.before = Some(window.before.map_or(at, |bound| bound.min(at)));
        }
        Ok(window)
    }

    fn has(&self, image: &Described) -> bool {
        self.after.is_none_or(|at| image.created() > at) && self.before.is_none_or(|at| image.created() < at)
    }
}

/// Inspect an image
#[utoipa::path(get, path = "/images/{name}/json", operation_id = "ImageInspect", tag = "Image",
    params(("name" = String, Path, description = "Reference, id or prefix of one"),
        ("platform" = Option<String>, Query, description = "JSON of an OCI platform (1.49); the image must be of it")),
    responses((status = 200, description = "The image", body = ImageInspect),
        (status = 404, description = "No such image", body = ErrorResponse)))]
async fn inspect(call: Call, Path(name): Path<String>) -> DockerResponse {
    if call.query.text("platform").is_some() && call.query.flag("manifests") {
        return Err(Error::InvalidArgument(
            "conflicting options: manifests and platform options cannot both be set".into(),
        )
        .into());
    }
    let image = described(&call, &name, 49).await?;
    json(StatusCode::OK, &image.inspect(call.version))
}

/// Show how an image was built
#[utoipa::path(get, path = "/images/{name}/history", operation_id = "ImageHistory", tag = "Image",
    params(("name" = String, Path, description = "Reference, id or prefix of one"),
        ("platform" = Option<String>, Query, description = "JSON of an OCI platform (1.48); the image must be of it")),
    responses((status = 200, description = "Steps, the last first", body = Vec<HistoryEntry>),
        (status = 404, description = "No such image", body = ErrorResponse)))]
async fn history(call: Call, Path(name): Path<String>) -> DockerResponse {
    json(StatusCode::OK, &described(&call, &name, 48).await?.history())
}

/// The image of a name, of the `platform` that is asked for since a version.
async fn described(call: &Call, name: &str, since: u16) -> Result<Described> {
    let image = Described::new(call.tx().await?.resolve_image(name).await?)?;
    platform::check(platform::one(&call.query, call.version, since)?.as_deref(), &image.row, name)?;
    Ok(image)
}

/// Give an image a further name
#[utoipa::path(post, path = "/images/{name}/tag", operation_id = "ImageTag", tag = "Image",
    params(("name" = String, Path, description = "Reference, id or prefix of one"),
        ("repo" = String, Query, description = "Repository"), ("tag" = Option<String>, Query, description = "Tag; `latest`")),
    responses((status = 201, description = "Named"), (status = 400, description = "No valid name", body = ErrorResponse),
        (status = 404, description = "No such image", body = ErrorResponse)))]
async fn tag(call: Call, Path(name): Path<String>) -> DockerResponse {
    let repository: ImageReference = call.query.get("repo").unwrap_or_default().parse()?;
    let reference = match call.query.text("tag") {
        Some(tag) => format!("{}:{tag}", repository.full_name()).parse()?,
        None => repository,
    };
    let mut tx = call.tx().await?;
    let image = tx.resolve_image_id(&name).await?;
    tx.tag_image(&image, &reference).await?;
    tx.commit().await?;
    call.tell_project();
    Ok(empty(StatusCode::CREATED))
}

/// The digits `docker ps` shows of an id.
fn short(id: &str) -> &str {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.get(..12).unwrap_or(digits)
}

/// Whether the caller named the image by its id rather than by a reference.
fn named_by_id(image: &ImageRow, written: &str) -> bool {
    let digits = written.strip_prefix("sha256:").unwrap_or(written);
    let by_reference = written.parse::<ImageReference>().is_ok_and(|reference| {
        let full = reference.to_string();
        image.tags.contains(&full) || image.digests.contains(&full)
    });
    !by_reference && image.id.hex().starts_with(digits)
}
