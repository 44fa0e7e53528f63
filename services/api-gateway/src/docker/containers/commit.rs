//! `POST /commit`: an image of what a container has become. Its host packs the writable layer, which
//! passes through here to image-svc; hosts have no way to write images.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode},
};
use contract::{
    agent::{CONTAINERS, PathQuery},
    image::{IMAGES, NewImage, NewImageReply, UPLOADS, UploadQuery},
};
use model::{Error, ImageReference, LayerDescriptor, Result};
use serde_json::{Value, json};
use store::{ContainerRecord, ProjectScope};

use super::{ContainerConfig, Words, archive, pause, recorded, render, state, typed};
use crate::{
    Gateway,
    agents::tenant_error,
    auth::Project,
    docker::{
        body::{DockerResponse, decode, json},
        error::ErrorResponse,
        instructions,
        query::Query,
    },
};

/// Time until a host begins to send: it looks through the layer first.
const PATIENCE: Duration = Duration::from_secs(300);

/// Make an image of a container.
#[utoipa::path(post, path = "/commit", operation_id = "ImageCommit", tag = "Image",
    params(("container" = String, Query, description = "Id, name or unique id prefix"),
        ("repo" = Option<String>, Query, description = "Name of the image"),
        ("tag" = Option<String>, Query, description = "Tag; `latest`"),
        ("comment" = Option<String>, Query, description = "For the history"),
        ("author" = Option<String>, Query, description = "Who"),
        ("pause" = Option<bool>, Query, description = "Freeze it meanwhile; on unless it is said"),
        ("changes" = Option<Vec<String>>, Query, description = "Instructions of a Dockerfile")),
    request_body = Option<Object>,
    responses((status = 201, description = "The image's id", body = Object),
        (status = 400, description = "A change or name cannot be read", body = ErrorResponse),
        (status = 404, description = "No such container", body = ErrorResponse),
        (status = 409, description = "It is being removed", body = ErrorResponse)))]
pub(crate) async fn commit(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    query: Query,
    headers: HeaderMap,
    body: Bytes,
) -> DockerResponse {
    let given = decode::<Value>(&headers, &body)?.filter(|body| !body.is_null());
    let mut config: ContainerConfig = given.map(typed).transpose()?.unwrap_or_default();
    instructions::apply(&mut config, query.all("changes"))?;
    let name = image_name(query.get("repo").unwrap_or_default(), query.get("tag").unwrap_or_default())?;
    let reference = query.get("container").unwrap_or_default();
    let container = gateway.store.project_tx(&scope).await?.find_container(reference).await?;
    if state::of(&container) == state::State::Removing {
        let text = format!("You cannot commit container {} which is being removed", container.id);
        return Err(Error::Conflict(text).into());
    }
    let own: ContainerConfig = typed(render::config(&container))?;
    let created_by = own.cmd.as_ref().map(|cmd| cmd.0.join(" ")).unwrap_or_default();
    merge(&mut config, own);
    let running = state::of(&container) == state::State::Running;
    let freeze = running && (query.flag("pause") || query.text("pause").is_none());
    let layer = upload(&gateway, scope, &container, freeze).await?;
    let wanted = NewImage {
        project: scope.project(),
        parent: Some(container.image_id.clone()),
        layer,
        config: shown(&config),
        author: query.get("author").unwrap_or_default().to_owned(),
        comment: query.get("comment").unwrap_or_default().to_owned(),
        created_by,
        reference: name.as_ref().map(ToString::to_string),
        platform: None,
    };
    let NewImageReply { id } = gateway.image.post(IMAGES, &wanted).await?;
    let named = name.map(|name| name.familiar()).unwrap_or_default();
    let attributes = [("comment", wanted.comment.as_str()), ("imageID", id.as_str()), ("imageRef", named.as_str())];
    recorded::alone(&gateway, &scope, &container, "commit", &attributes).await;
    json(StatusCode::CREATED, &json!({ "Id": id }))
}

/// The name of a new image; none without `repo`.
pub(crate) fn image_name(repo: &str, tag: &str) -> Result<Option<ImageReference>> {
    if repo.is_empty() {
        return Ok(None);
    }
    let reference: ImageReference = repo.parse()?;
    if reference.digest.is_some() {
        return Err(Error::InvalidArgument("refusing to create a tag with a digest reference".into()));
    }
    let written = if tag.is_empty() { reference } else { reference.with_tag(tag) };
    // A tag is checked as part of a whole reference.
    written.to_string().parse().map(Some)
}

/// Has the host pack the writable layer and image-svc store it, with the container standing still.
async fn upload(
    gateway: &Gateway,
    scope: ProjectScope,
    container: &ContainerRecord,
    mut freeze: bool,
) -> Result<LayerDescriptor> {
    let agent = gateway.agents.of(container)?.with_timeout(PATIENCE);
    let id = container.id.as_str();
    if freeze {
        match pause::set(gateway, scope, id, true).await {
            // It has ended meanwhile: it stands still by itself.
            Err(Error::Conflict(_)) => freeze = false,
            done => done?,
        }
    }
    let stored = async {
        let path = format!("{CONTAINERS}/{id}/layer");
        let asked = PathQuery { wait_ms: archive::wait_ms(container), ..PathQuery::default() };
        let layer = agent.stream(Method::GET, &path, Some(&asked), None::<&()>).await.map_err(tenant_error)?;
        let query = UploadQuery { project: scope.project() };
        gateway.image.upload(Method::POST, UPLOADS, &query, layer.bytes_stream()).await
    };
    let stored = stored.await;
    if freeze && let Err(error) = pause::set(gateway, scope, id, false).await {
        // It may have been killed or thawed by its user meanwhile.
        tracing::info!(container = id, %error, "not thawed after a commit");
    }
    stored
}

/// What the request leaves open is as the container has it.
fn merge(config: &mut ContainerConfig, own: ContainerConfig) {
    fn fill<T: Default + PartialEq>(field: &mut T, own: T) {
        if *field == T::default() {
            *field = own;
        }
    }
    fn add<V>(field: &mut BTreeMap<String, V>, own: BTreeMap<String, V>) {
        for (key, value) in own {
            field.entry(key).or_insert(value);
        }
    }
    let key = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    for entry in own.env {
        if !config.env.iter().any(|e| key(e) == key(&entry)) {
            config.env.push(entry);
        }
    }
    if config.entrypoint.as_ref().is_none_or(|e| e.0.is_empty()) {
        if config.cmd.as_ref().is_none_or(|c| c.0.is_empty()) {
            config.cmd = own.cmd;
        }
        if config.entrypoint.is_none() {
            config.entrypoint = own.entrypoint;
        }
    }
    if config.healthcheck.is_none() {
        config.healthcheck = own.healthcheck;
    }
    add(&mut config.exposed_ports, own.exposed_ports);
    add(&mut config.volumes, own.volumes);
    add(&mut config.labels, own.labels);
    fill(&mut config.user, own.user);
    fill(&mut config.working_dir, own.working_dir);
    fill(&mut config.stop_signal, own.stop_signal);
    fill(&mut config.on_build, own.on_build);
    fill(&mut config.shell, own.shell);
}

/// The part of a container's configuration that an image carries, what is empty left out.
pub(crate) fn shown(config: &ContainerConfig) -> Value {
    let words = |words: &Option<Words>| json!(words.as_ref().map(|w| &w.0).filter(|w| !w.is_empty()));
    let mut shown = json!({
        "User": config.user,
        "ExposedPorts": config.exposed_ports,
        "Env": config.env,
        "Cmd": words(&config.cmd),
        "Healthcheck": config.healthcheck,
        "Volumes": config.volumes,
        "WorkingDir": config.working_dir,
        "Entrypoint": words(&config.entrypoint),
        "OnBuild": config.on_build,
        "Labels": config.labels,
        "StopSignal": config.stop_signal,
        "Shell": config.shell.0,
    });
    if let Some(fields) = shown.as_object_mut() {
        let empty = |value: &Value| {
            value.is_null()
                || value.as_str().is_some_and(str::is_empty)
                || value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(serde_json::Map::is_empty)
        };
        fields.retain(|_, value| !empty(value));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(document: Value) -> ContainerConfig {
        typed(document).expect("parses")
    }

    #[test]
    fn what_is_left_open_is_the_containers() {
        let mut asked = config(json!({"Env": ["A=1"], "Labels": {"x": "mine"}, "Cmd": ["new"]}));
        let own = config(json!({
            "Env": ["A=0", "B=2"], "Labels": {"x": "its", "y": "its"}, "Cmd": ["old"], "Entrypoint": ["/e"],
            "User": "nobody", "WorkingDir": "/w", "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGINT",
        }));
        merge(&mut asked, own);
        assert_eq!(
            shown(&asked),
            json!({
                "User": "nobody", "ExposedPorts": {"80/tcp": {}}, "Env": ["A=1", "B=2"], "Cmd": ["new"],
                "WorkingDir": "/w", "Entrypoint": ["/e"], "Labels": {"x": "mine", "y": "its"}, "StopSignal": "SIGINT",
            })
        );
    }

    #[test]
    fn an_entrypoint_that_is_given_leaves_the_containers_command_behind() {
        let mut asked = config(json!({"Entrypoint": ["/mine"]}));
        merge(&mut asked, config(json!({"Cmd": ["old"], "Entrypoint": ["/old"]})));
        assert_eq!(shown(&asked), json!({"Entrypoint": ["/mine"]}));
    }

    #[test]
    fn a_name_is_a_repository_and_a_tag() {
        let named = |repo: &str, tag: &str| image_name(repo, tag).map(|name| name.map(|n| n.to_string()));
        assert_eq!(named("", "x"), Ok(None));
        assert_eq!(named("a/b", ""), Ok(Some("a/b:latest".into())));
        assert_eq!(named("a/b", "1"), Ok(Some("a/b:1".into())));
        assert_eq!(named("r:5000/a:2", ""), Ok(Some("r:5000/a:2".into())));
        assert!(named("A", "").is_err() && named("a", "b c").is_err());
        assert!(named(&format!("a@sha256:{}", "0".repeat(64)), "").is_err());
    }
}
