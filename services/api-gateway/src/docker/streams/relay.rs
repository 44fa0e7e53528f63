//! Passing bytes both ways between a client and an agent. The end of what the client sends is the
//! end of stdin and nothing more; the end of what the agent sends is the end of the stream.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{DetachKeys, detach_keys::Typed};

/// Bytes passed at once.
const PIECE_BYTES: usize = 32 * 1024;

/// What the client's input may bring about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Input {
    /// Keys that detach.
    pub keys: Option<DetachKeys>,
    /// The end of the input ends the whole stream: on a terminal, as with dockerd. A docker CLI that
    /// finds the detach keys itself ends its input so.
    pub ends_stream: bool,
}

/// Why a stream is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The agent had no more to send, or the client is gone.
    Finished,
    /// The client typed the detach keys.
    Detached,
}

/// Runs until it is over; both sides are closed when it returns and they are dropped.
pub(super) async fn run<C, A>(client: C, agent: A, input: Input) -> Ended
where
    C: AsyncRead + AsyncWrite + Unpin,
    A: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_agent, mut to_agent) = tokio::io::split(agent);
    let ended = tokio::select! {
        () = down(&mut from_agent, &mut to_client) => Ended::Finished,
        () = up(&mut from_client, &mut to_agent, input) => Ended::Detached,
    };
    // A TLS client would take a missing goodbye for a cut.
    let _ = to_client.shutdown().await;
    ended
}

/// What the container says.
pub(super) async fn down(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match from.read(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(n) => {
                if to.write_all(&piece[..n]).await.is_err() || to.flush().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// What the client types. Returns only when it detached.
pub(super) async fn up(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), mut input: Input) {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let n = match from.read(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(n) => n,
        };
        let (pass, detach) = match input.keys.as_mut().map(|keys| keys.feed(&piece[..n])) {
            None => (None, false),
            Some(Typed::Pass(bytes)) => (Some(bytes), false),
            Some(Typed::Detach(bytes)) => (Some(bytes), true),
        };
        let bytes = pass.as_deref().unwrap_or(&piece[..n]);
        let sent = to.write_all(bytes).await.is_ok() && to.flush().await.is_ok();
        if detach {
            return;
        }
        if !sent {
            // Nobody reads stdin any more; output goes on. What is still typed goes nowhere.
            drain(from).await;
            break;
        }
    }
    if input.ends_stream {
        return;
    }
    let _ = to.shutdown().await;
    std::future::pending::<()>().await;
}

async fn drain(from: &mut (impl AsyncRead + Unpin)) {
    let _ = tokio::io::copy(from, &mut tokio::io::sink()).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn the_end_of_stdin_does_not_end_the_output() {
        let (mut client, ours) = duplex(64);
        let (theirs, mut agent) = duplex(64);
        let relay = tokio::spawn(run(ours, theirs, Input::default()));
        client.write_all(b"in").await.expect("write");
        client.shutdown().await.expect("half-close");
        let mut stdin = Vec::new();
        agent.read_to_end(&mut stdin).await.expect("stdin ends");
        assert_eq!(stdin, b"in");
        agent.write_all(b"out").await.expect("still open");
        drop(agent);
        let mut output = Vec::new();
        client.read_to_end(&mut output).await.expect("output ends");
        assert_eq!(output, b"out");
        assert_eq!(relay.await.expect("relay"), Ended::Finished);
    }

    #[tokio::test]
    async fn on_a_terminal_the_end_of_the_input_detaches() {
        let (mut client, ours) = duplex(64);
        let (theirs, agent) = duplex(64);
        let relay = tokio::spawn(run(ours, theirs, Input { keys: None, ends_stream: true }));
        client.shutdown().await.expect("half-close");
        assert_eq!(relay.await.expect("relay"), Ended::Detached);
        drop(agent);
    }

    #[tokio::test]
    async fn the_detach_keys_end_the_stream_alone() {
        let (mut client, ours) = duplex(64);
        let (theirs, mut agent) = duplex(64);
        let relay = tokio::spawn(run(
            ours,
            theirs,
            Input { keys: Some(DetachKeys::parse("").expect("default")), ends_stream: true },
        ));
        client.write_all(b"a\x10\x11").await.expect("write");
        assert_eq!(relay.await.expect("relay"), Ended::Detached);
        let mut typed = Vec::new();
        agent.read_to_end(&mut typed).await.expect("closed");
        assert_eq!(typed, b"a");
    }
}
