//! `/_ping`, `/version`, `/info`, `/system/df`: the project as one Docker host. No host of the
//! fleet shows in any of them.

use std::collections::BTreeMap;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use serde_json::{Value, json};
use store::{FleetCapacity, ProjectSummary};
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    body::{DockerResponse, json as reply},
    headers::SERVER_VERSION,
    version::{self, RequestedVersion},
};
use crate::{Gateway, auth::Project};

/// What a container sees; the kernels of the hosts are nobody's business.
const KERNEL: &str = "linux";

/// Limits a container may be given; without them clients warn that a limit is ignored.
const LIMITS_HONOURED: [&str; 8] =
    ["MemoryLimit", "SwapLimit", "CpuCfsPeriod", "CpuCfsQuota", "CPUShares", "CPUSet", "PidsLimit", "IPv4Forwarding"];
/// As above, for clients before API 1.50, which dropped them.
const BRIDGE_FILTERS: [&str; 2] = ["BridgeNfIptables", "BridgeNfIp6tables"];

/// Without a credential.
pub(crate) fn open_routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(ping, ping_head))
}

/// With a project's.
pub(crate) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(show_version)).routes(routes!(info))
}

/// Is somebody there, and which API do they speak?
#[utoipa::path(get, path = "/_ping", operation_id = "SystemPing", tag = "System", security(()),
    responses((status = 200, description = "OK", content_type = "text/plain")))]
async fn ping() -> Response {
    pong("OK")
}

/// The same without a body; what clients send first.
#[utoipa::path(head, path = "/_ping", operation_id = "SystemPingHead", tag = "System", security(()),
    responses((status = 200, description = "OK")))]
async fn ping_head() -> Response {
    pong("")
}

fn pong(body: &'static str) -> Response {
    let mut response = (StatusCode::OK, Body::from(body)).into_response();
    let headers = response.headers_mut();
    let mut set = |name: &'static str, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
    set("content-type", "text/plain; charset=utf-8");
    set("builder-version", "1");
    set("swarm", "inactive");
    set("cache-control", "no-cache, no-store, must-revalidate");
    set("pragma", "no-cache");
    response
}

/// Who answers, and which versions of the API it speaks.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SystemVersion {
    platform: Platform,
    components: Vec<Component>,
    version: &'static str,
    api_version: String,
    #[serde(rename = "MinAPIVersion")]
    min_api_version: String,
    git_commit: &'static str,
    go_version: &'static str,
    os: &'static str,
    arch: &'static str,
    kernel_version: &'static str,
    build_time: &'static str,
}

/// The product.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Platform {
    name: &'static str,
}

/// A part of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Component {
    name: &'static str,
    version: &'static str,
    details: BTreeMap<&'static str, String>,
}

/// Show versions
#[utoipa::path(get, path = "/version", operation_id = "SystemVersion", tag = "System",
    responses((status = 200, description = "Versions", body = SystemVersion)))]
async fn show_version(Project(_scope): Project) -> DockerResponse {
    let (api_version, min_api_version) = (version::MAX.to_string(), version::MIN.to_string());
    let details = BTreeMap::from([
        ("ApiVersion", api_version.clone()),
        ("Arch", arch().to_owned()),
        ("BuildTime", String::new()),
        ("Experimental", "false".to_owned()),
        ("GitCommit", String::new()),
        ("GoVersion", "none (Rust)".to_owned()),
        ("KernelVersion", KERNEL.to_owned()),
        ("MinAPIVersion", min_api_version.clone()),
        ("Os", "linux".to_owned()),
    ]);
    let shown = SystemVersion {
        platform: Platform { name: "Wharfage" },
        components: vec![Component { name: "Engine", version: SERVER_VERSION, details }],
        version: SERVER_VERSION,
        api_version,
        min_api_version,
        git_commit: "",
        go_version: "none (Rust)",
        os: "linux",
        arch: arch(),
        kernel_version: KERNEL,
        build_time: "",
    };
    reply(StatusCode::OK, &shown)
}

/// Go's name of the fleet's architecture: one fleet, one architecture so far.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Show the project as if it were a Docker host
#[utoipa::path(get, path = "/info", operation_id = "SystemInfo", tag = "System",
    responses((status = 200, description = "The project as a host; see Docker's own reference", body = Object)))]
async fn info(State(gateway): State<Gateway>, Project(scope): Project, version: RequestedVersion) -> DockerResponse {
    let mut tx = gateway.store.project_tx(&scope).await?;
    let summary = tx.summary().await?;
    let policy = tx.policy().await?;
    drop(tx);
    let capacity = gateway.store.fleet_capacity().await?;
    let now = gateway.clock.now().format(&Rfc3339).unwrap_or_default();
    let mut document = host_facts(version);
    if let Value::Object(document) = &mut document {
        document.extend(LIMITS_HONOURED.map(|key| (key.to_owned(), json!(true))));
        document.insert("Runtimes".into(), runtimes(&policy.runtimes));
        document.extend(counted(&scope.project().to_string(), summary, capacity, &now));
    }
    reply(StatusCode::OK, &document)
}

/// Those the project may name.
fn runtimes(allowed: &[String]) -> Value {
    let mut all = serde_json::Map::from_iter([("io.containerd.runc.v2".to_owned(), json!({ "path": "runc" }))]);
    all.extend(allowed.iter().map(|name| (name.clone(), json!({ "path": name }))));
    Value::Object(all)
}

/// What differs between projects and moments.
fn counted(project: &str, has: ProjectSummary, fleet: FleetCapacity, now: &str) -> [(String, Value); 9] {
    [
        ("ID", json!(project)),
        ("Containers", json!(has.running + has.paused + has.stopped)),
        ("ContainersRunning", json!(has.running)),
        ("ContainersPaused", json!(has.paused)),
        ("ContainersStopped", json!(has.stopped)),
        ("Images", json!(has.images)),
        ("NCPU", json!(fleet.nano_cpus.0 / 1_000_000_000)),
        ("MemTotal", json!(fleet.memory_bytes.0)),
        ("SystemTime", json!(now)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
}

/// What is the same for everybody, in the shape of the version asked for.
fn host_facts(version: RequestedVersion) -> Value {
    let mut facts = newest_facts();
    if let Value::Object(facts) = &mut facts
        && !version.at_least(50)
    {
        facts.extend(BRIDGE_FILTERS.map(|key| (key.to_owned(), json!(true))));
    }
    facts
}

fn newest_facts() -> Value {
    json!({
        "Name": "wharfage",
        "ServerVersion": SERVER_VERSION,
        "OperatingSystem": "Wharfage",
        "OSType": "linux",
        "OSVersion": "",
        "Architecture": std::env::consts::ARCH,
        "KernelVersion": KERNEL,
        "Driver": "overlay2",
        "DriverStatus": [["Backing Filesystem", "extfs"], ["Supports d_type", "true"], ["Native Overlay Diff", "true"]],
        "Plugins": { "Volume": ["local"], "Network": ["bridge", "host", "null"], "Authorization": null, "Log": ["json-file", "none"] },
        // What dockerd counts of itself: here it would be of a process that all tenants share.
        "Debug": false, "NFd": 0, "NGoroutines": 0, "NEventsListener": 0,
        "HttpProxy": "", "HttpsProxy": "", "NoProxy": "",
        // Refused at create.
        "OomKillDisable": false,
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "1",
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": { "InsecureRegistryCIDRs": [], "IndexConfigs": {}, "Mirrors": [] },
        "GenericResources": null,
        "DockerRootDir": "/var/lib/docker",
        "Labels": [],
        "ExperimentalBuild": false,
        "DefaultRuntime": "runc",
        "Swarm": {
            "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "",
            "RemoteManagers": null,
        },
        "LiveRestoreEnabled": true,
        "Isolation": "",
        "InitBinary": "docker-init",
        "ContainerdCommit": { "ID": "" }, "RuncCommit": { "ID": "" }, "InitCommit": { "ID": "" },
        "SecurityOptions": ["name=seccomp,profile=builtin"],
        "ProductLicense": "",
        "CDISpecDirs": [],
        "Warnings": [],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_that_clients_read_are_there() {
        let facts = host_facts(RequestedVersion(version::MAX));
        for key in [
            "OperatingSystem",
            "ServerVersion",
            "OSType",
            "Architecture",
            "SecurityOptions",
            "DefaultRuntime",
            "Swarm",
            "Debug",
        ] {
            assert!(facts.get(key).is_some_and(|value| !value.is_null()), "{key}");
        }
        assert_eq!(facts["Swarm"]["LocalNodeState"], "inactive");
        assert!(facts.get("BridgeNfIptables").is_none(), "1.50 dropped it");
        let old = host_facts(RequestedVersion(version::ApiVersion::one(41)));
        assert_eq!(old["BridgeNfIptables"], true);
    }

    #[test]
    fn a_ping_says_ok_and_is_never_kept_by_a_cache() {
        let response = pong("OK");
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
        assert_eq!(response.headers()["cache-control"], "no-cache, no-store, must-revalidate");
        assert_eq!(response.headers()["swarm"], "inactive");
    }
}
