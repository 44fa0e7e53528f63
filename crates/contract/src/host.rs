//! Scheduler and hosts. A host joins once with a token and a signing request, and from then on is
//! who its certificate says (common name `host:<uuid>`). It sees only its own plan and reports only
//! its own progress.
//!
//! The plan is a stream of [`HostDelta`] lines. The first line after connecting is `full`; every
//! further line carries only what changed, with the generation reached. A host refuses a
//! generation older than the one it has.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use model::{
    ContainerId, ContainerName, ContainerSpec, Desired, Digest, Endpoint, ExecId, HostCapacity, HostId,
    LayerDescriptor, NetworkId, Observed, ProjectId, PublishedPort, VolumeId,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::net::NetName;

/// `POST`, server-authenticated TLS only: [`JoinRequest`] in, [`JoinReply`] out.
pub const JOIN: &str = "/hosts/v1/join";
/// `GET` with [`PlanQuery`], host certificate: endless NDJSON stream of [`HostDelta`].
pub const PLAN: &str = "/hosts/v1/self/plan";
/// `POST`, host certificate: [`HostReport`] in, 204 out once it is durable. Doubles as the heartbeat.
pub const REPORT: &str = "/hosts/v1/self/report";

/// How often a host reports at least, so that it counts as ready.
pub const HEARTBEAT_INTERVAL_MS: u64 = 3_000;
/// How long after the last report a host counts as down.
pub const HOST_LATE_AFTER_MS: u64 = 12_000;

/// User ids, and as many group ids, that a project has for itself.
pub const PROJECT_IDS: u32 = 65_536;

/// A host asks to be one.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JoinRequest {
    /// One-time join token an operator made.
    pub token: String,
    /// PEM certificate signing request. Subject and extensions in it are ignored; the scheduler decides them.
    pub csr_pem: String,
    /// Name for people: `node-1`.
    pub name: String,
    /// Address other hosts and the gateway reach it at.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Port of the node-agent's API.
    pub agent_port: u16,
    /// What it can give.
    pub capacity: HostCapacity,
}

/// The host's identity.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JoinReply {
    /// Its id.
    pub host: HostId,
    /// Its certificate, PEM.
    pub certificate_pem: String,
    /// The authority it shall trust, PEM.
    pub ca_pem: String,
}

/// What a host says of itself when it asks for its plan. All of it may be absent (an older agent).
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PlanQuery {
    /// Which life of the agent asks; for the log.
    pub incarnation: String,
    /// Where the gateway and other hosts reach it now.
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// Port of its agent's API.
    pub agent_port: Option<u16>,
}

/// What changed in what is wanted of a host.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct HostDelta {
    /// The generation reached when this is applied.
    pub generation: i64,
    /// `true`: `containers` is everything; whatever else is on the host is an orphan.
    #[serde(default)]
    pub full: bool,
    /// New or changed containers, whole. A removed one comes with [`Desired::Removed`].
    #[serde(default)]
    pub containers: Vec<PlannedContainer>,
    /// Every network those containers are on, and every network of a full plan.
    #[serde(default)]
    pub networks: Vec<PlannedNetwork>,
    /// Volumes that shall go, and every volume of a full plan. A volume comes into being with the
    /// first container that has it.
    #[serde(default)]
    pub volumes: Vec<PlannedVolume>,
}

/// A volume as a host needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedVolume {
    /// Id.
    pub id: VolumeId,
    /// Its project.
    pub project: ProjectId,
    /// Its data goes, once no container of this host has it any more.
    pub removed: bool,
}

/// One container as a host needs it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PlannedContainer {
    /// Id.
    pub id: ContainerId,
    /// Project, for its network and uid range.
    pub project: ProjectId,
    /// First of the project's [`PROJECT_IDS`] user and group ids on every host. `None` only from a
    /// scheduler older than this field; such a container runs with the host's own ids.
    #[serde(default)]
    pub uid_base: Option<u32>,
    /// Current name; a rename changes nothing else.
    pub name: ContainerName,
    /// What is wanted now.
    pub desired: Desired,
    /// The spec. After create only `resources` and `restart` change; the limits of a run that lives
    /// change with them.
    pub spec: ContainerSpec,
    /// The image, by digest.
    pub image: PlannedImage,
    /// Its places on networks, the preferred way out first; none for `--network none`.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// Ports published for the wanted run.
    #[serde(default)]
    pub ports: Vec<PublishedPort>,
    /// What its links (`spec.links`) put into `/etc/hosts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub linked: Vec<HostsLine>,
}

/// A line of `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostsLine {
    /// Whose.
    #[schema(value_type = String)]
    pub ip: Ipv4Addr,
    /// Its names; one may be there twice.
    pub names: Vec<String>,
}

/// An image as a host needs it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PlannedImage {
    /// Digest of the image config: the image's id.
    pub id: Digest,
    /// Lowest first.
    pub layers: Vec<LayerDescriptor>,
}

/// A network as a host needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedNetwork {
    /// Id.
    pub id: NetworkId,
    /// Its project.
    pub project: ProjectId,
    /// Segment number, unique in the fleet; names the bridge and is the VXLAN VNI.
    pub vni: u32,
    /// Subnet, unique in the fleet.
    #[schema(value_type = String)]
    pub subnet: Ipv4Net,
    /// The gateway's address, the same on every host; the first of the subnet if absent.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub gateway: Option<Ipv4Addr>,
    /// It leads nowhere but to itself.
    #[serde(default)]
    pub internal: bool,
    /// Addresses of the other hosts that have endpoints on it.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub peers: Vec<IpAddr>,
    /// Who answers to which name on it, on all hosts; `None` where names are not served.
    #[serde(default)]
    pub names: Option<Vec<NetName>>,
}

/// What a host has to say.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct HostReport {
    /// The generation it has applied.
    pub generation: i64,
    /// What it can give, as probed now.
    pub capacity: HostCapacity,
    /// Containers that moved since the last report that was acknowledged (all of them after a reconnect).
    #[serde(default)]
    pub containers: Vec<ContainerReport>,
    /// Volumes that were to go and of which nothing is left here.
    #[serde(default)]
    pub removed_volumes: Vec<VolumeId>,
    /// Execs that ended and of which that has not been acknowledged, at most [`EXECS_MAX`].
    #[serde(default)]
    pub execs: Vec<ExecReport>,
    /// The OCI runtimes it has; `None` from an agent that is older than this field, which has runc.
    #[serde(default)]
    pub runtimes: Option<Vec<HostRuntime>>,
}

/// An OCI runtime of a host, as the host found it when its agent started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostRuntime {
    /// `runc`, `crun`, `youki`, `runsc`.
    pub name: String,
    /// Why it is installed and yet not offered; absent where it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// Most execs of one report.
pub const EXECS_MAX: usize = 1_000;

/// How an exec ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExecReport {
    /// Which.
    pub id: ExecId,
    /// Its container.
    pub container: ContainerId,
    /// Exit status; 126 or 127 if it could not be started.
    pub exit_code: i32,
    /// It ran. What never ran does not end, and nothing is told of it.
    pub ran: bool,
}

/// How far one container got.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ContainerReport {
    /// Which.
    pub id: ContainerId,
    /// How far.
    pub observed: Observed,
}
