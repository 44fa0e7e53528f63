//! One line of `GET /containers/json`, written straight from the record.

use std::{borrow::Cow, collections::BTreeMap};

use contract::agent::ContainerSize;
use model::{ContainerId, ContainerSpec, Digest};
use serde::Serialize;
use serde_json::Value;
use store::ContainerRecord;
use time::OffsetDateTime;

use super::{endpoints::Networks, shown_address};
use crate::docker::{
    containers::{state, volumes},
    version::RequestedVersion,
};

/// The line.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Line<'a> {
    id: &'a ContainerId,
    names: [String; 1],
    image: &'a str,
    #[serde(rename = "ImageID")]
    image_id: &'a Digest,
    command: String,
    created: i64,
    ports: Vec<Port<'a>>,
    /// Go leaves out a zero.
    #[serde(skip_serializing_if = "is_zero")]
    size_rw: u64,
    #[serde(skip_serializing_if = "is_zero")]
    size_root_fs: u64,
    labels: &'a BTreeMap<String, String>,
    state: &'static str,
    status: String,
    host_config: HostConfig<'a>,
    network_settings: NetworkSettings<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<Health>,
    mounts: Vec<Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig<'a> {
    network_mode: Cow<'a, str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings<'a> {
    networks: Networks<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Health {
    status: &'static str,
    failing_streak: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Port<'a> {
    #[serde(rename = "IP", skip_serializing_if = "Option::is_none")]
    ip: Option<String>,
    private_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_port: Option<u16>,
    r#type: &'a str,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

impl<'a> Line<'a> {
    /// Of a container, at this moment.
    pub(crate) fn of(container: &'a ContainerRecord, version: RequestedVersion, now: OffsetDateTime) -> Self {
        let state = state::of(container);
        let running = state.is_alive();
        let streak = || state::health(container).map_or(0, |(_, health)| health.failing_streak);
        Self {
            id: &container.id,
            names: [format!("/{}", container.name)],
            image: &container.spec.image,
            image_id: &container.image_id,
            command: command_line(&container.spec),
            created: container.created_at.unix_timestamp(),
            ports: if running { ports(container) } else { Vec::new() },
            size_rw: 0,
            size_root_fs: 0,
            labels: &container.spec.labels,
            state: state.as_str(),
            status: state::status_text(container, now),
            host_config: HostConfig { network_mode: network_mode(container) },
            network_settings: NetworkSettings { networks: Networks::of(container, running) },
            health: version
                .at_least(52)
                .then(|| Health { status: state::health_word(container), failing_streak: streak() }),
            mounts: volumes::mount_points(&container.spec),
        }
    }

    /// With what its host measured.
    pub(crate) fn with_size(self, size: Option<&ContainerSize>) -> Self {
        let Some(size) = size else { return self };
        Self { size_rw: size.rw_bytes, size_root_fs: size.rootfs_bytes, ..self }
    }
}

/// Whose network it lives in, or that of the first link; `none` or the default one otherwise.
fn network_mode(container: &ContainerRecord) -> Cow<'_, str> {
    if let Some(other) = &container.spec.network_of {
        return format!("container:{other}").into();
    }
    let first = container.endpoints.iter().min_by_key(|e| e.interface);
    let otherwise = if container.spec.network_none { "none" } else { "bridge" };
    first.map_or(otherwise, |e| e.network_name.as_str()).into()
}

fn ports(container: &ContainerRecord) -> Vec<Port<'_>> {
    if container.spec.network_of.is_some() {
        return Vec::new();
    }
    let published = container.ports.iter().map(|port| Port {
        ip: Some(shown_address(port)),
        private_port: port.container_port,
        public_port: Some(port.host_port),
        r#type: port.protocol.as_str(),
    });
    let is_published = |number: u16, protocol: &str| {
        container.ports.iter().any(|p| p.container_port == number && p.protocol.as_str() == protocol)
    };
    let exposed = container.spec.exposed_ports.iter().filter_map(|written| {
        let (number, protocol) = written.split_once('/')?;
        let private_port = number.parse().ok()?;
        let port = Port { ip: None, private_port, public_port: None, r#type: protocol };
        (!is_published(private_port, protocol)).then_some(port)
    });
    published.chain(exposed).collect()
}

/// Program and arguments in one line; arguments with a blank in quotes.
fn command_line(spec: &ContainerSpec) -> String {
    let (path, args) = state::program(spec);
    let mut line = path.to_owned();
    for arg in args {
        line.push(' ');
        if arg.contains(' ') {
            line.extend(["'", arg, "'"]);
        } else {
            line.push_str(arg);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::docker::version::MAX;

    #[test]
    fn a_size_of_zero_is_left_out() {
        let container = crate::docker::containers::render::tests::running();
        let line = Line::of(&container, RequestedVersion(MAX), container.created_at);
        let size = ContainerSize { id: container.id.clone(), rw_bytes: 0, rootfs_bytes: 7 };
        let shown = json!(line.with_size(Some(&size)));
        assert_eq!((shown.get("SizeRw"), &shown["SizeRootFs"]), (None, &json!(7)));
    }
}
