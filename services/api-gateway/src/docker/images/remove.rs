//! Removing images by dockerd's rules: a name goes first, the image when its last name is gone;
//! containers hold it. The decision is [`decide`], without I/O.

use axum::{extract::Path, http::StatusCode};
use model::{Error, ImageReference, Result};
use serde::Serialize;
use store::{ImageRow, ImageUse, ProjectTx};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Described, named_by_id, short};
use crate::{
    Gateway,
    docker::{
        body::{DockerResponse, json},
        call::Call,
        error::ErrorResponse,
        filters::Filters,
        instant, platform,
    },
};

pub(crate) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(delete)).routes(routes!(prune))
}

/// One thing that went: a name or an image.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) enum ImageDeleteResponseItem {
    /// A name.
    Untagged(String),
    /// An image.
    Deleted(String),
}
use ImageDeleteResponseItem::{Deleted, Untagged};

/// What a prune took.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ImagePruneResponse {
    images_deleted: Option<Vec<ImageDeleteResponseItem>>,
    space_reclaimed: i64,
}

/// Remove a name, or an image with all its names
#[utoipa::path(delete, path = "/images/{name}", operation_id = "ImageDelete", tag = "Image",
    params(("name" = String, Path, description = "Reference, id or prefix of one"),
        ("force" = Option<bool>, Query, description = "Even if stopped containers or several names hold it"),
        ("platforms" = Option<Vec<String>>, Query, description = "JSON of OCI platforms (1.50); the image must be of each"),
        ("noprune" = Option<bool>, Query, description = "Taken for compatibility: images have no parents here")),
    responses((status = 200, description = "What went", body = Vec<ImageDeleteResponseItem>),
        (status = 404, description = "No such image", body = ErrorResponse),
        (status = 409, description = "Something holds it", body = ErrorResponse)))]
async fn delete(call: Call, Path(name): Path<String>) -> DockerResponse {
    let platforms = platform::several(&call.query, call.version, 50)?;
    let mut tx = call.tx().await?;
    let id = tx.resolve_image_id(&name).await?;
    // From here on nobody begins to use it, and nobody names it.
    tx.claim_image(&id, true).await?;
    let image = tx.resolve_image(&name).await?;
    if image.id != id {
        return Err(Error::Conflict(format!("{name} has just become another image; try again")).into());
    }
    // It has one platform: without it nothing is left.
    for wanted in &platforms {
        platform::check(Some(wanted), &image, &name)?;
    }
    let uses = tx.image_uses(&image.id).await?;
    let removal = decide(&image, &uses, &name, call.query.flag("force"))?;
    let gone = carry_out(&mut tx, &image, removal).await?;
    tx.commit().await?;
    call.tell_project();
    json(StatusCode::OK, &gone)
}

/// What is to be removed.
#[derive(Debug, PartialEq, Eq)]
struct Removal {
    /// Names, as they are shown.
    names: Vec<String>,
    /// And the image itself.
    image: bool,
}

/// Whether the names are of one repository with at most one tag, so that the image is meant by them.
fn is_single(image: &ImageRow) -> bool {
    let mut repositories = image.tags.iter().chain(&image.digests).filter_map(|name| repository(name));
    let first = repositories.next();
    image.tags.len() <= 1 && repositories.all(|other| Some(other) == first)
}

fn repository(name: &str) -> Option<String> {
    name.parse::<ImageReference>().ok().map(|reference| reference.full_name())
}

fn decide(image: &ImageRow, uses: &[ImageUse], written: &str, force: bool) -> Result<Removal> {
    let all: Vec<String> = image.tags.iter().chain(&image.digests).cloned().collect();
    if named_by_id(image, written) {
        if !is_single(image) && !force {
            return Err(held(image, "must be forced", "image is referenced in multiple repositories"));
        }
        refuse_use(image, uses, force)?;
        return Ok(Removal { names: all, image: true });
    }
    if let (false, true, Some(first)) = (force, is_single(image), uses.first()) {
        return Err(Error::Conflict(format!(
            "conflict: unable to remove repository reference \"{written}\" (must force) - container {} is using its referenced image {}",
            short(&first.container),
            short(image.id.as_str())
        )));
    }
    let reference: ImageReference = written.parse()?;
    let name = reference.to_string();
    let sibling_tag = image.tags.iter().any(|tag| *tag != name && repository(tag) == repository(&name));
    let goes = |other: &String| {
        let canonical = other.contains('@') && reference.digest.is_none();
        *other == name || (canonical && !sibling_tag && repository(other) == repository(&name))
    };
    let (names, left): (Vec<_>, Vec<_>) = all.into_iter().partition(goes);
    // A container may keep an image that has lost its last name, when that was forced.
    let image_too = left.is_empty() && refuse_use(image, uses, force).is_ok();
    Ok(Removal { names, image: image_too })
}

/// Containers that run, or whose host has yet to fetch it, hold an image in any case; stopped ones
/// unless it is forced.
fn refuse_use(image: &ImageRow, uses: &[ImageUse], force: bool) -> Result<()> {
    if let Some(running) = uses.iter().find(|one| one.running) {
        let why = format!("image is being used by running container {}", short(&running.container));
        return Err(held(image, "cannot be forced", &why));
    }
    if let Some(new) = uses.iter().find(|one| one.unfetched) {
        let why = format!("image is being fetched for container {}", short(&new.container));
        return Err(held(image, "cannot be forced", &why));
    }
    match uses.first() {
        Some(stopped) if !force => {
            let why = format!("image is being used by stopped container {}", short(&stopped.container));
            Err(held(image, "must be forced", &why))
        }
        _ => Ok(()),
    }
}

fn held(image: &ImageRow, how: &str, why: &str) -> Error {
    Error::Conflict(format!("conflict: unable to delete {} ({how}) - {why}", short(image.id.as_str())))
}

async fn carry_out(tx: &mut ProjectTx, image: &ImageRow, removal: Removal) -> Result<Vec<ImageDeleteResponseItem>> {
    let mut gone = Vec::new();
    for name in removal.names {
        if tx.untag_image(&image.id, &name.parse()?).await? {
            gone.push(Untagged(name));
        }
    }
    if removal.image {
        tx.delete_image(&image.id).await?;
        gone.push(Deleted(image.id.to_string()));
    }
    Ok(gone)
}

/// Remove images that nothing uses
#[utoipa::path(post, path = "/images/prune", operation_id = "ImagePrune", tag = "Image",
    params(("filters" = Option<String>, Query, description = "JSON: dangling (default true), label, until")),
    responses((status = 200, description = "What went", body = ImagePruneResponse),
        (status = 400, description = "A filter is wrong", body = ErrorResponse)))]
async fn prune(call: Call) -> DockerResponse {
    let filters = Filters::parse(call.query.text("filters"), &["dangling", "label", "label!", "until"])?;
    let dangling_only = filters.boolean("dangling")?.unwrap_or(true);
    let now = call.gateway.clock.now();
    let until = filters.values("until").first().map(|at| instant::parse("until", at, now)).transpose()?;
    let mut tx = call.tx().await?;
    let (mut gone, mut space_reclaimed) = (Vec::new(), 0);
    for image in tx.list_images().await? {
        let image = Described::new(image)?;
        let spared = (dangling_only && !image.row.tags.is_empty())
            || !filters.labels(&image.labels)
            || until.is_some_and(|until| image.created() > until);
        // One that somebody is at work with is in use, or about to be.
        if spared || !tx.claim_image(&image.row.id, false).await? {
            continue;
        }
        let Some(row) = tx.image_by_id(&image.row.id).await? else { continue };
        let named_meanwhile = dangling_only && !row.tags.is_empty();
        if !named_meanwhile && tx.image_uses(&row.id).await?.is_empty() {
            space_reclaimed += row.size_bytes;
            let names = row.tags.iter().chain(&row.digests).cloned().collect();
            gone.extend(carry_out(&mut tx, &row, Removal { names, image: true }).await?);
        }
    }
    tx.commit().await?;
    call.tell_project();
    let images_deleted = Some(gone).filter(|gone| !gone.is_empty());
    json(StatusCode::OK, &ImagePruneResponse { images_deleted, space_reclaimed })
}

#[cfg(test)]
mod tests {
    use super::{super::describe::tests::image, *};

    fn row(tags: &[&str], digests: &[String]) -> ImageRow {
        let mut row = image(tags).row;
        row.digests = digests.to_vec();
        row
    }

    fn used(running: bool) -> Vec<ImageUse> {
        vec![ImageUse { container: "c".repeat(64), running, unfetched: false }]
    }

    fn unfetched() -> Vec<ImageUse> {
        vec![ImageUse { container: "c".repeat(64), running: false, unfetched: true }]
    }

    fn digest(name: &str) -> String {
        format!("{name}@sha256:{}", "d".repeat(64))
    }

    #[test]
    fn the_last_name_takes_the_image_along() {
        let row = row(&["a:1"], &[digest("a")]);
        let removal = decide(&row, &[], "a:1", false).expect("allowed");
        assert_eq!(removal, Removal { names: vec!["a:1".into(), digest("a")], image: true });
    }

    #[test]
    fn a_further_name_leaves_the_image() {
        let removal = decide(&row(&["a:1", "b:1"], &[]), &used(true), "a:1", false).expect("allowed");
        assert_eq!(removal, Removal { names: vec!["a:1".into()], image: false });
        let removal = decide(&row(&["a:1", "a:2"], &[digest("a")]), &[], "a:1", false).expect("allowed");
        assert_eq!(removal, Removal { names: vec!["a:1".into()], image: false });
    }

    #[test]
    fn a_container_holds_the_last_name_in_dockerds_words() {
        let row = row(&["hello:latest"], &[]);
        let error = decide(&row, &used(false), "hello", false).expect_err("held");
        let text = format!(
            "conflict: unable to remove repository reference \"hello\" (must force) - container cccccccccccc is using its referenced image {}",
            short(row.id.as_str())
        );
        assert_eq!(error, Error::Conflict(text));
        let forced = decide(&row, &used(true), "hello", true).expect("forced");
        assert_eq!(forced, Removal { names: vec!["hello:latest".into()], image: false });
        assert!(decide(&row, &used(false), "hello", true).expect("forced").image);
    }

    #[test]
    fn by_id_several_repositories_or_a_running_container_forbid_it() {
        let two = row(&["a:1", "b:1"], &[]);
        let id = two.id.to_string();
        assert!(decide(&two, &[], &id, false).expect_err("held").to_string().contains("multiple repositories"));
        assert!(decide(&two, &[], short(&id), true).expect("forced").image);
        let running = decide(&two, &used(true), &id, true).expect_err("held").to_string();
        assert!(
            running.contains("(cannot be forced) - image is being used by running container cccccccccccc"),
            "{running}"
        );
        let stopped = decide(&row(&["a:1"], &[]), &used(false), &id, false).expect_err("held").to_string();
        assert!(stopped.contains("(must be forced) - image is being used by stopped container"), "{stopped}");
    }

    #[test]
    fn a_container_whose_host_has_yet_to_fetch_the_image_keeps_it_even_against_force() {
        let row = row(&["a:1"], &[]);
        let error = decide(&row, &unfetched(), row.id.as_str(), true).expect_err("held").to_string();
        assert!(error.contains("(cannot be forced) - image is being fetched for container cccccccccccc"), "{error}");
        let forced = decide(&row, &unfetched(), "a:1", true).expect("forced");
        assert_eq!(forced, Removal { names: vec!["a:1".into()], image: false });
    }

    #[test]
    fn what_went_is_told_as_docker_tells_it() {
        let told = serde_json::to_string(&[Untagged("a:1".into()), Deleted("sha256:x".into())]).expect("JSON");
        assert_eq!(told, r#"[{"Untagged":"a:1"},{"Deleted":"sha256:x"}]"#);
    }
}
