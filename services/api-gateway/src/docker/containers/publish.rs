//! Ports on the host, reserved in the transaction that wants the run.

use model::{Error, PortBinding, PublishedPort, Result};
use store::{ContainerRecord, HostAddress, ProjectTx};

use super::translate;

/// Where ports nobody chose come from.
const EPHEMERAL: std::ops::Range<u16> = 32_768..61_000;
/// Draws per port before the range counts as full.
const DRAWS: usize = 64;
/// Ports of a range that are tried one after the other.
const IN_ORDER: usize = 256;

/// Everything to publish: what was asked for, and with `-P` every other exposed port.
fn wanted(container: &ContainerRecord) -> Vec<PortBinding> {
    let spec = &container.spec;
    let mut wanted = spec.port_bindings.clone();
    if spec.publish_all {
        for (container_port, protocol) in spec.exposed_ports.iter().filter_map(|p| translate::port(p).ok()) {
            if !wanted.iter().any(|b| (b.container_port, b.protocol) == (container_port, protocol)) {
                wanted.push(PortBinding { container_port, protocol, host_ip: None, host_port: None, host_range: None });
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
        draw(tx, container, host, run, binding.host_range, |port| place(binding, port)).await?;
    }
    Ok(())
}

/// Ports to try, in order: of a range that was asked for from its beginning, as dockerd; otherwise any.
fn candidates(range: Option<(u16, u16)>) -> impl Iterator<Item = u16> {
    let random = |from: u16, to: u16| {
        let drawn = u16::from_be_bytes(chassis::ids::random_bytes());
        from + u16::try_from(u32::from(drawn) % (u32::from(to - from) + 1)).unwrap_or_default()
    };
    let (from, to) = range.unwrap_or((EPHEMERAL.start, EPHEMERAL.end - 1));
    let in_order = if range.is_some() { usize::from(to - from) + 1 } else { 0 };
    // What is left of a range too long to be tried whole is drawn from.
    let draws = if range.is_none() || in_order > IN_ORDER { DRAWS } else { 0 };
    (from..=to).take(in_order.min(IN_ORDER)).chain(std::iter::repeat_with(move || random(from, to)).take(draws))
}

async fn draw(
    tx: &mut ProjectTx,
    container: &ContainerRecord,
    host: &HostAddress,
    run: u32,
    range: Option<(u16, u16)>,
    place: impl Fn(u16) -> PublishedPort,
) -> Result<()> {
    for port in candidates(range) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_tried_from_its_beginning_and_never_left() {
        assert_eq!(candidates(Some((8000, 8003))).collect::<Vec<_>>(), [8000, 8001, 8002, 8003]);
        let long: Vec<u16> = candidates(Some((2000, 65_535))).collect();
        assert_eq!((long[0], long[255], long.len()), (2000, 2255, IN_ORDER + DRAWS));
        assert!(long.iter().all(|port| *port >= 2000));
        let any: Vec<u16> = candidates(None).collect();
        assert!(any.len() == DRAWS && any.iter().all(|port| EPHEMERAL.contains(port)));
    }
}
