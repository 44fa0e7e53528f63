//! Bytes between the network and a thread that works with files: a few chunks in flight, and an end
//! to waiting for the other side, so that nobody holds a thread by doing nothing.

use std::{
    io::{self, Read, Write},
    pin::Pin,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use chassis::axum::body::Body;
use futures::{Stream, StreamExt as _};
use tokio::{runtime::Handle, sync::mpsc};

/// How long the other side may do nothing.
const PATIENCE: Duration = Duration::from_secs(300);
const CHUNK_BYTES: usize = 128 << 10;
const CHUNKS_IN_FLIGHT: usize = 8;
/// What is read of a body that nobody wants any more, so that its sender hears the answer.
const DRAINED_BYTES: usize = 64 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// A response's body.
pub(crate) type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Where a thread writes.
pub(super) struct ChunkWriter {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: BytesMut,
    runtime: Handle,
}

/// A thread's writing side and the body it becomes.
pub(super) fn outgoing() -> (ChunkWriter, Chunks) {
    let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
    let writer = ChunkWriter { sender, buffer: BytesMut::new(), runtime: Handle::current() };
    (writer, Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver)))
}

impl ChunkWriter {
    /// A way to break the body off with an error after the writer is gone.
    pub(super) fn breaker(&self) -> mpsc::Sender<io::Result<Bytes>> {
        self.sender.clone()
    }

    fn send(&mut self) -> io::Result<()> {
        let chunk = self.buffer.split().freeze();
        let sending = async { tokio::time::timeout(PATIENCE, self.sender.send(Ok(chunk))).await };
        match self.runtime.block_on(sending) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(CHUNK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..n]);
        if self.buffer.len() == CHUNK_BYTES {
            self.send()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() { Ok(()) } else { self.send() }
    }
}

/// Where a thread reads a request's body.
pub(super) struct ChunkReader {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
    runtime: Handle,
}

/// A thread's reading side, and what has to run beside it.
pub(super) fn incoming(body: Body) -> (ChunkReader, impl Future<Output = ()>) {
    let (sender, chunks) = mpsc::channel(CHUNKS_IN_FLIGHT);
    let feed = async move {
        let mut body = body.into_data_stream();
        while let Some(chunk) = body.next().await {
            let broken = chunk.is_err();
            let chunk = chunk.map_err(|e| io::Error::new(io::ErrorKind::ConnectionAborted, e.to_string()));
            if sender.send(chunk).await.is_err() {
                return drain(body).await;
            }
            if broken {
                return;
            }
        }
    };
    (ChunkReader { chunks, current: Bytes::new(), runtime: Handle::current() }, feed)
}

/// Reads on for a while: a client that still sends does not look for an answer.
pub(crate) async fn drain<B, E>(mut body: B)
where
    B: Stream<Item = Result<Bytes, E>> + Unpin,
{
    let mut left = DRAINED_BYTES;
    let reading = async {
        while let Some(Ok(chunk)) = body.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIME, reading).await;
}

impl Read for ChunkReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            let waiting = async { tokio::time::timeout(PATIENCE, self.chunks.recv()).await };
            match self.runtime.block_on(waiting) {
                Ok(Some(chunk)) => self.current = chunk?,
                Ok(None) => return Ok(0),
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
        let n = self.current.len().min(buf.len());
        buf[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}
