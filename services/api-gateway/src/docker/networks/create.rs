//! `POST /networks/create`. A network is a row: hosts hear of it with the first container on it.

use std::collections::BTreeMap;

use axum::{extract::State, http::StatusCode};
use chassis::ids;
use contract::wake::Topic;
use model::{Error, NetworkId, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::NewNetwork;
use utoipa::ToSchema;

use super::{record, resolve, subnet};
use crate::{
    Gateway,
    auth::Project,
    docker::{
        body::{DockerResponse, JsonBody, json as reply},
        containers::body::typed,
        error::ErrorResponse,
    },
};

/// Bytes of all names and values of labels and options.
const TEXT_BYTES_MAX: usize = 64 * 1024;
const NAME_BYTES_MAX: usize = 128;
const PREDEFINED: [&str; 4] = ["bridge", "host", "none", "default"];

/// What create takes.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct NetworkCreateBody {
    name: String,
    driver: String,
    scope: String,
    #[serde(rename = "EnableIPv4")]
    enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: bool,
    internal: bool,
    attachable: bool,
    ingress: bool,
    config_only: bool,
    config_from: ConfigFrom,
    #[serde(rename = "IPAM")]
    ipam: Option<Ipam>,
    options: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, rename_all = "PascalCase")]
struct ConfigFrom {
    network: String,
}

/// Where addresses come from.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Ipam {
    pub(super) driver: String,
    pub(super) options: Option<BTreeMap<String, String>>,
    pub(super) config: Vec<IpamConfig>,
}

/// One subnet.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct IpamConfig {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) subnet: String,
    #[serde(rename = "IPRange", skip_serializing_if = "String::is_empty")]
    pub(super) ip_range: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) gateway: String,
    #[serde(alias = "AuxAddress", skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) auxiliary_addresses: BTreeMap<String, String>,
}

/// What create answers.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NetworkCreateReply {
    /// Id of the new network.
    id: String,
    /// What the user should know.
    warning: String,
}

/// Create a network
#[utoipa::path(post, path = "/networks/create", operation_id = "NetworkCreate", tag = "Network",
    request_body = NetworkCreateBody,
    responses((status = 201, description = "Made", body = NetworkCreateReply),
        (status = 400, description = "A field is wrong", body = ErrorResponse),
        (status = 403, description = "Not the tenant's to ask for, or the subnet is in use", body = ErrorResponse),
        (status = 404, description = "No such driver", body = ErrorResponse),
        (status = 409, description = "The name is taken", body = ErrorResponse),
        (status = 501, description = "A field asks for something that is not built yet", body = ErrorResponse)))]
pub(crate) async fn create(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    JsonBody(body): JsonBody<Value>,
) -> DockerResponse {
    let body: NetworkCreateBody = typed(body.unwrap_or_else(|| json!({})))?;
    let driver = check(&body)?;
    let mut warnings = Vec::new();
    check_options(&body.options, &mut warnings)?;
    let subnet = body.ipam.as_ref().map(subnet::chosen).transpose()?.flatten();
    let ipam = body.ipam.as_ref().map(|ipam| shown(ipam, subnet.is_some())).transpose()?;
    let id = NetworkId::from_bytes(ids::random_hex_id());
    let mut tx = gateway.store.project_tx(&scope).await?;
    let new = NewNetwork {
        id: &id,
        name: &body.name,
        driver,
        internal: body.internal,
        attachable: body.attachable,
        labels: &body.labels,
        options: &body.options,
        ipam: ipam.as_ref(),
        subnet,
        created_at: gateway.clock.now(),
    };
    tx.create_network(&new).await?;
    let made = resolve(&mut tx, id.as_str()).await?;
    record(&gateway, &mut tx, &made, "create", None).await?;
    tx.commit().await?;
    gateway.bus.publish(&Topic::Project(scope.project()));
    reply(StatusCode::CREATED, &NetworkCreateReply { id: id.to_string(), warning: warnings.join("; ") })
}

/// Refuses by name what cannot be; the driver's name if all can.
fn check(body: &NetworkCreateBody) -> Result<&str> {
    let invalid = |text: &str| Err(Error::InvalidArgument(text.to_owned()));
    let not_built = |what: &str| Err(Error::NotImplemented(format!("{what} is not built yet on Wharfage")));
    let name = body.name.as_str();
    if PREDEFINED.contains(&name) {
        return Err(Error::Forbidden(format!("operation is not permitted on predefined {name} network ")));
    }
    if name.trim().is_empty() || name.len() > NAME_BYTES_MAX || name.contains(|c: char| c.is_control() || c == '/') {
        return invalid("invalid network name: it is empty, too long, or has a character that is not allowed");
    }
    let text = body.labels.iter().chain(&body.options).map(|(key, value)| key.len() + value.len()).sum::<usize>();
    if text > TEXT_BYTES_MAX {
        return invalid("labels and options together are larger than 64 KiB");
    }
    if !matches!(body.scope.as_str(), "" | "local") {
        return invalid("Scope: networks of a project are of scope local, and reach over all hosts");
    }
    if body.enable_ipv6 || body.enable_ipv4 == Some(false) {
        return not_built("EnableIPv6 (networks are IPv4)");
    }
    if body.ingress {
        return not_built("Ingress");
    }
    if body.config_only || !body.config_from.network.is_empty() {
        return not_built("ConfigOnly, ConfigFrom");
    }
    if let Some(ipam) = &body.ipam {
        if !matches!(ipam.driver.as_str(), "" | "default") {
            return Err(Error::NotFound(format!(
                "could not find a valid ipam driver: plugin {:?} not found",
                ipam.driver
            )));
        }
        if ipam.options.as_ref().is_some_and(|options| !options.is_empty()) {
            return invalid("IPAM.Options: the default driver has none");
        }
    }
    match body.driver.as_str() {
        "" | "bridge" | "default" => Ok("bridge"),
        "overlay" => Ok("overlay"),
        "macvlan" | "ipvlan" | "ipvlan-l2" => Err(Error::Forbidden(format!(
            "driver {:?}: links of a host are not available on Wharfage; use bridge or overlay",
            body.driver
        ))),
        "host" | "null" => Err(Error::Forbidden(format!("only one instance of {:?} network is allowed", body.driver))),
        other => {
            Err(Error::NotFound(format!("could not resolve driver {other} in registry: plugin {other:?} not found")))
        }
    }
}

fn check_options(options: &BTreeMap<String, String>, warnings: &mut Vec<String>) -> Result<()> {
    for (option, value) in options {
        let is = |wanted: bool| value.parse::<bool>() == Ok(wanted);
        match option.as_str() {
            "com.docker.network.bridge.enable_icc" | "com.docker.network.bridge.enable_ip_masquerade" if is(true) => {}
            "com.docker.network.bridge.default_bridge" if is(false) => {}
            "com.docker.network.bridge.name" | "com.docker.network.container_iface_prefix" => {
                return Err(Error::Forbidden(format!("option {option}: links are named by Wharfage")));
            }
            "com.docker.network.bridge.enable_icc"
            | "com.docker.network.bridge.enable_ip_masquerade"
            | "com.docker.network.bridge.default_bridge"
            | "com.docker.network.bridge.host_binding_ipv4"
            | "com.docker.network.bridge.gateway_mode_ipv4"
            | "com.docker.network.driver.mtu"
            | "encrypted" => {
                return Err(Error::NotImplemented(format!("option {option}={value} is not built yet on Wharfage")));
            }
            other => warnings.push(format!("option {other} is not known and has no effect")),
        }
    }
    Ok(())
}

/// What inspect shows of it again.
fn shown(ipam: &Ipam, chosen: bool) -> Result<Value> {
    let ipam = Ipam { driver: "default".into(), ..ipam.clone() };
    let mut shown = serde_json::to_value(ipam).map_err(Error::internal)?;
    if !chosen {
        shown["Config"] = json!([]);
    }
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(document: Value) -> NetworkCreateBody {
        typed(document).expect("parses")
    }

    #[test]
    fn what_would_be_a_hosts_is_refused_by_name() {
        for (driver, text) in [("macvlan", "links of a host"), ("host", "only one instance"), ("weave", "not found")] {
            let error = check(&body(json!({"Name": "n", "Driver": driver}))).expect_err("refused").to_string();
            assert!(error.contains(text), "{error}");
        }
        assert_eq!(check(&body(json!({"Name": "n", "Driver": "overlay"}))), Ok("overlay"));
        assert_eq!(check(&body(json!({"Name": "n"}))), Ok("bridge"));
        let error = check(&body(json!({"Name": "bridge"}))).expect_err("refused");
        assert_eq!(error.to_string(), "operation is not permitted on predefined bridge network ");
    }

    #[test]
    fn options_are_honoured_refused_or_warned_of() {
        let check = |key: &str, value: &str| {
            let mut warnings = Vec::new();
            check_options(&BTreeMap::from([(key.into(), value.into())]), &mut warnings).map(|()| warnings)
        };
        assert_eq!(check("com.docker.network.bridge.enable_icc", "true"), Ok(Vec::new()));
        assert!(matches!(check("com.docker.network.bridge.enable_icc", "false"), Err(Error::NotImplemented(_))));
        assert!(matches!(check("com.docker.network.bridge.name", "br0"), Err(Error::Forbidden(_))));
        assert_eq!(check("com.docker.network.driver.foo", "bar").expect("accepted").len(), 1);
    }
}
