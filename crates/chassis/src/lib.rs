//! The chassis every service stands on: start and stop, configuration, telemetry, HTTP in and out
//! with mutual TLS, wake-ups, the reconcile driver. It knows no domain beyond `model::Error` and the
//! documents' names in `contract`; it never reads a database.

pub mod backoff;
pub mod bus;
pub mod client;
pub mod clock;
pub mod config;
pub mod error;
pub mod health;
pub mod http;
pub mod ids;
pub mod limits;
pub mod metrics;
pub mod pki;
pub mod problem;
pub mod reconcile;
pub mod request;
mod run;
pub mod telemetry;
pub mod tls;

pub use axum;
pub use bus::Bus;
pub use clock::Clock;
pub use config::{Common, Secret};
pub use error::{Answer, Failure};
pub use health::Health;
pub use http::{Caller, Endless, Listen, Peer, PeerCertificate, Server};
pub use problem::{Problem, Problems};
pub use prometheus;
pub use reqwest;
pub use run::{App, Ctx, main};
pub use tls::{ClientAuth, ClientTls, ExpectedPeer, ServerTls};
pub use tokio_util::sync::CancellationToken;
