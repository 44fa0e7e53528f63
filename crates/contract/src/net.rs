//! node-agent to netd, over a unix socket of the host. netd knows nothing of tenants, schedulers or
//! credentials: it holds one [`NetPlan`] and makes the kernel match it. The agent sends the whole
//! plan when it connects and deltas afterwards; the answer comes when the kernel has it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use ipnet::Ipv4Net;
use model::{ContainerId, MacAddress, NetworkId, PublishedPort};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `PUT` [`NetPlan`], answer [`NetStatus`]: replaces the plan; whatever is not in it is removed.
pub const PLAN: &str = "/v1/plan";
/// `POST` [`NetDelta`], answer [`NetStatus`].
pub const DELTA: &str = "/v1/delta";

/// Everything netd shall have made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetPlan {
    /// Networks with at least one endpoint here.
    pub networks: BTreeMap<String, NetNetwork>,
    /// Endpoints, by container id.
    pub endpoints: BTreeMap<String, NetEndpoint>,
}

/// One network on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetNetwork {
    /// Id (the map's key too).
    pub id: NetworkId,
    /// Segment number: bridge `wb<vni>` (`wbi<vni>` if internal), tunnel `wx<vni>`, VXLAN VNI.
    pub vni: u32,
    /// Subnet.
    #[schema(value_type = String)]
    pub subnet: Ipv4Net,
    /// The gateway's address, on the bridge of every host; the first of the subnet if absent.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub gateway: Option<Ipv4Addr>,
    /// It leads nowhere: no way out of it, and no published port into it.
    #[serde(default)]
    pub internal: bool,
    /// Other hosts on this network: the tunnel's flood list.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub peers: Vec<IpAddr>,
    /// Who answers to which name on it, on every host. `None`: names are not served on it.
    #[serde(default)]
    pub names: Option<Vec<NetName>>,
}

/// A name on a network. One name may have several addresses, one address several names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetName {
    /// In lower case, without a dot at its end.
    pub name: String,
    /// Who answers to it.
    #[schema(value_type = String)]
    pub ip: Ipv4Addr,
}

/// One container's sandbox: a network namespace with `lo` and a link for each attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetEndpoint {
    /// Container (the map's key too).
    pub container: ContainerId,
    /// Networks and addresses; none makes a namespace with `lo` alone. The first one that leads
    /// outside is the default route, and where published ports arrive.
    #[serde(default)]
    pub attachments: Vec<NetAttachment>,
    /// Ports published now.
    #[serde(default)]
    pub ports: Vec<PublishedPort>,
    /// File of the user namespace that shall own this one, so that the container's root rules over it;
    /// the host's own without. Heeded when the namespace is made, not afterwards.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub owner: Option<PathBuf>,
    /// Where its questions for other names go, if a network of it serves names.
    #[serde(default)]
    pub resolvers: Vec<NetResolver>,
}

/// A name server that is asked what no network of the container knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetResolver {
    /// Its address, port 53.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// It is the host's own and asked from the host. Otherwise it is the tenant's choice, and asked
    /// from inside the sandbox, where the firewall has its say.
    #[serde(default)]
    pub from_host: bool,
}

/// Where an endpoint is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetAttachment {
    /// The network.
    pub network: NetworkId,
    /// Address.
    #[schema(value_type = String)]
    pub ip: Ipv4Addr,
    /// Number of the link: `eth<n>`.
    #[serde(default)]
    pub interface: u8,
    /// The link's own address; derived from `ip` without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub mac: Option<MacAddress>,
    /// Names that only this container sees here, in lower case, and the names they stand for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub links: BTreeMap<String, String>,
}

/// A change to the plan, applied as one.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct NetDelta {
    /// Networks to add or replace.
    #[serde(default)]
    pub networks: Vec<NetNetwork>,
    /// Endpoints to add or replace.
    #[serde(default)]
    pub endpoints: Vec<NetEndpoint>,
    /// Containers whose endpoints go. A network with no endpoint left goes with the last one.
    #[serde(default)]
    pub remove_endpoints: Vec<ContainerId>,
    /// Those of them in whose namespace somebody else is: it stays with that one, and its links go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<ContainerId>,
}

/// What the kernel has after applying.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct NetStatus {
    /// Namespace path of each endpoint the request named (all of them for a whole plan), by container id.
    pub netns: BTreeMap<String, String>,
    /// What could not be made, by container or network id, and why. Everything else is in place.
    pub failed: BTreeMap<String, String>,
}
