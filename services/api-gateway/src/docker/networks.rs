//! Networks of a project, read-only so far: its own `bridge`, and `host` and `none`, which dockerd
//! shows too. The subnet is the project's; hosts and their interfaces do not show.

use axum::{
    extract::{Path, State},
    http::StatusCode,
};
use chassis::ids;
use model::{Error, MacAddress, ProjectId, Result};
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
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(inspect))
}

/// A network, predefined ones included.
#[derive(Clone, Debug)]
struct Network {
    id: String,
    name: String,
    driver: &'static str,
    created_at: OffsetDateTime,
    record: Option<NetworkRecord>,
}

impl Network {
    fn own(record: NetworkRecord) -> Self {
        Self {
            id: record.id.to_string(),
            name: record.name.clone(),
            driver: "bridge",
            created_at: record.created_at,
            record: Some(record),
        }
    }

    /// `host` and `none`: nothing behind them but a name. The id is the project's own, and stays.
    fn predefined(project: ProjectId, name: &str, driver: &'static str, created_at: OffsetDateTime) -> Self {
        let id = hex::encode(ids::sha256(format!("{project}/{name}").as_bytes()));
        Self { id, name: name.to_owned(), driver, created_at, record: None }
    }

    fn document(&self) -> Value {
        let ipam =
            self.record.as_ref().map(|network| json!([{ "Subnet": network.subnet, "Gateway": network.gateway() }]));
        let options = match self.record {
            Some(_) => json!({
                "com.docker.network.bridge.default_bridge": "true",
                "com.docker.network.bridge.enable_icc": "true",
                "com.docker.network.bridge.enable_ip_masquerade": "true",
            }),
            None => json!({}),
        };
        json!({
            "Name": self.name,
            "Id": self.id,
            "Created": self.created_at.format(&Rfc3339).unwrap_or_default(),
            "Scope": "local",
            "Driver": self.driver,
            "EnableIPv4": true,
            "EnableIPv6": false,
            "IPAM": { "Driver": "default", "Options": null, "Config": ipam },
            "Internal": false,
            "Attachable": false,
            "Ingress": false,
            "ConfigFrom": { "Network": "" },
            "ConfigOnly": false,
            "Containers": {},
            "Options": options,
            "Labels": {},
        })
    }
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
    // All there is so far is predefined, in use by definition, and has no labels.
    let none_fit = custom == Some(true) || dangling == Some(true) || filters.has("label");
    let fits = |network: &&Network| {
        !none_fit
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
        "EndpointID": member.container,
        "MacAddress": MacAddress::of(member.ip).to_string(),
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
