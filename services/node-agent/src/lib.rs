//! tmp
pub mod config;
mod discard;
mod keeper;
mod layers;
mod reconcile;
