//! One HTTP/1.1 connection by hand, kept alive: what a request costs without the cost of a client
//! library. Knows just enough of HTTP for what dockerd and Wharfage send.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
};

const JSON: &str = "Content-Type: application/json\r\n";
/// A body below this is sent with its head.
const SMALL: usize = 64 << 10;

/// The head of an answer.
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Of the body; `None` is chunked.
    pub(crate) length: Option<usize>,
    pub(crate) location: String,
}

/// An open connection.
pub(crate) struct Wire {
    stream: BufReader<TcpStream>,
    authorization: String,
}

impl Wire {
    /// `address` is `host:port`.
    pub(crate) fn open(address: &str, token: Option<&str>) -> Self {
        let stream = TcpStream::connect(address).expect("the peer listens");
        stream.set_nodelay(true).expect("a socket option");
        let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        Self { stream: BufReader::new(stream), authorization }
    }

    /// Sends a request and reads the whole answer: status and body.
    pub(crate) fn request(&mut self, method: &str, path: &str, body: &str) -> (u16, Vec<u8>) {
        let typed = if body.is_empty() { "" } else { JSON };
        let head = self.exchange(method, path, typed, body.as_bytes());
        (head.status, self.body(&head))
    }

    /// Sends a request and reads the head of the answer; its body, unless it has none, is to be read next.
    pub(crate) fn exchange(&mut self, method: &str, path: &str, more: &str, body: &[u8]) -> Head {
        self.send(method, path, body, more);
        let head = self.head();
        if method == "HEAD" { Head { length: Some(0), ..head } } else { head }
    }

    /// The body of an answer.
    pub(crate) fn body(&mut self, head: &Head) -> Vec<u8> {
        let mut answer = Vec::new();
        match head.length {
            Some(length) => {
                answer.resize(length, 0);
                self.stream.read_exact(&mut answer).expect("a body");
            }
            None => self.chunks(&mut answer),
        }
        answer
    }

    /// The body of an answer of a known length, read into one buffer again and again; how long it was.
    pub(crate) fn drain(&mut self, head: &Head, buffer: &mut [u8]) -> usize {
        let length = head.length.expect("a length");
        let mut left = length;
        while left > 0 {
            let most = left.min(buffer.len());
            let read = self.stream.read(&mut buffer[..most]).expect("a body");
            assert!(read > 0, "the answer broke off");
            left -= read;
        }
        length
    }

    /// Sends a request that turns the connection into a stream, and reads that to its end.
    pub(crate) fn hijack(mut self, path: &str, body: &str) -> Vec<u8> {
        let typed = if body.is_empty() { "" } else { JSON };
        self.send("POST", path, body.as_bytes(), &format!("Connection: Upgrade\r\nUpgrade: tcp\r\n{typed}"));
        assert_eq!(self.head().status, 101, "{path} did not upgrade");
        let mut answer = Vec::new();
        self.stream.read_to_end(&mut answer).expect("a stream");
        answer
    }

    fn send(&mut self, method: &str, path: &str, body: &[u8], more: &str) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: docker\r\n{}{more}Content-Length: {}\r\n\r\n",
            self.authorization,
            body.len()
        );
        let stream = self.stream.get_mut();
        if body.len() < SMALL {
            stream.write_all(&[head.as_bytes(), body].concat()).expect("the peer reads");
        } else {
            stream.write_all(head.as_bytes()).expect("the peer reads");
            stream.write_all(body).expect("the peer reads");
        }
    }

    fn head(&mut self) -> Head {
        let mut head = Head { status: 0, length: Some(0), location: String::new() };
        let mut line = String::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line).expect("a head");
            let line = line.trim_end();
            if line.is_empty() {
                return head;
            }
            if head.status == 0 {
                head.status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
            }
            let Some((name, value)) = line.split_once(": ") else { continue };
            if name.eq_ignore_ascii_case("content-length") {
                head.length = Some(value.parse().expect("a length"));
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                head.length = None;
            } else if name.eq_ignore_ascii_case("location") {
                value.clone_into(&mut head.location);
            }
        }
    }

    fn chunks(&mut self, answer: &mut Vec<u8>) {
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).expect("a chunk");
            let length = usize::from_str_radix(line.trim_end(), 16).expect("a chunk's length");
            let begin = answer.len();
            answer.resize(begin + length + 2, 0);
            self.stream.read_exact(&mut answer[begin..]).expect("a chunk");
            answer.truncate(begin + length);
            if length == 0 {
                return;
            }
        }
    }
}
