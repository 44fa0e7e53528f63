//! The limits of every HTTP face, in one place. A service may lower or raise them per server.

use std::time::Duration;

/// Longest line of an NDJSON stream between services. A host's full plan is one line.
pub const LINE_BYTES: usize = 64 * 1024 * 1024;
/// Largest error body a client reads.
pub const ERROR_BODY_BYTES: usize = 64 * 1024;
/// Largest JSON answer a client reads.
pub const ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// Time to connect to another service.
pub const CONNECT: Duration = Duration::from_secs(3);
/// Time for a whole call to another service, unless the caller says otherwise.
pub const CALL: Duration = Duration::from_secs(30);
/// An idle connection is kept for less time than the server keeps it, so that a call never meets a closing one.
pub const POOL_IDLE: Duration = Duration::from_secs(20);
/// Time for requests and tasks to end after a signal to stop.
pub const DRAIN: Duration = Duration::from_secs(10);

/// Limits of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Connections at once; more wait in the kernel's backlog.
    pub connections: usize,
    /// Time for a request's header to arrive; also how long an idle connection is kept.
    pub header_read: Duration,
    /// Time for a TLS handshake.
    pub handshake: Duration,
    /// Header lines per request.
    pub headers: usize,
    /// Bytes of a request's header.
    pub header_bytes: usize,
    /// Bytes of a body that a handler takes in one piece (`Json`, `Bytes`); streams have no such limit.
    pub body_bytes: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections: 8192,
            header_read: Duration::from_secs(30),
            handshake: Duration::from_secs(10),
            headers: 100,
            header_bytes: 64 * 1024,
            body_bytes: 8 * 1024 * 1024,
        }
    }
}
