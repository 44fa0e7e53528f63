//! tmp
pub(crate) mod diff;
