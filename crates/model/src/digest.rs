//! Content digests (OCI image spec, "Digests"): an algorithm and a hash, the name of a blob.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Error;

/// A `sha256:<64 hex>` digest. The only algorithm stored so far.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^sha256:[0-9a-f]{64}$")]
pub struct Digest(String);

impl Digest {
    /// Names content by its SHA-256 sum.
    #[must_use]
    pub fn sha256(sum: [u8; 32]) -> Self {
        Self(format!("sha256:{}", hex::encode(sum)))
    }

    /// `sha256:…` in full.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 hex digits without the algorithm; safe as a file name.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Digest {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self, Error> {
        Self::try_from(s.to_owned())
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;
    fn try_from(s: String) -> Result<Self, Error> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        match s.strip_prefix("sha256:") {
            Some(rest) if rest.len() == 64 && rest.bytes().all(hex) => Ok(Self(s)),
            _ => Err(Error::invalid("digest", "is not sha256: followed by 64 lower-case hex digits")),
        }
    }
}

impl From<Digest> for String {
    fn from(d: Digest) -> String {
        d.0
    }
}
