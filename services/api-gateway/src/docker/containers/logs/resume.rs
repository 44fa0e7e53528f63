//! Following a log over breaks of the connection to its host. The host marks where it has read to; a
//! new connection goes on from the last mark, less what the client already has of what comes after
//! it. So a follower neither loses nor repeats a byte while its host's agent is replaced.

use std::{
    io,
    pin::Pin,
    time::{Duration, Instant},
};

use axum::body::Bytes;
use chassis::{backoff::Backoff, client::Internal, reqwest::Response};
use contract::agent::{LOG_END, LOG_MARK, LogsQuery};
use futures::{Stream, StreamExt as _};
use model::Error;

/// How long an agent may be away before its followers give up.
const PATIENCE: Duration = Duration::from_secs(60);
/// A mark is a short text.
const MARK_MAX_BYTES: usize = 256;

type Incoming = Pin<Box<dyn Stream<Item = Option<Bytes>> + Send>>;

/// One follower.
struct Follower {
    agent: Internal,
    path: String,
    asked: LogsQuery,
    frames: Frames,
    incoming: Incoming,
}

/// The log from `reply` on, and from wherever it breaks off on.
pub(super) fn follow(
    agent: Internal,
    path: String,
    asked: LogsQuery,
    raw: bool,
    reply: Response,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let follower = Follower { agent, path, asked, frames: Frames::new(raw), incoming: incoming(reply) };
    futures::stream::try_unfold(follower, |mut follower| async move {
        Ok(follower.next().await?.map(|bytes| (bytes, follower)))
    })
}

/// What arrives; `None` is a break.
fn incoming(reply: Response) -> Incoming {
    Box::pin(reply.bytes_stream().map(Result::ok))
}

impl Follower {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while !self.frames.ended {
            match self.incoming.next().await.flatten() {
                Some(bytes) => {
                    let fresh = self.frames.take(&bytes);
                    if !fresh.is_empty() {
                        return Ok(Some(fresh.into()));
                    }
                }
                None if self.frames.ended => {}
                None => self.reconnect().await?,
            }
        }
        Ok(None)
    }

    async fn reconnect(&mut self) -> io::Result<()> {
        self.frames.broke_off();
        let query = LogsQuery { resume: self.frames.position.clone(), ..self.asked.clone() };
        let (since, mut backoff) = (Instant::now(), Backoff::new(Duration::from_millis(50), Duration::from_secs(1)));
        loop {
            let again = self.agent.stream(axum::http::Method::GET, &self.path, Some(&query), None::<&()>).await;
            match again {
                Ok(reply) => {
                    self.incoming = incoming(reply);
                    return Ok(());
                }
                // It was removed meanwhile.
                Err(Error::NotFound(_)) => {
                    self.frames.ended = true;
                    return Ok(());
                }
                Err(Error::Unavailable(_)) if since.elapsed() < PATIENCE => backoff.wait().await,
                Err(error) => {
                    tracing::warn!(%error, path = self.path, "a follower of a log is given up");
                    return Err(io::Error::other("the log broke off"));
                }
            }
        }
    }
}

/// Takes marks out of the frames, and the frames' headers for a terminal.
#[derive(Debug, Default)]
struct Frames {
    raw: bool,
    header: Vec<u8>,
    /// Stream of the frame under way, and what is missing of it.
    stream: u8,
    left: usize,
    mark: Vec<u8>,
    /// The last mark.
    position: Option<String>,
    /// What the client has of what comes after it.
    since: usize,
    /// How much of that is yet to come again.
    skip: usize,
    ended: bool,
}

impl Frames {
    fn new(raw: bool) -> Self {
        Self { raw, ..Self::default() }
    }

    /// What of `bytes` is for the client and new to it.
    fn take(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut fresh = Vec::with_capacity(bytes.len());
        while !bytes.is_empty() {
            if self.left == 0 {
                let part = bytes.len().min(8 - self.header.len());
                self.header.extend_from_slice(&bytes[..part]);
                bytes = &bytes[part..];
                if let [stream, _, _, _, a, b, c, d] = self.header[..] {
                    self.begin(stream, u32::from_be_bytes([a, b, c, d]) as usize, &mut fresh);
                }
                continue;
            }
            let (part, rest) = bytes.split_at(bytes.len().min(self.left));
            bytes = rest;
            self.left -= part.len();
            if self.stream == LOG_MARK {
                self.mark.extend_from_slice(&part[..part.len().min(MARK_MAX_BYTES - self.mark.len())]);
                self.end_of_mark();
            } else {
                self.pass(part, &mut fresh);
            }
        }
        fresh
    }

    fn begin(&mut self, stream: u8, length: usize, fresh: &mut Vec<u8>) {
        (self.stream, self.left) = (stream, length);
        let header = std::mem::take(&mut self.header);
        match stream {
            LOG_END => self.ended = true,
            LOG_MARK => {
                self.mark.clear();
                self.end_of_mark();
            }
            _ if self.raw => {}
            _ => self.pass(&header, fresh),
        }
    }

    fn end_of_mark(&mut self) {
        if self.left == 0 {
            self.position = Some(String::from_utf8_lossy(&self.mark).into_owned());
            self.since = self.skip;
        }
    }

    fn pass(&mut self, part: &[u8], fresh: &mut Vec<u8>) {
        let known = part.len().min(self.skip);
        self.skip -= known;
        self.since += part.len() - known;
        fresh.extend_from_slice(&part[known..]);
    }

    /// What comes next begins at the last mark, or at the beginning.
    fn broke_off(&mut self) {
        self.header.clear();
        self.left = 0;
        self.skip = self.since;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u8, text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).expect("short").to_be_bytes();
        [&[stream, 0, 0, 0], &length[..], text.as_bytes()].concat()
    }

    /// A log of ten lines as the host sends it from line `from` on, marked after every third.
    fn sent(from: usize) -> Vec<u8> {
        let lines = (from..10).flat_map(|n| {
            let mark = (n % 3 == 2).then(|| frame(LOG_MARK, &format!("at {}", n + 1)));
            [frame(1, &format!("line {n}\n")), mark.unwrap_or_default()].concat()
        });
        [frame(LOG_MARK, &format!("at {from}")), lines.collect(), frame(LOG_END, "")].concat()
    }

    #[test]
    fn wherever_it_breaks_off_nothing_is_lost_or_repeated() {
        let plain: Vec<u8> = (0..10).flat_map(|n| frame(1, &format!("line {n}\n"))).collect();
        let text: Vec<u8> = (0..10).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        for (raw, expected) in [(false, &plain), (true, &text)] {
            for first in 0..sent(0).len() {
                for second in [0, 1, 7, 20, 40, 90] {
                    let mut frames = Frames::new(raw);
                    let mut got = frames.take(&sent(0)[..first]);
                    for length in [second, usize::MAX] {
                        if frames.ended {
                            break;
                        }
                        frames.broke_off();
                        let at = frames.position.as_deref().map_or(0, |p| p["at ".len()..].parse().expect("a line"));
                        let again = sent(at);
                        // Byte by byte: borders of frames and of chunks have nothing to do with each other.
                        again.iter().take(length).for_each(|byte| got.append(&mut frames.take(&[*byte])));
                    }
                    assert!(frames.ended);
                    assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(expected), "{first} {second}");
                }
            }
        }
    }
}
