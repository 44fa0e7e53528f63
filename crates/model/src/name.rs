//! Names people choose, parsed on the way in.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Error;

macro_rules! parsed_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String)]
        pub struct $name(String);

        impl $name {
            /// The name as written, without Docker's leading slash.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
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

        impl From<$name> for String {
            fn from(n: $name) -> String {
                n.0
            }
        }
    };
}

parsed_name!(
    /// A container's name: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, at most 255 bytes (dockerd's rule).
    ContainerName
);
parsed_name!(
    /// A volume's name: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, at most 255 bytes (dockerd's rule of its `local` driver).
    VolumeName
);
parsed_name!(
    /// A tenant's or project's name: lower-case letters, digits and dashes, 1 to 63 bytes (an RFC 1123 label).
    Slug
);

impl TryFrom<String> for ContainerName {
    type Error = Error;
    fn try_from(s: String) -> Result<Self, Error> {
        let bare = s.strip_prefix('/').unwrap_or(&s);
        let first_ok = bare.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest_ok = bare.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if first_ok && rest_ok && (2..=255).contains(&bare.len()) {
            Ok(Self(bare.to_owned()))
        } else {
            // dockerd's text, which clients match.
            Err(Error::InvalidArgument(format!(
                "Invalid container name ({s}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            )))
        }
    }
}

impl TryFrom<String> for VolumeName {
    type Error = Error;
    fn try_from(s: String) -> Result<Self, Error> {
        let first_ok = s.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest_ok = s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        // dockerd's texts.
        if s.len() == 1 {
            return Err(Error::InvalidArgument(
                "volume name is too short, names should be at least two alphanumeric characters".into(),
            ));
        }
        if s.len() > 255 {
            return Err(Error::InvalidArgument("volume name is too long, names have at most 255 characters".into()));
        }
        if first_ok && rest_ok {
            Ok(Self(s))
        } else {
            Err(Error::InvalidArgument(format!(
                "\"{s}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
                 allowed. If you intended to pass a host directory, use absolute path"
            )))
        }
    }
}

impl TryFrom<String> for Slug {
    type Error = Error;
    fn try_from(s: String) -> Result<Self, Error> {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let dashes = s.starts_with('-') || s.ends_with('-');
        if (1..=63).contains(&s.len()) && s.bytes().all(inner) && !dashes {
            Ok(Self(s))
        } else {
            Err(Error::invalid("name", "is not 1 to 63 lower-case letters, digits and inner dashes"))
        }
    }
}
