//! HTTP servers: listeners, connections, who is on the other end, and what happens to every request.

mod connection;
mod endless;
mod file;
mod layers;
mod listen;
mod ops;
mod peer;
mod sending;
mod server;

pub use endless::Endless;
pub use file::file_body;
pub(crate) use layers::Observer;
pub use layers::only;
pub use listen::Listen;
pub use peer::{Caller, Peer, PeerCertificate};
pub use server::{Bound, Server};
