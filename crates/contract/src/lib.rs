//! What services say to each other: documents and paths of every internal API. All of it is HTTP
//! with JSON over mTLS (agent to netd: a unix socket of the host). Errors travel as
//! [`model::Error`] in the body, so that they keep their kind across services.
//!
//! Lockstep: one repository, one release. The host documents ([`host`]) alone must tolerate the
//! release before, because hosts are upgraded one by one: fields are only ever added, with defaults.

pub mod agent;
pub mod host;
pub mod image;
pub mod net;
pub mod place;
pub mod registry;
pub mod socket;
pub mod wake;

/// Header that carries the request id from the edge through every service and its logs.
pub const REQUEST_ID: &str = "x-request-id";
