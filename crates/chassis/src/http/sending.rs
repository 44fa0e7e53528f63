//! A plain TCP connection that does not read files to send them: what of an answer is a file
//! ([`super::file`]) goes from the page cache to the socket by `sendfile`.

use std::{
    fs::File,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustix::fs::sendfile;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use super::file::behind;

/// Sent at once: others on this thread wait as long.
const SENT_BYTES_MAX: usize = 1 << 20;

/// The connection.
#[derive(Debug)]
pub(super) struct Sending(TcpStream);

impl Sending {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(stream)
    }

    fn poll_send(&self, cx: &mut Context<'_>, file: &File, offset: u64, length: usize) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            let mut at = offset;
            let sent = self
                .0
                .try_io(Interest::WRITABLE, || Ok(sendfile(&self.0, file, Some(&mut at), length.min(SENT_BYTES_MAX))?));
            match sent {
                // The length was promised; whoever reads must not wait for the rest.
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }
}

impl AsyncRead for Sending {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Sending {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let first = slices.iter().position(|slice| !slice.is_empty()).unwrap_or_default();
        let slices = slices.get(first..).unwrap_or_default();
        if let Some(slice) = slices.first()
            && let Some((file, offset)) = behind(slice)
        {
            return this.poll_send(cx, &file, offset, slice.len());
        }
        // As far as the next file.
        let memory = slices.iter().position(|slice| behind(slice).is_some()).unwrap_or(slices.len());
        Pin::new(&mut this.0).poll_write_vectored(cx, &slices[..memory])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use axum::{Router, routing::get};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::http::file_body;

    /// Three requests over one connection: a file, a part of one, and words.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_file_goes_out_whole_between_other_answers_over_one_connection() {
        let content: Vec<u8> = (0..20_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&content).expect("written");
        let file = std::sync::Arc::new(file);
        let sent = move |range: std::ops::Range<u64>| {
            let file = file.try_clone().expect("a descriptor");
            async move { file_body(file, range).expect("a body") }
        };
        let (whole, part) = (sent.clone(), sent);
        let router = Router::new()
            .route("/whole", get(move || whole(0..20_000_000)))
            .route("/part", get(move || part(1_234_567..7_654_321)))
            .route("/words", get(|| async { "words" }));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a client");
            let service = hyper_util::service::TowerToHyperService::new(router);
            let io = hyper_util::rt::TokioIo::new(Sending::new(stream));
            hyper::server::conn::http1::Builder::new().serve_connection(io, service).await.expect("served");
        });
        let mut client = TcpStream::connect(address).await.expect("connects");
        let asked = "GET /words HTTP/1.1\r\nhost: x\r\n\r\nGET /whole HTTP/1.1\r\nhost: x\r\n\r\n\
                     GET /part HTTP/1.1\r\nhost: x\r\n\r\nGET /words HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        client.write_all(asked.as_bytes()).await.expect("sent");
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.expect("read");
        let (first, rest) = next(&got);
        let (second, rest) = next(rest);
        let (third, rest) = next(rest);
        let (last, rest) = next(rest);
        assert!((first.as_slice(), last.as_slice(), rest.len()) == (b"words", b"words", 0));
        assert!(second == content && third == content[1_234_567..7_654_321]);
    }

    /// The body of the next answer, chunked or not, and what comes after it.
    fn next(answers: &[u8]) -> (Vec<u8>, &[u8]) {
        let end = answers.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let head = String::from_utf8_lossy(&answers[..end]).to_lowercase();
        let mut rest = &answers[end..];
        if let Some(length) = head.split("content-length: ").nth(1) {
            let length: usize = length.split("\r\n").next().expect("a line").parse().expect("a length");
            return (rest[..length].to_vec(), &rest[length..]);
        }
        let mut body = Vec::new();
        loop {
            let line = rest.windows(2).position(|two| two == b"\r\n").expect("a line");
            let length =
                usize::from_str_radix(std::str::from_utf8(&rest[..line]).expect("text"), 16).expect("a length");
            body.extend_from_slice(&rest[line + 2..line + 2 + length]);
            rest = &rest[line + 4 + length..];
            if length == 0 {
                return (body, rest);
            }
        }
    }
}
