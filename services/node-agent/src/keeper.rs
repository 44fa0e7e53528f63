//! tmp
pub(crate) mod machine;
mod restart;
