//! The public door as a client meets it: the whole router in process, over a real PostgreSQL with
//! the gateway's own role. Image-svc is stood in for by a server that speaks its contract.

mod credentials;
mod document;
mod images;
mod limits;
mod listeners;
mod login;
mod platform;
mod registry;
mod registry_reads;
mod wire;
mod world;
