//! Every limit of the public face, in one place, each with a test that reaches it; and the rate
//! limit, a bucket of tokens per project. The bucket lives in Redis so that several gateways share
//! it; with Redis away each gateway counts for itself. Nothing is ever authorized by it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::http::{HeaderMap, StatusCode, Uri};
use model::{Error, ProjectId, Result};
use serde::Deserialize;
use time::OffsetDateTime;
use tokio::sync::OnceCell;

use crate::together::Together;

/// Most a file system in memory may hold (`/dev/shm`, tmpfs, volumes of memory): it counts as memory, and
/// no host has more to spare.
pub(crate) const MEMORY_FILE_SYSTEM_BYTES: u64 = 16 << 30;
/// Largest JSON request body.
pub(crate) const JSON_BODY_BYTES: usize = 4 * 1024 * 1024;
/// Most keys of one JSON object.
pub(crate) const JSON_KEYS: usize = 50_000;
/// Longest path.
pub(crate) const PATH_BYTES: usize = 8 * 1024;
/// Longest query string.
pub(crate) const QUERY_BYTES: usize = 32 * 1024;
/// Bytes of all header names and values together.
pub(crate) const HEADER_BYTES: usize = 48 * 1024;
/// Header lines.
pub(crate) const HEADERS: usize = 96;
/// Longest credential.
pub(crate) const TOKEN_BYTES: usize = 1024;
/// Execs that an inspect of a container names.
pub(crate) const SHOWN_EXECS: i64 = 1_000;
/// Longest message of a WebSocket.
pub(crate) const WEBSOCKET_MESSAGE_BYTES: usize = 1024 * 1024;
/// Longest token of the registry's own token service.
pub(crate) const REGISTRY_TOKEN_BYTES: usize = 8 * 1024;
/// Longest form that asks for one.
pub(crate) const TOKEN_FORM_BYTES: usize = 16 * 1024;
/// Manifests of the hosted registry that are kept in memory, all together.
pub(crate) const MANIFESTS_READ_BYTES: u64 = 64 * 1024 * 1024;
/// What keeping one costs besides its bytes.
pub(crate) const MANIFEST_OVERHEAD_BYTES: u64 = 512;
/// Longest `X-Registry-Auth`.
pub(crate) const REGISTRY_AUTH_BYTES: usize = 16 * 1024;

/// Time Redis has to answer about a bucket; longer, and it counts as away.
const REDIS_PATIENCE: Duration = Duration::from_millis(50);
/// How long Redis is left alone after it did not answer.
const REDIS_REST: time::Duration = time::Duration::seconds(5);
/// Buckets a gateway keeps itself; beyond, the fullest are forgotten.
const LOCAL_BUCKETS: usize = 10_000;

/// Refuses what is too large before anything else looks at it.
pub(crate) fn check(uri: &Uri, headers: &HeaderMap) -> std::result::Result<(), (StatusCode, &'static str)> {
    if uri.path().len() > PATH_BYTES {
        return Err((StatusCode::URI_TOO_LONG, "the path is too long"));
    }
    if uri.query().is_some_and(|query| query.len() > QUERY_BYTES) {
        return Err((StatusCode::URI_TOO_LONG, "the query is too long"));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() > HEADERS || bytes > HEADER_BYTES {
        return Err((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the request headers are too large"));
    }
    Ok(())
}

/// How many requests a project may make.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimit {
    /// Requests per second, sustained; 0 turns the limit off.
    pub per_second: u32,
    /// Requests at once after a rest.
    pub burst: u32,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { per_second: 1_000, burst: 4_000 }
    }
}

/// The buckets of all projects.
#[derive(Clone)]
pub(crate) struct Rates(Arc<Inner>);

struct Inner {
    limit: RateLimit,
    redis: Option<redis::Client>,
    connection: OnceCell<redis::aio::ConnectionManager>,
    redis_rests_until_ms: AtomicI64,
    local: Mutex<HashMap<ProjectId, Bucket>>,
    /// Requests at once take their tokens at once.
    takers: Together<ProjectId, Arc<AtomicU32>>,
}

impl std::fmt::Debug for Rates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rates").field("limit", &self.0.limit).finish_non_exhaustive()
    }
}

/// Takes tokens in Redis, as many as are there. KEYS[1]: bucket. ARGV: now in ms, tokens per second, burst,
/// wanted.
const TAKE: &str = r"
local had = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens, at = tonumber(had[1]) or tonumber(ARGV[3]), tonumber(had[2]) or tonumber(ARGV[1])
tokens = math.min(tonumber(ARGV[3]), tokens + math.max(0, tonumber(ARGV[1]) - at) * tonumber(ARGV[2]) / 1000)
local taken = math.min(tonumber(ARGV[4]), math.floor(tokens))
tokens = tokens - taken
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', ARGV[1])
redis.call('PEXPIRE', KEYS[1], math.ceil(tonumber(ARGV[3]) / tonumber(ARGV[2]) * 1000) + 1000)
return taken";

impl Rates {
    /// Buckets in Redis at `url`, or in this process.
    pub(crate) fn new(limit: RateLimit, redis_url: Option<&str>) -> Result<Self> {
        let redis = redis_url.filter(|url| !url.is_empty()).map(redis::Client::open).transpose();
        let redis = redis.map_err(|e| Error::invalid("redis url", &e.to_string()))?;
        Ok(Self(Arc::new(Inner {
            limit,
            redis,
            connection: OnceCell::new(),
            redis_rests_until_ms: AtomicI64::new(0),
            local: Mutex::default(),
            takers: Together::default(),
        })))
    }

    /// Takes one token of a project's bucket, or refuses.
    pub(crate) async fn take(&self, project: ProjectId, now: OffsetDateTime) -> Result<()> {
        if self.0.limit.per_second == 0 {
            return Ok(());
        }
        let taken = self.0.takers.ask(project, async |takers| {
            let wanted = u32::try_from(takers).unwrap_or(u32::MAX);
            let taken = match self.take_shared(project, now, wanted).await {
                Some(taken) => taken,
                None => self.take_locally(project, now, wanted),
            };
            Ok(Arc::new(AtomicU32::new(taken)))
        });
        let mine = taken.await?.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if mine.is_ok() { Ok(()) } else { Err(Error::LimitExceeded("too many requests; slow down".into())) }
    }

    async fn take_shared(&self, project: ProjectId, now: OffsetDateTime, wanted: u32) -> Option<u32> {
        let client = self.0.redis.as_ref()?;
        let now_ms = millis(now);
        if now_ms < self.0.redis_rests_until_ms.load(Ordering::Relaxed) {
            return None;
        }
        let asked = tokio::time::timeout(REDIS_PATIENCE, async {
            let mut connection = self.0.connection.get_or_try_init(|| client.get_connection_manager()).await?.clone();
            let RateLimit { per_second, burst } = self.0.limit;
            let mut call = redis::cmd("EVAL");
            call.arg(TAKE).arg(1).arg(format!("wharfage:rate:{project}")).arg(now_ms).arg(per_second).arg(burst);
            call.arg(wanted).query_async::<u32>(&mut connection).await
        });
        match asked.await {
            Ok(Ok(taken)) => Some(taken),
            Ok(Err(_)) | Err(_) => {
                self.0.redis_rests_until_ms.store(millis(now + REDIS_REST), Ordering::Relaxed);
                None
            }
        }
    }

    fn take_locally(&self, project: ProjectId, now: OffsetDateTime, wanted: u32) -> u32 {
        let mut buckets = self.0.local.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = self.0.limit;
        if buckets.len() >= LOCAL_BUCKETS && !buckets.contains_key(&project) {
            buckets.retain(|_, bucket| !bucket.is_full(limit, now));
        }
        buckets.entry(project).or_insert_with(|| Bucket::full(limit, now)).take(limit, now, wanted)
    }
}

fn millis(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: OffsetDateTime,
}

impl Bucket {
    fn full(limit: RateLimit, now: OffsetDateTime) -> Self {
        Self { tokens: f64::from(limit.burst), at: now }
    }

    fn refilled(&self, limit: RateLimit, now: OffsetDateTime) -> f64 {
        let earned = (now - self.at).as_seconds_f64().max(0.0) * f64::from(limit.per_second);
        (self.tokens + earned).min(f64::from(limit.burst))
    }

    fn is_full(&self, limit: RateLimit, now: OffsetDateTime) -> bool {
        self.refilled(limit, now) >= f64::from(limit.burst)
    }

    fn take(&mut self, limit: RateLimit, now: OffsetDateTime, wanted: u32) -> u32 {
        self.tokens = self.refilled(limit, now);
        self.at = now;
        let taken = self.tokens.min(f64::from(wanted)).floor();
        self.tokens -= taken;
        // Between nothing and what a u32 wanted.
        taken as u32
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    const LIMIT: RateLimit = RateLimit { per_second: 10, burst: 3 };

    fn project(n: u128) -> ProjectId {
        ProjectId(uuid::Uuid::from_u128(n))
    }

    #[tokio::test]
    async fn a_bucket_empties_and_fills_again_and_is_the_projects_own() {
        let rates = Rates::new(LIMIT, None).expect("no redis");
        let start = OffsetDateTime::UNIX_EPOCH;
        for _ in 0..3 {
            rates.take(project(1), start).await.expect("within the burst");
        }
        assert!(matches!(rates.take(project(1), start).await, Err(Error::LimitExceeded(_))));
        rates.take(project(2), start).await.expect("another project's bucket");
        rates.take(project(1), start + time::Duration::milliseconds(100)).await.expect("one more after a tenth");
        assert!(rates.take(project(1), start + time::Duration::milliseconds(100)).await.is_err());
    }

    #[tokio::test]
    async fn requests_at_once_get_what_is_there_and_not_one_more() {
        let rates = Rates::new(LIMIT, None).expect("no redis");
        let all = (0..20).map(|_| rates.take(project(1), OffsetDateTime::UNIX_EPOCH));
        let served = futures::future::join_all(all).await.into_iter().filter(Result::is_ok).count();
        assert_eq!(served, 3);
    }

    #[tokio::test]
    async fn with_redis_away_the_gateway_counts_for_itself() {
        let rates = Rates::new(LIMIT, Some("redis://127.0.0.1:1/")).expect("parses");
        let now = OffsetDateTime::now_utc();
        for _ in 0..3 {
            rates.take(project(1), now).await.expect("within the burst");
        }
        assert!(rates.take(project(1), now).await.is_err());
    }

    #[test]
    fn what_is_too_large_is_refused_before_anything_else() {
        let none = HeaderMap::new();
        let refused = |uri: &str, headers: &HeaderMap| {
            check(&uri.parse().expect("a URI"), headers).err().map(|(status, _)| status.as_u16())
        };
        assert_eq!(refused("/containers/json", &none), None);
        assert_eq!(refused(&format!("/{}", "a".repeat(PATH_BYTES)), &none), Some(414));
        assert_eq!(refused(&format!("/x?{}", "a".repeat(QUERY_BYTES + 1)), &none), Some(414));
        let long = HeaderMap::from_iter([(
            HeaderName::from_static("x-a"),
            HeaderValue::from_str(&"a".repeat(HEADER_BYTES)).expect("a value"),
        )]);
        assert_eq!(refused("/x", &long), Some(431));
        let mut many = HeaderMap::new();
        for n in 0..=HEADERS {
            many.append("x-a", HeaderValue::from(n));
        }
        assert_eq!(refused("/x", &many), Some(431));
    }
}
