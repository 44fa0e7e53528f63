//! Quantities that cannot be mixed up or overflow: bytes of memory, billionths of a CPU.

use std::ops::Add;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// What is left after taking `other`; zero rather than less.
            #[must_use]
            pub fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }

        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }
        }
    };
}

quantity!(
    /// Bytes of memory.
    MemoryBytes
);
quantity!(
    /// Billionths of one CPU (Docker's `NanoCpus`).
    NanoCpus
);
