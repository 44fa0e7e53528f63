//! Ports on the host, reserved in the transaction that wants the run.

use model::{Error, PortBinding, PublishedPort, Result};
use store::{ContainerRecord, HostAddress, ProjectTx};

use super::translate;

/// Where ports nobody chose come from.
const EPHEMERAL: std::ops::Range<u16> = 32_768..61_000;
/// Draws per port before the range counts as full.
const DRAWS: usize = 64;

/// Everything to publish: what was asked for, and with `-P` every other exposed port.
fn wanted(container: &ContainerRecord) -> Vec<PortBinding> {
    let spec = &container.spec;
    let mut wanted = spec.port_bindings.clone();
    if spec.publish_all {
        for (container_port, protocol) in spec.exposed_ports.iter().filter_map(|p| translate::port(p).ok()) {
            if !wanted.iter().any(|b| (b.container_port, b.protocol) == (container_port, protocol)) {
                wanted.push(PortBinding { container_port, protocol, host_ip: None, host_port: None });
            }
        }
    }
    wanted
}

/// Reserves every port of a run, or says which one is taken. One round trip for all ports that were
/// chosen, one or a few for each that was not.
pub(super) async fn reserve(tx: &mut ProjectTx, container: &ContainerRecord, run: u32) -> Result<()> {
    let wanted = wanted(container);
    // A container that publishes nothing holds nothing either.
    if wanted.is_empty() || container.spec.network_none {
        return Ok(());
    }
    let host = container.host.as_ref().ok_or_else(|| Error::Unavailable("this container is on no host yet".into()))?;
    tx.free_ports(&container.id).await?;
    let place = |b: &PortBinding, host_port: u16| PublishedPort {
        container_port: b.container_port,
        protocol: b.protocol,
        host_ip: b.host_ip,
        host_port,
    };
    let chosen: Vec<PublishedPort> = wanted.iter().filter_map(|b| Some(place(b, b.host_port?))).collect();
    if let Some(own) = chosen.iter().find(|p| p.host_port == host.agent_port) {
        return Err(taken(container, own));
    }
    if !chosen.is_empty()
        && let Some(port) = tx.reserve_ports(host.id, &container.id, run, &chosen).await?.first()
    {
        return Err(taken(container, port));
    }
    for binding in wanted.iter().filter(|b| b.host_port.is_none()) {
        draw(tx, container, host, run, |port| place(binding, port)).await?;
    }
    Ok(())
}

async fn draw(
    tx: &mut ProjectTx,
    container: &ContainerRecord,
    host: &HostAddress,
    run: u32,
    place: impl Fn(u16) -> PublishedPort,
) -> Result<()> {
    for _ in 0..DRAWS {
        let random = u16::from_be_bytes(chassis::ids::random_bytes());
        let port = EPHEMERAL.start + random % (EPHEMERAL.end - EPHEMERAL.start);
        if port != host.agent_port && tx.reserve_ports(host.id, &container.id, run, &[place(port)]).await?.is_empty() {
            return Ok(());
        }
    }
    Err(Error::Failed(format!(
        "driver failed programming external connectivity on endpoint {} ({}): all ports are allocated",
        container.name, container.id
    )))
}

/// dockerd's text. Whose port it is stays untold.
fn taken(container: &ContainerRecord, port: &PublishedPort) -> Error {
    let address = port.host_ip.map_or_else(|| "0.0.0.0".to_owned(), |ip| ip.to_string());
    Error::Failed(format!(
        "driver failed programming external connectivity on endpoint {} ({}): Bind for {address}:{} failed: port is already allocated",
        container.name, container.id, port.host_port
    ))
}
