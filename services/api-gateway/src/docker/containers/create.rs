//! `POST /containers/create`: translate, write (row, address, event: one transaction), place. What
//! cannot be placed leaves nothing behind.

use axum::{extract::State, http::StatusCode};
use contract::{
    place::{PLACE, PlaceRequest, Placement},
    wake::Topic,
};
use model::{ContainerId, ContainerName, Digest, Error, Result};
use serde_json::{Value, json};
use store::{ContainerRecord, NewContainer, ProjectScope};
use utoipa::ToSchema;

use super::{
    attachments,
    body::{CreateBody, typed},
    image_defaults, joining, links, names, recorded,
    translate::{self, Translated},
    volumes::{self, Made},
};
use crate::{
    Gateway,
    auth::Project,
    docker::{
        body::{DockerResponse, JsonBody, json},
        query::Query,
        version::RequestedVersion,
        volumes::{announce, destroyed},
    },
};

/// Names drawn before giving up.
const NAME_TRIES: u32 = 8;

/// What create answers.
#[derive(Debug, serde::Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CreateReply {
    /// Id of the new container.
    pub(crate) id: String,
    /// What the user should know.
    pub(crate) warnings: Vec<String>,
}

/// Makes a container; it is not started.
#[utoipa::path(post, path = "/containers/create", operation_id = "ContainerCreate", tag = "Container",
    params(
        ("name" = Option<String>, Query, description = "Name; drawn if absent"),
        ("platform" = Option<String>, Query, description = "`os[/arch[/variant]]` the image must have")),
    request_body = CreateBody,
    responses(
        (status = 201, description = "Created", body = CreateReply),
        (status = 400, description = "A field is wrong"),
        (status = 403, description = "A field asks beyond the platform's policy"),
        (status = 404, description = "No such image"),
        (status = 409, description = "The name is taken"),
        (status = 501, description = "A field asks for something that is not built yet"),
        (status = 503, description = "No host can take it")))]
pub(crate) async fn create(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    version: RequestedVersion,
    query: Query,
    JsonBody(body): JsonBody<Value>,
) -> DockerResponse {
    let mut body: CreateBody = typed(attachments::with_every_network(body.unwrap_or_else(|| json!({}))))?;
    if body.config.image.is_empty() {
        return Err(Error::InvalidArgument("no image specified: Config.Image is empty".into()).into());
    }
    let has_subpath =
        |mount: &super::host_config::Mount| mount.volume_options.as_ref().is_some_and(|o| !o.subpath.is_empty());
    if !version.at_least(45) && body.host_config.mounts.iter().any(has_subpath) {
        return Err(Error::InvalidArgument("VolumeOptions.Subpath needs API v1.45 or newer".into()).into());
    }
    if let Some(check) = body.config.healthcheck.as_mut().filter(|_| !version.at_least(44)) {
        // It came with 1.44.
        check.start_interval = 0;
    }
    let name = query.text("name").map(str::parse::<ContainerName>).transpose()?;
    let deprecated = attachments::adopt_mac(&mut body)?.filter(|_| version.at_least(44));
    let (container, made, mut warnings) = write(&gateway, &scope, &body, name, query.text("platform")).await?;
    warnings.extend(deprecated.map(str::to_owned));
    place(&gateway, &scope, &container, &made).await?;
    json(StatusCode::CREATED, &CreateReply { id: container.id.to_string(), warnings })
}

/// Round trips: BEGIN, image (2), container, address, event, COMMIT; then one call to the scheduler.
async fn write(
    gateway: &Gateway,
    scope: &ProjectScope,
    body: &CreateBody,
    name: Option<ContainerName>,
    platform: Option<&str>,
) -> Result<(ContainerRecord, Made, Vec<String>)> {
    let networks = attachments::wanted(body)?;
    let mut tx = gateway.store.project_tx(scope).await?;
    let image = tx.resolve_image(&body.config.image).await?;
    check_platform(platform, &image.os, &image.architecture, &body.config.image)?;
    let defaults = image_defaults::parse(&image.config)?;
    let Translated { mut spec, volumes: wanted, shared, mut warnings } = translate::translate(body, &defaults)?;
    let options = attachments::without_effect(&networks, &mut warnings);
    if !options.is_empty() {
        spec.shown.insert("DriverOpts".into(), json!(options));
    }
    links::register(&mut tx, &body.host_config, &mut spec, &mut warnings).await?;
    joining::join(&mut tx, &body.host_config, &mut spec).await?;
    let made = volumes::fill(gateway, &mut tx, &mut spec, wanted, shared).await?;
    check_policy(&mut tx, &spec).await?;
    let mut container = blank(gateway, image.id, spec);
    insert(&mut tx, &mut container, name).await?;
    volumes::take(&mut tx, &container.id, &container.spec).await?;
    attachments::attach_all(&mut tx, &container.id, &networks).await?;
    volumes::created(gateway, &mut tx, &made).await?;
    recorded::within(gateway, &mut tx, &container, "create", &[]).await?;
    tx.commit().await?;
    gateway.bus.publish(&Topic::Project(scope.project()));
    Ok((container, made, warnings))
}

/// What is the project's to allow. Most containers ask for none of it, and nobody asks about them.
async fn check_policy(tx: &mut store::ProjectTx, spec: &model::ContainerSpec) -> Result<()> {
    if spec.docker_sockets.is_empty() && spec.runtime.is_empty() {
        return Ok(());
    }
    let policy = tx.policy().await?;
    if !spec.docker_sockets.is_empty() && !policy.docker_socket {
        return Err(store::docker_socket_is_off());
    }
    if !spec.runtime.is_empty() && !policy.runtimes.contains(&spec.runtime) {
        return Err(translate::no_such_runtime(&spec.runtime));
    }
    Ok(())
}

fn blank(gateway: &Gateway, image_id: Digest, spec: model::ContainerSpec) -> ContainerRecord {
    ContainerRecord {
        id: ContainerId::from_bytes(chassis::ids::random_hex_id()),
        // Overwritten by the insert, which draws one if the user gave none.
        name: names::fallback(),
        image_id,
        spec: spec.into(),
        created_at: gateway.clock.now(),
        desired: model::Desired::Created,
        run: 0,
        host: None,
        observed: model::Observed::at(model::Progress::NONE),
        endpoints: Vec::new(),
        ports: Vec::new(),
        removed_at: None,
    }
}

async fn insert(tx: &mut store::ProjectTx, container: &mut ContainerRecord, name: Option<ContainerName>) -> Result<()> {
    let given = name.is_some();
    for attempt in 0..NAME_TRIES {
        container.name = match &name {
            Some(name) => name.clone(),
            None => names::draw(attempt)?,
        };
        let new = NewContainer {
            id: &container.id,
            name: &container.name,
            image_id: &container.image_id,
            spec: &container.spec,
            created_at: container.created_at,
        };
        if tx.insert_container(new).await? {
            return Ok(());
        }
        if given {
            return Err(name_conflict(tx, &container.name).await?);
        }
    }
    Err(Error::Conflict("could not draw a free name; give one".into()))
}

/// dockerd's text, which clients parse.
pub(super) async fn name_conflict(tx: &mut store::ProjectTx, name: &ContainerName) -> Result<Error> {
    let holder = tx.container_named(name).await?.map(|id| id.to_string()).unwrap_or_default();
    Ok(Error::Conflict(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". \
         You have to remove (or rename) that container to be able to reuse that name."
    )))
}

fn check_platform(asked: Option<&str>, os: &str, architecture: &str, image: &str) -> Result<()> {
    let Some(asked) = asked else { return Ok(()) };
    let mut parts = asked.split('/');
    let os_fits = parts.next().is_some_and(|wanted| wanted == os);
    let architecture_fits = parts.next().is_none_or(|wanted| {
        wanted
            == match architecture {
                "amd64" if wanted == "x86_64" => "x86_64",
                "arm64" if wanted == "aarch64" => "aarch64",
                other => other,
            }
    });
    if os_fits && architecture_fits {
        Ok(())
    } else {
        Err(Error::NotFound(format!(
            "image with reference {image} was found but does not provide the specified platform ({asked})"
        )))
    }
}

/// Has it placed. If nobody can take it, it is as if it had never been, except in the history.
async fn place(gateway: &Gateway, scope: &ProjectScope, container: &ContainerRecord, made: &Made) -> Result<()> {
    let request = PlaceRequest { project: scope.project(), container: container.id.clone() };
    let Err(error) = gateway.scheduler.post::<_, Placement>(PLACE, &request).await else { return Ok(()) };
    let mut tx = gateway.store.project_tx(scope).await?;
    if !tx.discard_unplaced(&container.id).await? {
        // The answer was lost, the placement was not.
        return Ok(());
    }
    let removed = tx.remove_unused_volumes(&made.ids).await?;
    destroyed(gateway, &mut tx, &removed).await?;
    recorded::within(gateway, &mut tx, container, "destroy", &[]).await?;
    tx.commit().await?;
    announce(gateway, scope, &removed);
    if let Error::Unavailable(detail) = &error {
        tracing::warn!(%detail, "the scheduler does not answer");
        return Err(Error::Unavailable("containers cannot be placed now; try again".into()));
    }
    Err(error)
}
