//! The two sockets of one sandbox, for as long as it is there. Bounded in every direction: a
//! container that asks too much at once is not heard.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
    time::timeout,
};

use super::{
    Inside,
    answer::{Answer, answer, udp_bytes},
    directory::Directory,
    forward::forward,
};

/// Questions and connections of one sandbox under way at once.
const AT_ONCE_MAX: usize = 128;
const QUESTION_MAX_BYTES: usize = 4096;
/// How long a TCP connection may be silent.
const IDLE: Duration = Duration::from_secs(10);

/// What one sandbox is served with.
struct Server {
    inside: Arc<Inside>,
    directory: Arc<Directory>,
    turn: AtomicUsize,
}

/// Serves until it is dropped, with everything under way.
pub(super) async fn serve(
    sockets: (std::net::UdpSocket, std::net::TcpListener),
    inside: Arc<Inside>,
    directory: Arc<Directory>,
) {
    let (udp, tcp) = match (UdpSocket::from_std(sockets.0), TcpListener::from_std(sockets.1)) {
        (Ok(udp), Ok(tcp)) => (Arc::new(udp), tcp),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "name service cannot begin");
            return;
        }
    };
    let server = Arc::new(Server { inside, directory, turn: AtomicUsize::new(0) });
    let mut under_way = JoinSet::new();
    let mut question = vec![0; QUESTION_MAX_BYTES];
    loop {
        tokio::select! {
            Some(_) = under_way.join_next() => {}
            asked = udp.recv_from(&mut question) => {
                let Ok((length, from)) = asked else { continue };
                if under_way.len() >= AT_ONCE_MAX {
                    continue;
                }
                let (server, udp, question) = (server.clone(), udp.clone(), question[..length].to_vec());
                under_way.spawn(async move {
                    if let Some(answer) = server.answer(&question, false).await {
                        let _: std::io::Result<usize> = udp.send_to(&answer, from).await;
                    }
                });
            }
            accepted = tcp.accept() => {
                let Ok((stream, _)) = accepted else {
                    // Out of file descriptors, say: not worth a busy loop.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                if under_way.len() < AT_ONCE_MAX {
                    let server = server.clone();
                    under_way.spawn(async move { server.converse(stream).await });
                }
            }
        }
    }
}

impl Server {
    async fn answer(&self, question: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let view = self.directory.view(&self.inside.container);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let message = match answer(question, &view, turn) {
            Answer::None => return None,
            Answer::Known(message) => message,
            Answer::Elsewhere { otherwise } => {
                if let Some(answer) = forward(question, &view.resolvers, &self.inside, tcp).await {
                    return Some(answer);
                }
                otherwise
            }
        };
        if tcp { message.to_vec().ok() } else { udp_bytes(&message) }
    }

    /// One TCP connection: questions one after the other.
    async fn converse(&self, mut stream: TcpStream) {
        while let Ok(Ok(length)) = timeout(IDLE, stream.read_u16()).await {
            let mut question = vec![0; usize::from(length)];
            if !matches!(timeout(IDLE, stream.read_exact(&mut question)).await, Ok(Ok(_))) {
                return;
            }
            let Some(answer) = self.answer(&question, true).await else { return };
            let Ok(length) = u16::try_from(answer.len()) else { return };
            let framed = [length.to_be_bytes().as_slice(), &answer].concat();
            if !matches!(timeout(IDLE, stream.write_all(&framed)).await, Ok(Ok(()))) {
                return;
            }
        }
    }
}
