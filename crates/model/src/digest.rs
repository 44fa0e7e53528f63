//! Content digests (OCI image spec, "Digests"): an algorithm and a hash, the name of a blob.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Error;

/// A `sha256:<64 hex>` or `sha512:<128 hex>` digest.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$")]
pub struct Digest(String);

/// The hash of a digest. Both are registered by the OCI image spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DigestAlgorithm {
    /// `sha256`
    Sha256,
    /// `sha512`
    Sha512,
}

impl DigestAlgorithm {
    /// As a digest begins.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl FromStr for DigestAlgorithm {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self, Error> {
        match s {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            _ => Err(Error::invalid("digest algorithm", "is neither sha256 nor sha512")),
        }
    }
}

impl Digest {
    /// Names content by its SHA-256 sum.
    #[must_use]
    pub fn sha256(sum: [u8; 32]) -> Self {
        Self(format!("sha256:{}", hex::encode(sum)))
    }

    /// Names content by its SHA-512 sum.
    #[must_use]
    pub fn sha512(sum: [u8; 64]) -> Self {
        Self(format!("sha512:{}", hex::encode(sum)))
    }

    /// Its hash.
    #[must_use]
    pub fn algorithm(&self) -> DigestAlgorithm {
        if self.0.starts_with("sha512:") { DigestAlgorithm::Sha512 } else { DigestAlgorithm::Sha256 }
    }

    /// `sha256:…` in full.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hex digits without the algorithm; safe as a file name.
    #[must_use]
    pub fn hex(&self) -> &str {
        // Both names are as long.
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
        let known = s.split_once(':').and_then(|(name, digits)| Some((name.parse::<DigestAlgorithm>().ok()?, digits)));
        match known {
            Some((algorithm, digits)) if digits.len() == algorithm.hex_digits() && digits.bytes().all(hex) => {
                Ok(Self(s))
            }
            Some(_) | None => {
                Err(Error::invalid("digest", "is not sha256: and 64, or sha512: and 128 lower-case hex digits"))
            }
        }
    }
}

impl From<Digest> for String {
    fn from(d: Digest) -> String {
        d.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_sha256_or_sha512_with_as_many_lower_case_digits() {
        let (short, long) = ("a".repeat(64), "b".repeat(128));
        for (text, algorithm, digits) in [
            (format!("sha256:{short}"), DigestAlgorithm::Sha256, &short),
            (format!("sha512:{long}"), DigestAlgorithm::Sha512, &long),
        ] {
            let digest: Digest = text.parse().expect("a digest");
            assert_eq!(
                (digest.algorithm(), digest.hex(), digest.as_str()),
                (algorithm, digits.as_str(), text.as_str())
            );
        }
        for bad in [
            "",
            "sha256",
            "sha256:",
            &short,
            &format!("sha512:{short}"),
            &format!("sha256:{long}"),
            &format!("md5:{short}"),
            &format!("sha256:{}", "A".repeat(64)),
            &format!("sha256:{}/", "a".repeat(63)),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
