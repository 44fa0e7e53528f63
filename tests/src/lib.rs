//! What end-to-end tests share: the real docker CLI against a running suite (`.wharfage/env`), plain
//! REST against the gateway, and a look at what is left on the machine.

mod docker;
mod inside;
mod machine;
pub mod probe;
mod rest;
mod suite;
mod terminal;

pub use docker::{Docker, Outcome};
pub use inside::Inside;
pub use machine::Residue;
pub use probe::Cell;
pub use rest::{Reply, Rest};
pub use suite::{Suite, eventually, unique};
pub use terminal::Terminal;
