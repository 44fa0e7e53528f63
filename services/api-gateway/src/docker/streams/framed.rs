//! Docker's framing of a stream that has none: an exec on a terminal whose client said, when it started it,
//! that it is not one. dockerd believes the start; so does the client that reads the stream.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of a frame's head: stream, three zeros, big-endian length.
const HEAD_BYTES: usize = 8;
/// Frames carry as much as one read of the relay takes.
const FRAME_BYTES: usize = 32 * 1024;
const STDOUT: u8 = 1;

/// What is read from `inner` comes out in frames of stdout; what is written goes through as it is.
#[derive(Debug)]
pub(crate) struct Framed<S> {
    inner: S,
    piece: Vec<u8>,
    /// How much of `piece` was given away.
    given: usize,
}

impl<S> Framed<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, piece: Vec::new(), given: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Framed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.given == this.piece.len() {
            this.piece.resize(HEAD_BYTES + FRAME_BYTES, 0);
            this.given = this.piece.len();
            let mut payload = ReadBuf::new(&mut this.piece[HEAD_BYTES..]);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut payload))?;
            let length = payload.filled().len();
            if length == 0 {
                this.piece.clear();
                this.given = 0;
                return Poll::Ready(Ok(()));
            }
            this.piece.truncate(HEAD_BYTES + length);
            this.piece[..HEAD_BYTES].fill(0);
            this.piece[0] = STDOUT;
            // It is at most FRAME_BYTES.
            this.piece[4..HEAD_BYTES].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
            this.given = 0;
        }
        let fits = buffer.remaining().min(this.piece.len() - this.given);
        buffer.put_slice(&this.piece[this.given..this.given + fits]);
        this.given += fits;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Framed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn every_piece_gets_a_head_with_its_length_and_what_is_written_gets_none() {
        let (ours, mut theirs) = duplex(64 * 1024);
        let mut framed = Framed::new(ours);
        theirs.write_all(b"one\r\n").await.expect("write");
        let mut frame = [0; 13];
        framed.read_exact(&mut frame).await.expect("a frame");
        assert_eq!(&frame, b"\x01\0\0\0\0\0\0\x05one\r\n");
        framed.write_all(b"typed").await.expect("write");
        let mut typed = [0; 5];
        theirs.read_exact(&mut typed).await.expect("as it is");
        assert_eq!(&typed, b"typed");
        theirs.write_all(b"two").await.expect("write");
        drop(theirs);
        let mut rest = Vec::new();
        framed.read_to_end(&mut rest).await.expect("the end");
        assert_eq!(rest, b"\x01\0\0\0\0\0\0\x03two");
    }

    #[tokio::test]
    async fn a_frame_may_be_read_byte_by_byte() {
        let (ours, mut theirs) = duplex(64);
        theirs.write_all(b"ab").await.expect("write");
        drop(theirs);
        let mut framed = Framed::new(ours);
        let mut seen = Vec::new();
        while let Ok(byte) = framed.read_u8().await {
            seen.push(byte);
        }
        assert_eq!(seen, b"\x01\0\0\0\0\0\0\x02ab");
    }
}
