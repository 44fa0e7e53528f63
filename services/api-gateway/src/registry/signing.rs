//! Registry tokens: JSON Web Tokens that say for some minutes what their holder may do to which
//! repository. They are signed with a key that all gateways share through Postgres; a new one is made
//! every day. A token proves nothing about what exists, and dies with the credential it was made from.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use model::{Error, Result, TokenId};
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use store::{RegistryKey, Store};
use time::OffsetDateTime;
use tokio::sync::RwLock;
use uuid::Uuid;

/// Who the tokens are for, and from.
pub(super) const SERVICE: &str = "wharfage";
/// How long one is good; clients ask again by themselves.
pub(super) const TOKEN_SECONDS: i64 = 300;
/// How long a key signs.
const SIGNS: Duration = Duration::from_secs(24 * 3600);
/// How long it is kept: longer than what it signed last is good.
const KEPT: Duration = Duration::from_secs(25 * 3600);
/// How long a gateway believes what it read: a key that an operator deletes is dead by then.
const BELIEVED: Duration = Duration::from_secs(60);
/// Clocks of gateways differ by less.
const LEEWAY_SECONDS: i64 = 10;
/// Tokens whose signature is not verified again.
const VERIFIED_KEPT: usize = 4_096;

/// One thing a token is good for, as the token spec of the distribution project writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Access {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) actions: Vec<String>,
}

impl Access {
    pub(super) fn allows(&self, kind: &str, name: &str, action: &str) -> bool {
        self.kind == kind && self.name == name && self.actions.iter().any(|granted| granted == action)
    }
}

/// What a token says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    iss: String,
    /// Id of the credential it was made from; empty for somebody unknown.
    sub: String,
    aud: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: Uuid,
    pub(super) access: Vec<Access>,
}

impl Claims {
    pub(super) fn new(made_from: Option<TokenId>, access: Vec<Access>, now: OffsetDateTime) -> Self {
        let now = now.unix_timestamp();
        Self {
            iss: SERVICE.to_owned(),
            sub: made_from.map(|token| token.to_string()).unwrap_or_default(),
            aud: SERVICE.to_owned(),
            iat: now,
            nbf: now,
            exp: now + TOKEN_SECONDS,
            jti: chassis::ids::uuid_v7(),
            access,
        }
    }

    fn are_good_at(&self, now: OffsetDateTime) -> bool {
        let now = now.unix_timestamp();
        now <= self.exp + LEEWAY_SECONDS && now >= self.nbf - LEEWAY_SECONDS
    }

    /// The credential it was made from.
    pub(super) fn made_from(&self) -> Option<TokenId> {
        // Only what we signed gets here; nil opens nothing.
        (!self.sub.is_empty()).then(|| self.sub.parse().unwrap_or(TokenId(Uuid::nil())))
    }
}

/// The keys as this gateway knows them.
#[derive(Clone)]
pub(crate) struct Keys(Arc<RwLock<Option<Read>>>, Arc<Cache<String, Verified>>);

/// A token whose signature was found good once: the same bytes stay so, as long as there is the key. When it
/// is good, and whether the credential behind it is, is asked each time.
#[derive(Clone)]
struct Verified {
    key: Uuid,
    claims: Arc<Claims>,
}

#[derive(Clone)]
struct Read {
    keys: Arc<[RegistryKey]>,
    at: Instant,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self(Arc::default(), Arc::new(Cache::new(VERIFIED_KEPT)))
    }
}

impl Keys {
    /// Signs.
    pub(super) async fn sign(&self, store: &Store, claims: &Claims) -> Result<String> {
        let keys = self.keys(store, BELIEVED).await?;
        let key = keys.first().ok_or_else(|| Error::internal("there is no key for registry tokens"))?;
        let header = Header { kid: Some(key.id.to_string()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(&key.secret)).map_err(Error::internal)
    }

    /// What a token says, if one of our keys signed it and it is good now.
    pub(super) async fn verify(&self, store: &Store, token: &str, now: OffsetDateTime) -> Result<Option<Arc<Claims>>> {
        let known = self.1.get(token);
        let id = match &known {
            Some(known) => known.key,
            None => match signer(token) {
                Some(id) => id,
                None => return Ok(None),
            },
        };
        let mut keys = self.keys(store, BELIEVED).await?;
        if !keys.iter().any(|key| key.id == id) {
            // Another gateway may have made one just now.
            keys = self.keys(store, Duration::from_secs(1)).await?;
        }
        let Some(key) = keys.iter().find(|key| key.id == id) else { return Ok(None) };
        let claims = match known {
            Some(known) => known.claims,
            None => match read(token, key) {
                Some(claims) => {
                    let claims = Arc::new(claims);
                    self.1.insert(token.to_owned(), Verified { key: id, claims: claims.clone() });
                    claims
                }
                None => return Ok(None),
            },
        };
        Ok(claims.are_good_at(now).then_some(claims))
    }

    async fn keys(&self, store: &Store, at_most: Duration) -> Result<Arc<[RegistryKey]>> {
        if let Some(read) = self.0.read().await.as_ref()
            && read.at.elapsed() < at_most
        {
            return Ok(read.keys.clone());
        }
        let mut held = self.0.write().await;
        if let Some(read) = held.as_ref()
            && read.at.elapsed() < at_most
        {
            return Ok(read.keys.clone());
        }
        let fresh = (chassis::ids::uuid_v7(), chassis::ids::random_bytes());
        let keys: Arc<[RegistryKey]> = store.registry_keys(fresh, SIGNS, KEPT).await?.into();
        *held = Some(Read { keys: keys.clone(), at: Instant::now() });
        Ok(keys)
    }
}

/// The key that a token says it was signed with.
fn signer(token: &str) -> Option<Uuid> {
    jsonwebtoken::decode_header(token).ok()?.kid?.parse().ok()
}

/// What a token says, if this key signed it for us. Until when it is good is the caller's to compare.
fn read(token: &str, key: &RegistryKey) -> Option<Claims> {
    let mut rules = Validation::new(Algorithm::HS256);
    rules.set_audience(&[SERVICE]);
    rules.set_issuer(&[SERVICE]);
    rules.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
    rules.validate_exp = false;
    let read = jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_secret(&key.secret), &rules);
    read.ok().map(|read| read.claims)
}
