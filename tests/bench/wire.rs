//! One HTTP/1.1 connection by hand, kept alive: what a request costs without the cost of a client
//! library. Knows just enough of HTTP for what dockerd and Wharfage send.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
};

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
        self.send(method, path, body, "");
        let (status, length) = self.head();
        let mut answer = Vec::new();
        match length {
            Some(length) => {
                answer.resize(length, 0);
                self.stream.read_exact(&mut answer).expect("a body");
            }
            None => self.chunks(&mut answer),
        }
        (status, answer)
    }

    /// Sends a request that turns the connection into a stream, and reads that to its end.
    pub(crate) fn hijack(mut self, path: &str, body: &str) -> Vec<u8> {
        self.send("POST", path, body, "Connection: Upgrade\r\nUpgrade: tcp\r\n");
        let (status, _) = self.head();
        assert_eq!(status, 101, "{path} did not upgrade");
        let mut answer = Vec::new();
        self.stream.read_to_end(&mut answer).expect("a stream");
        answer
    }

    fn send(&mut self, method: &str, path: &str, body: &str, more: &str) {
        let typed = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: docker\r\n{}{more}{typed}Content-Length: {}\r\n\r\n{body}",
            self.authorization,
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes()).expect("the peer reads");
    }

    /// Status, and the body's length; `None` is chunked.
    fn head(&mut self) -> (u16, Option<usize>) {
        let (mut status, mut length) = (0, Some(0));
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).expect("a head");
            let line = line.trim_end();
            if line.is_empty() {
                return (status, length);
            }
            if status == 0 {
                status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
            }
            let Some((name, value)) = line.split_once(": ") else { continue };
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.parse().expect("a length"));
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                length = None;
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
