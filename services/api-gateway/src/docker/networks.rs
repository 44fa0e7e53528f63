//! Networks of a project: its own `bridge`, those its users make, and `host` and `none`, which dockerd
//! shows too. Each reaches over all hosts, whatever its driver is called; hosts and their interfaces
//! do not show.

mod connect;
mod create;
mod remove;
mod subnet;

use std::collections::BTreeMap;

use axum::{
    extract::{Path, State},
    http::StatusCode,
};
use chassis::ids;
use model::{ContainerId, Error, EventKind, MacAddress, NetworkId, ProjectId, Result};
use serde_json::{Value, json};
use store::{NetworkMember, NetworkRecord, ProjectTx};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    body::{DockerResponse, json as reply},
    error::ErrorResponse,
    filters::Filters,
    query::Query,
};
use crate::{Gateway, auth::Project};

pub(crate) fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default()
        .routes(routes!(list))
        .routes(routes!(create::create))
        .routes(routes!(remove::prune))
        .routes(routes!(inspect, remove::remove))
        .routes(routes!(connect::connect))
        .routes(routes!(connect::disconnect))
}

/// A network, predefined ones included.
#[derive(Clone, Debug)]
struct Network {
    id: String,
    name: String,
    driver: String,
    created_at: OffsetDateTime,
    record: Option<NetworkRecord>,
}

impl Network {
    fn own(record: NetworkRecord) -> Self {
        Self {
            id: record.id.to_string(),
            name: record.name.clone(),
            driver: record.driver.clone(),
            created_at: record.created_at,
            record: Some(record),
        }
    }

    /// `host` and `none`: nothing behind them but a name. The id is the project's own, and stays.
    fn predefined(project: ProjectId, name: &str, driver: &'static str, created_at: OffsetDateTime) -> Self {
        let id = hex::encode(ids::sha256(format!("{project}/{name}").as_bytes()));
        Self { id, name: name.to_owned(), driver: driver.to_owned(), created_at, record: None }
    }

    fn is_custom(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.named)
    }

    fn labels(&self) -> BTreeMap<String, String> {
        self.record.as_ref().map(|record| record.labels.clone()).unwrap_or_default()
    }

    fn document(&self) -> Value {
        let record = self.record.as_ref();
        json!({
            "Name": self.name,
            "Id": self.id,
            "Created": self.created_at.format(&Rfc3339).unwrap_or_default(),
            "Scope": "local",
            "Driver": self.driver,
            "EnableIPv4": true,
            "EnableIPv6": false,
            "IPAM": record.map_or_else(|| json!({ "Driver": "default", "Options": null, "Config": null }), ipam),
            "Internal": record.is_some_and(|record| record.internal),
            "Attachable": record.is_some_and(|record| record.attachable),
            "Ingress": false,
            "ConfigFrom": { "Network": "" },
            "ConfigOnly": false,
            "Containers": {},
            "Options": record.map_or_else(|| json!({}), options),
            "Labels": self.labels(),
        })
    }
}

/// What was asked of IPAM, with what was chosen where nothing was asked.
fn ipam(network: &NetworkRecord) -> Value {
    let chosen = json!({ "Subnet": network.subnet, "Gateway": network.gateway });
    let Some(asked) = &network.ipam else {
        return json!({ "Driver": "default", "Options": null, "Config": [chosen] });
    };
    let mut shown = asked.clone();
    if network.chosen {
        shown["Config"][0]["Gateway"] = json!(network.gateway);
    } else {
        shown["Config"] = json!([chosen]);
    }
    shown
}

fn options(network: &NetworkRecord) -> Value {
    if network.named {
        return json!(network.options);
    }
    json!({
        "com.docker.network.bridge.default_bridge": "true",
        "com.docker.network.bridge.enable_icc": "true",
        "com.docker.network.bridge.enable_ip_masquerade": "true",
    })
}

/// A network of the project by id, name or unique prefix of an id.
pub(super) async fn resolve(tx: &mut ProjectTx, reference: &str) -> Result<NetworkRecord> {
    let network = find(all(tx).await?, reference, None)?;
    network
        .record
        .ok_or_else(|| Error::Forbidden(format!("network {} cannot be used by containers here", network.name)))
}

/// The same for the same container and network, and for no other.
pub(super) fn endpoint_id(container: &ContainerId, network: &NetworkId) -> String {
    hex::encode(ids::sha256(format!("{container}/{network}").as_bytes()))
}

/// Adds an event to the project's history; do it last.
async fn record(
    gateway: &Gateway,
    tx: &mut ProjectTx,
    network: &NetworkRecord,
    action: &str,
    container: Option<&ContainerId>,
) -> Result<()> {
    let mut attributes =
        BTreeMap::from([("name".to_owned(), network.name.clone()), ("type".to_owned(), network.driver.clone())]);
    attributes.extend(container.map(|container| ("container".to_owned(), container.to_string())));
    tx.append_event(EventKind::Network, action, network.id.as_str(), &attributes, gateway.clock.now()).await?;
    Ok(())
}

async fn all(tx: &mut ProjectTx) -> Result<Vec<Network>> {
    let own = tx.networks().await?;
    let born = own.first().map_or(OffsetDateTime::UNIX_EPOCH, |network| network.created_at);
    let project = tx.project();
    let mut networks: Vec<Network> = own.into_iter().map(Network::own).collect();
    networks.push(Network::predefined(project, "host", "host", born));
    networks.push(Network::predefined(project, "none", "null", born));
    Ok(networks)
}

/// List networks
#[utoipa::path(get, path = "/networks", operation_id = "NetworkList", tag = "Network",
    params(("filters" = Option<String>, Query, description = "JSON: dangling, driver, id, label, name, scope, type")),
    responses((status = 200, description = "Networks, as Docker describes them", body = Vec<Object>),
        (status = 400, description = "A filter is wrong", body = ErrorResponse)))]
async fn list(State(gateway): State<Gateway>, Project(scope): Project, query: Query) -> DockerResponse {
    let known = ["dangling", "driver", "id", "label", "label!", "name", "scope", "type"];
    let filters = Filters::parse(query.text("filters"), &known)?;
    let custom = match filters.values("type") {
        [] => None,
        [one] if one == "custom" => Some(true),
        [one] if one == "builtin" => Some(false),
        values => return Err(Error::InvalidArgument(format!("invalid filter 'type={values:?}'")).into()),
    };
    let dangling = filters.boolean("dangling")?;
    let mut tx = gateway.store.project_tx(&scope).await?;
    let networks = all(&mut tx).await?;
    let is_dangling = |network: &Network| network.is_custom() && network.record.as_ref().is_some_and(|r| !r.in_use);
    let fits = |network: &&Network| {
        custom.is_none_or(|custom| custom == network.is_custom())
            && dangling.is_none_or(|dangling| dangling == is_dangling(network))
            && filters.labels(&network.labels())
            && filters.any("driver", |driver| driver == network.driver)
            && filters.any("id", |id| network.id.starts_with(id))
            && filters.any("name", |name| network.name.contains(name))
            && filters.any("scope", |scope| scope == "local")
    };
    let shown: Vec<Value> = networks.iter().filter(fits).map(Network::document).collect();
    reply(StatusCode::OK, &shown)
}

/// Inspect a network
#[utoipa::path(get, path = "/networks/{id}", operation_id = "NetworkInspect", tag = "Network",
    params(("id" = String, Path, description = "Id, name, or unique prefix of an id")),
    responses((status = 200, description = "The network, as Docker describes it", body = Object),
        (status = 404, description = "No such network", body = ErrorResponse)))]
async fn inspect(
    State(gateway): State<Gateway>,
    Project(scope): Project,
    Path(id): Path<String>,
    query: Query,
) -> DockerResponse {
    let mut tx = gateway.store.project_tx(&scope).await?;
    let network = find(all(&mut tx).await?, &id, query.text("scope"))?;
    let mut document = network.document();
    if let Some(record) = &network.record {
        let members = tx.network_members(&record.id).await?;
        let members = members.into_iter().map(|one| (one.container.to_string(), member(record, &one)));
        document["Containers"] = Value::Object(members.collect());
    }
    reply(StatusCode::OK, &document)
}

/// Full id, then full name, then unique prefix.
fn find(networks: Vec<Network>, written: &str, scope: Option<&str>) -> Result<Network> {
    let missing = || Error::NotFound(format!("network {written} not found"));
    if scope.is_some_and(|scope| scope != "local") || written.is_empty() {
        return Err(missing());
    }
    if let Some(exact) =
        networks.iter().find(|n| n.id == written).or_else(|| networks.iter().find(|n| n.name == written))
    {
        return Ok(exact.clone());
    }
    let mut prefixed = networks.into_iter().filter(|network| network.id.starts_with(written));
    match (prefixed.next(), prefixed.next()) {
        (Some(network), None) => Ok(network),
        (Some(_), Some(_)) => {
            Err(Error::InvalidArgument(format!("network {written} is ambiguous (2 matches found based on ID prefix)")))
        }
        (None, _) => Err(missing()),
    }
}

fn member(network: &NetworkRecord, member: &NetworkMember) -> Value {
    json!({
        "Name": member.name,
        "EndpointID": endpoint_id(&member.container, &network.id),
        "MacAddress": member.mac.unwrap_or_else(|| MacAddress::of(member.ip)).to_string(),
        "IPv4Address": format!("{}/{}", member.ip, network.subnet.prefix_len()),
        "IPv6Address": "",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks() -> Vec<Network> {
        let project = ProjectId(uuid::Uuid::nil());
        ["host", "none"].map(|name| Network::predefined(project, name, "null", OffsetDateTime::UNIX_EPOCH)).to_vec()
    }

    #[test]
    fn a_network_is_found_by_id_name_or_unique_prefix() {
        let id = networks()[0].id.clone();
        assert_eq!(find(networks(), &id, None).expect("by id").name, "host");
        assert_eq!(find(networks(), "none", None).expect("by name").name, "none");
        assert_eq!(find(networks(), &id[..12], Some("local")).expect("by prefix").name, "host");
        assert_eq!(find(networks(), "nope", None).expect_err("missing").to_string(), "network nope not found");
        assert!(find(networks(), "host", Some("swarm")).is_err() && find(networks(), "", None).is_err());
    }

    #[test]
    fn predefined_networks_of_two_projects_share_no_id() {
        let other = Network::predefined(ProjectId(uuid::Uuid::max()), "host", "host", OffsetDateTime::UNIX_EPOCH);
        assert_ne!(other.id, networks()[0].id);
    }
}
