//! Containers as the gateway reads and wants them. What is wanted is written here and nowhere else;
//! where and how far come from the scheduler's side and are only read.
//!
//! A reference is resolved inside one project only: full id, then name, then unique id prefix.

mod change;
mod find;
mod kept;
mod list;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use ipnet::Ipv4Net;
use model::{
    ContainerId, ContainerName, ContainerSpec, Desired, Digest, Error, HostId, MacAddress, NetworkId, Observed,
    PublishedPort, Result,
};
use serde::Deserialize;
use time::OffsetDateTime;

pub use change::{ChangedLimits, NewContainer};
pub(crate) use find::behind_prefix;
pub(crate) use kept::KeptRecords;

/// A container with everything needed to show it or to reach it: one query reads it all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRecord {
    /// Its id.
    pub id: ContainerId,
    /// Its current name.
    pub name: ContainerName,
    /// Digest of its image's config.
    pub image_id: Digest,
    /// What it was created with.
    pub spec: Arc<ContainerSpec>,
    /// When it was created.
    pub created_at: OffsetDateTime,
    /// What the user wants now.
    pub desired: Desired,
    /// The last start's number, whatever is wanted now.
    pub run: u32,
    /// Where it is, once placed.
    pub host: Option<HostAddress>,
    /// How far it got.
    pub observed: Observed,
    /// Its places on networks, the preferred way out first.
    pub endpoints: Vec<EndpointRecord>,
    /// Ports published now.
    pub ports: Vec<PublishedPort>,
    /// When nothing of it was left.
    pub removed_at: Option<OffsetDateTime>,
}

/// Where a host's agent answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAddress {
    /// The host.
    pub id: HostId,
    /// Its address.
    pub address: IpAddr,
    /// Port of its agent.
    pub agent_port: u16,
    /// When it last reported.
    pub last_seen_at: Option<OffsetDateTime>,
}

/// An endpoint with what is shown of its network.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct EndpointRecord {
    /// The network.
    pub network: NetworkId,
    /// Its name.
    pub network_name: String,
    /// Its driver.
    pub driver: String,
    /// Its subnet.
    pub subnet: Ipv4Net,
    /// Its gateway.
    pub gateway: Ipv4Addr,
    /// It leads nowhere.
    pub internal: bool,
    /// Names are served on it: it is not the project's own bridge.
    pub named: bool,
    /// The container's address.
    pub ip: Ipv4Addr,
    /// Number of the link in the container.
    pub interface: u8,
    /// Other names of the container there.
    pub aliases: Vec<String>,
    /// The user chose the address.
    pub fixed_ip: bool,
    /// Preference of its way out.
    pub gw_priority: i32,
    /// The address of its link, if the user chose it.
    pub mac: Option<MacAddress>,
    /// `other:alias`: names that it alone sees there.
    pub links: Vec<String>,
}

/// What somebody who waits for a container looks at again and again; no spec in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerProgress {
    /// What is wanted now.
    pub desired: Desired,
    /// How far it got.
    pub observed: Observed,
    /// When its host last reported; `None` if it is on no host.
    pub host_seen_at: Option<OffsetDateTime>,
    /// Nothing is left of it.
    pub removed: bool,
}

/// dockerd's text for a reference that names nothing here.
fn no_such_container(reference: &str) -> Error {
    Error::NotFound(format!("No such container: {reference}"))
}

/// The columns that say what is wanted, as the value they stand for.
pub(crate) fn desired(state: &str, run: i32, signal: String, timeout_s: i64) -> Result<Desired> {
    let run = unsigned(run)?;
    match state {
        "created" => Ok(Desired::Created),
        "running" => Ok(Desired::Running { run }),
        "stopped" => Ok(Desired::Stopped { run, signal, timeout_s }),
        "removed" => Ok(Desired::Removed),
        other => Err(Error::Internal(format!("unknown desired state {other:?}"))),
    }
}

fn unsigned(n: i32) -> Result<u32> {
    u32::try_from(n).map_err(|_| Error::Internal(format!("negative count {n} in a container's row")))
}
