//! Questions for others: asked of each resolver in turn, until one answers. The host's own are asked
//! from the host, where containers could not reach them. The tenant's are asked from inside the
//! sandbox: through the firewall, as if the container had asked itself.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use contract::net::NetResolver;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, UdpSocket},
    time::timeout,
};

use super::Inside;
use crate::kernel;

/// What one resolver may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// As many as `resolv.conf` may name.
const RESOLVERS_MAX: usize = 3;
const UDP_ANSWER_MAX_BYTES: usize = 4096;
/// An answer has a header at least.
const HEADER_BYTES: usize = 12;

/// The first answer; `None` if nobody gave one.
pub(super) async fn forward(
    question: &[u8],
    resolvers: &[NetResolver],
    inside: &Arc<Inside>,
    tcp: bool,
) -> Option<Vec<u8>> {
    for resolver in resolvers.iter().take(RESOLVERS_MAX) {
        let asked = async {
            if tcp { over_tcp(question, *resolver, inside).await } else { over_udp(question, *resolver, inside).await }
        };
        match timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => tracing::debug!(%error, resolver = %resolver.address, "a resolver does not answer"),
            Err(_) => tracing::debug!(resolver = %resolver.address, "a resolver takes too long"),
        }
    }
    None
}

async fn over_udp(question: &[u8], resolver: NetResolver, inside: &Arc<Inside>) -> std::io::Result<Vec<u8>> {
    let to = SocketAddr::new(resolver.address, 53);
    let socket = socket(resolver, inside, move || {
        let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = std::net::UdpSocket::bind(any)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    })
    .await?;
    let socket = UdpSocket::from_std(socket)?;
    socket.connect(to).await?;
    socket.send(question).await?;
    let mut answer = vec![0; UDP_ANSWER_MAX_BYTES];
    loop {
        let length = socket.recv(&mut answer).await?;
        // Somebody may guess the port; the number of the question is to be guessed too.
        if length >= HEADER_BYTES && answer[..2] == question[..2] {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn over_tcp(question: &[u8], resolver: NetResolver, inside: &Arc<Inside>) -> std::io::Result<Vec<u8>> {
    let to = SocketAddr::new(resolver.address, 53);
    let socket = socket(resolver, inside, move || if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() });
    let mut stream = socket.await?.connect(to).await?;
    let length = u16::try_from(question.len()).map_err(std::io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(question).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// A socket in the namespace the question is asked from.
async fn socket<T: Send + 'static>(
    resolver: NetResolver,
    inside: &Arc<Inside>,
    make: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    if resolver.from_host {
        return make();
    }
    let inside = inside.clone();
    let made = tokio::task::spawn_blocking(move || {
        kernel::inside(&inside.host, &inside.namespace, || Ok(make())).map_err(std::io::Error::other)?
    });
    made.await.map_err(std::io::Error::other)?
}
