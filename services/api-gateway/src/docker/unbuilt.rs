//! The operations of the Docker API that Wharfage does not have yet. They are routes like any
//! other: authenticated, documented, and answered with 501 and the reason; those of a swarm with
//! dockerd's own 503, which clients understand as "swarm mode is off".

use axum::{
    http::StatusCode,
    response::Response,
    routing::{MethodFilter, on},
};
use utoipa::openapi::{
    HttpMethod,
    path::{OperationBuilder, ParameterBuilder, ParameterIn, PathItem},
    response::ResponseBuilder,
};
use utoipa_axum::router::OpenApiRouter;

use super::error::refused;
use crate::{Gateway, auth::Project, openapi};

/// dockerd's text for everything that needs a swarm.
const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" \
                        to connect this node to swarm and try again.";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Get,
    Post,
    Delete,
}
use Verb::{Delete, Get, Post};

/// One operation: method, path, operation id of Docker's own description, tag.
type Operation = (Verb, &'static str, &'static str, &'static str);

const UNBUILT: &[Operation] = &[
    (Post, "/build", "ImageBuild", "Image"),
    (Post, "/build/prune", "BuildPrune", "Image"),
    (Get, "/images/{name}/attestations", "ImageAttestations", "Image"),
    (Get, "/plugins", "PluginList", "Plugin"),
    (Get, "/plugins/privileges", "GetPluginPrivileges", "Plugin"),
    (Post, "/plugins/pull", "PluginPull", "Plugin"),
    (Get, "/plugins/{name}/json", "PluginInspect", "Plugin"),
    (Delete, "/plugins/{name}", "PluginDelete", "Plugin"),
    (Post, "/plugins/{name}/enable", "PluginEnable", "Plugin"),
    (Post, "/plugins/{name}/disable", "PluginDisable", "Plugin"),
    (Post, "/plugins/{name}/upgrade", "PluginUpgrade", "Plugin"),
    (Post, "/plugins/create", "PluginCreate", "Plugin"),
    (Post, "/plugins/{name}/push", "PluginPush", "Plugin"),
    (Post, "/plugins/{name}/set", "PluginSet", "Plugin"),
    (Post, "/session", "Session", "Session"),
];

const SWARM: &[Operation] = &[
    (Get, "/nodes", "NodeList", "Node"),
    (Get, "/nodes/{id}", "NodeInspect", "Node"),
    (Delete, "/nodes/{id}", "NodeDelete", "Node"),
    (Post, "/nodes/{id}/update", "NodeUpdate", "Node"),
    (Get, "/swarm", "SwarmInspect", "Swarm"),
    (Post, "/swarm/leave", "SwarmLeave", "Swarm"),
    (Post, "/swarm/update", "SwarmUpdate", "Swarm"),
    (Get, "/swarm/unlockkey", "SwarmUnlockkey", "Swarm"),
    (Get, "/services", "ServiceList", "Service"),
    (Post, "/services/create", "ServiceCreate", "Service"),
    (Get, "/services/{id}", "ServiceInspect", "Service"),
    (Delete, "/services/{id}", "ServiceDelete", "Service"),
    (Post, "/services/{id}/update", "ServiceUpdate", "Service"),
    (Get, "/services/{id}/logs", "ServiceLogs", "Service"),
    (Get, "/tasks", "TaskList", "Task"),
    (Get, "/tasks/{id}", "TaskInspect", "Task"),
    (Get, "/tasks/{id}/logs", "TaskLogs", "Task"),
    (Get, "/secrets", "SecretList", "Secret"),
    (Post, "/secrets/create", "SecretCreate", "Secret"),
    (Get, "/secrets/{id}", "SecretInspect", "Secret"),
    (Delete, "/secrets/{id}", "SecretDelete", "Secret"),
    (Post, "/secrets/{id}/update", "SecretUpdate", "Secret"),
    (Get, "/configs", "ConfigList", "Config"),
    (Post, "/configs/create", "ConfigCreate", "Config"),
    (Get, "/configs/{id}", "ConfigInspect", "Config"),
    (Delete, "/configs/{id}", "ConfigDelete", "Config"),
    (Post, "/configs/{id}/update", "ConfigUpdate", "Config"),
];

/// Swarm operations that make no sense to answer with "not a manager": they would make one.
const SWARM_UNBUILT: &[Operation] = &[
    (Post, "/swarm/init", "SwarmInit", "Swarm"),
    (Post, "/swarm/join", "SwarmJoin", "Swarm"),
    (Post, "/swarm/unlock", "SwarmUnlock", "Swarm"),
];

/// Routes and descriptions of all of them.
pub(crate) fn routes() -> OpenApiRouter<Gateway> {
    let router = OpenApiRouter::default();
    let router = UNBUILT.iter().chain(SWARM_UNBUILT).fold(router, |router, operation| {
        let name = operation.2;
        let answer = move |_: Project| async move { not_built(name) };
        register(router, operation, StatusCode::NOT_IMPLEMENTED, answer)
    });
    SWARM.iter().fold(router, |router, operation| {
        let answer = |_: Project| async { refused(StatusCode::SERVICE_UNAVAILABLE, NO_SWARM) };
        register(router, operation, StatusCode::SERVICE_UNAVAILABLE, answer)
    })
}

/// The answer of an operation, or of an option of one, that is not there yet.
pub(crate) fn not_built(what: &str) -> Response {
    let text = format!("{what} is not built yet in Wharfage; see docs/compatibility.md");
    refused(StatusCode::NOT_IMPLEMENTED, &text)
}

fn register<H, T>(
    mut router: OpenApiRouter<Gateway>,
    (verb, path, id, tag): &Operation,
    status: StatusCode,
    answer: H,
) -> OpenApiRouter<Gateway>
where
    H: axum::handler::Handler<T, Gateway>,
    T: 'static,
{
    let (filter, method) = match verb {
        Get => (MethodFilter::GET, HttpMethod::Get),
        Post => (MethodFilter::POST, HttpMethod::Post),
        Delete => (MethodFilter::DELETE, HttpMethod::Delete),
    };
    let mut description = OperationBuilder::new()
        .operation_id(Some(*id))
        .tag(*tag)
        .summary(Some(match status {
            StatusCode::NOT_IMPLEMENTED => "Not built yet",
            _ => "Swarm mode is off",
        }))
        .response(status.as_str(), ResponseBuilder::new().description("Not available in this version").build());
    for name in openapi::path_parameters(path) {
        let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path);
        description = description.parameter(parameter.schema(Some(openapi::text())).build());
    }
    let item = PathItem::new(method, description);
    let paths = &mut router.get_openapi_mut().paths.paths;
    match paths.get_mut(*path) {
        Some(existing) => existing.merge_operations(item),
        None => {
            paths.insert((*path).to_owned(), item);
        }
    }
    router.route(path, on(filter, answer))
}
