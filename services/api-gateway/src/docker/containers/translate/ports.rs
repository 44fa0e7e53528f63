//! Exposed and published ports.

use std::collections::{BTreeMap, BTreeSet};

use model::{PortBinding, PortProtocol, Result};

use super::{super::host_config, forbidden, invalid, not_built};

/// Ports below are services of the hosts themselves.
const LOWEST_HOST_PORT: u16 = 1024;
/// Ports one container may publish.
const BINDINGS_MAX: usize = 256;

/// `80`, `80/tcp` as a number and a transport.
pub(crate) fn port(written: &str) -> Result<(u16, PortProtocol)> {
    let (number, protocol) = written.split_once('/').unwrap_or((written, "tcp"));
    if protocol.eq_ignore_ascii_case("sctp") {
        return Err(not_built(&format!("port {written:?}: SCTP")));
    }
    let number = number.parse().ok().filter(|n| *n > 0);
    let number = number.ok_or_else(|| invalid(format!("invalid port specification: {written:?}")))?;
    Ok((number, protocol.parse()?))
}

/// The user's and the image's, as `port/proto`, sorted by number.
pub(super) fn exposed<'a>(user: impl Iterator<Item = &'a str>, image: &[String]) -> Result<Vec<String>> {
    let mut ports: BTreeSet<(u16, PortProtocol)> = user.map(port).collect::<Result<_>>()?;
    // What an image says it listens on is a hint: one that cannot be read is none.
    ports.extend(image.iter().filter_map(|written| port(written).ok()));
    Ok(ports.into_iter().map(|(number, protocol)| format!("{number}/{}", protocol.as_str())).collect())
}

/// What to publish.
pub(super) fn bindings(wanted: &BTreeMap<String, Vec<host_config::PortBinding>>) -> Result<Vec<PortBinding>> {
    let mut bindings = Vec::new();
    for (written, places) in wanted {
        let (container_port, protocol) = port(written)?;
        if places.is_empty() {
            bindings.push(PortBinding { container_port, protocol, host_ip: None, host_port: None, host_range: None });
        }
        for place in places {
            check_address(&place.host_ip)?;
            let (host_port, host_range) = host_ports(&place.host_port)?;
            bindings.push(PortBinding { container_port, protocol, host_ip: None, host_port, host_range });
        }
    }
    if bindings.len() > BINDINGS_MAX {
        return Err(invalid(format!("PortBindings: at most {BINDINGS_MAX} ports can be published")));
    }
    bindings.sort_by_key(|b| (b.container_port, b.protocol, b.host_port, b.host_range));
    Ok(bindings)
}

/// Whether every exposed port shall be published too: a host's ports are all its tenants'.
pub(super) fn publish_all(asked: bool, exposed: &[String], bindings: &[PortBinding]) -> Result<bool> {
    if asked && exposed.len() + bindings.len() > BINDINGS_MAX {
        return Err(invalid(format!("PublishAllPorts: at most {BINDINGS_MAX} ports can be published")));
    }
    Ok(asked)
}

fn check_address(written: &str) -> Result<()> {
    match written {
        "" | "0.0.0.0" | "::" => Ok(()),
        other if other.parse::<std::net::IpAddr>().is_err() => {
            Err(invalid(format!("invalid IP address {other:?} in PortBindings")))
        }
        other => Err(forbidden(format!(
            "PortBindings.HostIp {other}: the addresses of hosts are not the tenant's to choose on Wharfage; leave it out"
        ))),
    }
}

/// One port, or a range of which one is to be had; neither: any.
type HostPorts = (Option<u16>, Option<(u16, u16)>);

fn host_ports(written: &str) -> Result<HostPorts> {
    let Some((from, to)) = written.split_once('-') else { return Ok((host_port(written)?, None)) };
    match (host_port(from)?, host_port(to)?) {
        (Some(from), Some(to)) if from == to => Ok((Some(from), None)),
        (Some(from), Some(to)) if from < to => Ok((None, Some((from, to)))),
        (_, _) => Err(invalid(format!("invalid range specified for port: {written}"))),
    }
}

fn host_port(written: &str) -> Result<Option<u16>> {
    if matches!(written, "" | "0") {
        return Ok(None);
    }
    let port: u16 = written.parse().map_err(|_| invalid(format!("invalid port specification: {written:?}")))?;
    if port < LOWEST_HOST_PORT {
        return Err(forbidden(format!(
            "PortBindings.HostPort {port}: ports below {LOWEST_HOST_PORT} belong to the hosts on Wharfage"
        )));
    }
    Ok(Some(port))
}
