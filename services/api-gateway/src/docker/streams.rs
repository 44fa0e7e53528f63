//! Byte streams between a Docker client and a host: the connection is taken over after the head of
//! the answer, and bytes are passed on as they are, each direction ending for itself.

mod detach_keys;
mod framed;
mod hijack;
mod relay;
mod websocket;

pub(crate) use detach_keys::DetachKeys;
pub(crate) use framed::Framed;
pub(crate) use hijack::{Client, content_type, plain_error, told};
pub(crate) use relay::{Ended, Input};
pub(crate) use websocket::Handshake;
