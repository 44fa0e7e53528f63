//! Drawing ids and secrets. All randomness comes from the kernel; nothing here can be guessed.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    digest,
    rand::{SecureRandom as _, SystemRandom},
};
use uuid::Uuid;

/// What every token begins with, so that secret scanners recognise it.
pub const TOKEN_PREFIX: &str = "whf_";

/// Fresh random bytes.
#[must_use]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0_u8; N];
    SystemRandom::new().fill(&mut bytes).expect("the kernel's random generator never fails once it is seeded");
    bytes
}

/// A new UUIDv7: ids made later sort later, which keeps indexes compact.
#[must_use]
pub fn uuid_v7() -> Uuid {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
    uuid::Builder::from_unix_timestamp_millis(millis, &random_bytes()).into_uuid()
}

/// Bytes for a 64-digit id: `ContainerId::from_bytes(random_hex_id())`.
#[must_use]
pub fn random_hex_id() -> [u8; 32] {
    random_bytes()
}

/// A new secret of 256 random bits: `whf_` and 43 characters of base64url.
#[must_use]
pub fn random_token() -> String {
    format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(random_bytes::<32>()))
}

/// SHA-256, the only form in which a token is stored.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0_u8; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_of_version_seven_and_new() {
        let (a, b) = (uuid_v7(), uuid_v7());
        assert_eq!(a.get_version_num(), 7);
        assert_ne!(a, b);
    }

    #[test]
    fn a_token_carries_256_bits() {
        let token = random_token();
        let secret = token.strip_prefix(TOKEN_PREFIX).expect("prefix");
        assert_eq!(URL_SAFE_NO_PAD.decode(secret).expect("base64url").len(), 32);
        assert_ne!(token, random_token());
    }

    #[test]
    fn sha256_is_sha256() {
        assert_eq!(hex::encode(sha256(b"abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
