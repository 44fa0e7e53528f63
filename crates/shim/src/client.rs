//! A connection: requests line by line, until one of them turns it into a stream. What a client does
//! not take waits here, in bounds; a client that takes nothing for too long is cut, so that it can
//! hold up a container but not stop it.

use std::{
    io::{self, ErrorKind, IoSlice, Read as _, Write as _},
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use runtime::protocol::{self, ATTACH_BUFFER_BYTES, SLOW_CLIENT_MS};
use serde::Serialize;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Lines of requests.
    Requests,
    /// A start or exec is under way; its answer comes before anything else.
    Waiting,
    /// Lines of events.
    Events,
    /// Bytes of a process.
    Stream(Stream),
}

/// Which streams of which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) task: u64,
    pub(crate) stdin: bool,
    pub(crate) outputs: [bool; 2],
    /// No frames.
    pub(crate) raw: bool,
}

/// One connected client.
pub(crate) struct Client {
    pub(crate) id: u64,
    pub(crate) role: Role,
    socket: UnixStream,
    /// Bytes of an incomplete request, or stdin that came with the request.
    pub(crate) inbox: Vec<u8>,
    outbox: Vec<u8>,
    sent: usize,
    full_since: Option<Instant>,
    /// It has sent its last byte.
    pub(crate) input_ended: bool,
    /// It has gone; only input it left is of interest.
    pub(crate) hung_up: bool,
    /// Nothing more will be said to it.
    closing: bool,
    dead: bool,
}

impl Client {
    pub(crate) fn new(id: u64, socket: UnixStream) -> Self {
        Self {
            id,
            role: Role::Requests,
            socket,
            inbox: Vec::new(),
            outbox: Vec::new(),
            sent: 0,
            full_since: None,
            input_ended: false,
            hung_up: false,
            closing: false,
            dead: false,
        }
    }

    /// Queues one line.
    pub(crate) fn send_line<T: Serialize>(&mut self, document: &T) {
        match protocol::encode_line(document) {
            Ok(line) => self.send(&[&line]),
            Err(_) => self.dead = true,
        }
    }

    /// Sends one line and a descriptor along with it, at once: who asks for one has read all before.
    pub(crate) fn send_line_with<T: Serialize>(&mut self, document: &T, descriptor: BorrowedFd<'_>) {
        let Ok(line) = protocol::encode_line(document) else { return self.cut() };
        if !self.outbox.is_empty() {
            return self.cut();
        }
        let descriptors = [descriptor.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let parts = [IoSlice::new(&line)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        let sent = sendmsg::<()>(self.socket.as_raw_fd(), &parts, &rights, flags, None);
        if sent.ok() != Some(line.len()) {
            self.cut();
        }
    }

    /// Queues output of a process, framed unless the stream is raw.
    pub(crate) fn send_output(&mut self, stream: Stream, output: usize, bytes: &[u8]) {
        if stream.raw {
            return self.send(&[bytes]);
        }
        let number = if output == 0 { protocol::STDOUT } else { protocol::STDERR };
        let header = protocol::frame_header(number, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.send(&[&header, bytes]);
    }

    /// Sends at once what the socket takes and keeps the rest.
    fn send(&mut self, parts: &[&[u8]]) {
        if self.dead || self.hung_up {
            return;
        }
        let mut skip = 0;
        if self.outbox.is_empty() {
            let slices: Vec<IoSlice<'_>> = parts.iter().map(|p| IoSlice::new(p)).collect();
            match self.socket.write_vectored(&slices) {
                Ok(n) => skip = n,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => return self.hang_up(),
            }
        }
        for part in parts {
            let taken = skip.min(part.len());
            self.outbox.extend_from_slice(&part[taken..]);
            skip -= taken;
        }
        self.note_fullness();
    }

    /// Sends more of what is kept.
    pub(crate) fn flush(&mut self) {
        while self.sent < self.outbox.len() {
            match self.socket.write(&self.outbox[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.hang_up(),
            }
        }
        if self.sent == self.outbox.len() {
            self.outbox = Vec::new();
            self.sent = 0;
        } else if self.sent > ATTACH_BUFFER_BYTES / 2 {
            self.outbox.drain(..self.sent);
            self.sent = 0;
        }
        self.note_fullness();
    }

    fn note_fullness(&mut self) {
        let full = self.backlog() >= ATTACH_BUFFER_BYTES;
        self.full_since = if full { self.full_since.or_else(|| Some(Instant::now())) } else { None };
    }

    fn backlog(&self) -> usize {
        self.outbox.len() - self.sent
    }

    /// Output should be held back for it.
    pub(crate) fn is_full(&self) -> bool {
        self.full_since.is_some()
    }

    /// When it will be cut.
    pub(crate) fn cut_at(&self) -> Option<Instant> {
        self.full_since.map(|since| since + Duration::from_millis(SLOW_CLIENT_MS))
    }

    /// Something is left to be sent.
    pub(crate) fn wants_to_send(&self) -> bool {
        self.backlog() > 0
    }

    /// Reads what is there. `Ok(0)` is the end of its input; `WouldBlock` is nothing now.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.read(buffer)
    }

    /// It can be told nothing any more.
    pub(crate) fn hang_up(&mut self) {
        self.hung_up = true;
        self.outbox = Vec::new();
        self.sent = 0;
        self.full_since = None;
    }

    /// Ends the connection once everything queued has been sent.
    pub(crate) fn close_when_sent(&mut self) {
        self.closing = true;
    }

    /// Ends the connection now.
    pub(crate) fn cut(&mut self) {
        self.dead = true;
    }

    /// Nothing more can happen with it. A stream whose client has gone stays while input is unread.
    pub(crate) fn is_over(&self) -> bool {
        let unread = matches!(self.role, Role::Stream(s) if s.stdin) && !self.input_ended;
        self.dead || (self.closing && !self.wants_to_send()) || (self.hung_up && !unread)
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
