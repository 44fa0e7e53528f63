//! tmp
pub mod config;
mod keeper;
mod reconcile;
