//! Typed identifiers. Two families: UUIDv7 for what Wharfage names itself, 64 hex digits for what
//! the Docker API shows (containers, execs, networks). An id of one kind cannot stand for another.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Error;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(s: &str) -> Result<Self, Error> {
                Uuid::parse_str(s).map(Self).map_err(|_| Error::invalid(stringify!($name), "is not a UUID"))
            }
        }
    };
}

uuid_id!(
    /// A tenant: the organisation that owns projects and is billed for them.
    TenantId
);
uuid_id!(
    /// A project: the unit of isolation. A credential opens exactly one; it looks like one Docker host.
    ProjectId
);
uuid_id!(
    /// A host of the fleet, as its certificate names it.
    HostId
);
uuid_id!(
    /// A credential's record (never the secret itself).
    TokenId
);
uuid_id!(
    /// A repository of the hosted registry.
    RepositoryId
);
uuid_id!(
    /// An upload to the hosted registry that is not finished.
    UploadId
);

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
        pub struct $name(String);

        impl $name {
            /// Renders 32 random bytes as an id. The caller draws them: this crate has no randomness.
            #[must_use]
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(hex::encode(bytes))
            }
            /// All 64 digits.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
            /// The first 12 digits, as `docker ps` shows them.
            #[must_use]
            pub fn short(&self) -> &str {
                &self.0[..12]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(s: &str) -> Result<Self, Error> {
                Self::try_from(s.to_owned())
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(s: String) -> Result<Self, Error> {
                let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
                if s.len() == 64 && s.bytes().all(hex) {
                    Ok(Self(s))
                } else {
                    Err(Error::invalid(stringify!($name), "is not 64 lower-case hex digits"))
                }
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

hex_id!(
    /// A container.
    ContainerId
);
hex_id!(
    /// One exec: a further process inside a running container.
    ExecId
);
hex_id!(
    /// A network of a project.
    NetworkId
);
hex_id!(
    /// A volume: names its directory on its host, whatever the tenant calls it.
    VolumeId
);
