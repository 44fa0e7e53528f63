//! The rate limit: a bucket of tokens per project. The bucket lives in Redis so that several gateways
//! share it; with Redis away each gateway counts for itself. Nothing is ever authorized by it.
//!
//! A gateway takes a few tokens ahead of those who ask, so that most requests make no round trip for it.
//! Invariant: all gateways together never give more than the bucket had; what was taken ahead and not
//! asked for within a second is lost to the project.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
    time::Duration,
};

use model::{Error, ProjectId, Result};
use serde::Deserialize;
use time::OffsetDateTime;
use tokio::sync::OnceCell;

use crate::together::Together;

/// Time Redis has to answer about a bucket; longer, and it counts as away.
const REDIS_PATIENCE: Duration = Duration::from_millis(50);
/// How long Redis is left alone after it did not answer.
const REDIS_REST: time::Duration = time::Duration::seconds(5);
/// Buckets a gateway keeps itself; beyond, the fullest are forgotten.
const LOCAL_BUCKETS: usize = 10_000;

/// Which part of what a project may ask in a second is taken ahead, at most.
const AHEAD_PART: u32 = 20;
/// Most tokens taken ahead.
const AHEAD_MAX: u32 = 64;
/// How long they are good for.
const AHEAD_LASTS: time::Duration = time::Duration::seconds(1);

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
    ahead: Mutex<HashMap<ProjectId, Ahead>>,
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
            ahead: Mutex::default(),
            takers: Together::default(),
        })))
    }

    /// Takes one token of a project's bucket, or refuses.
    pub(crate) async fn take(&self, project: ProjectId, now: OffsetDateTime) -> Result<()> {
        if self.0.limit.per_second == 0 {
            return Ok(());
        }
        if self.take_ahead(project, now, 1) == 1 {
            return Ok(());
        }
        let taken = self.0.takers.ask(project, async |takers| {
            let wanted = u32::try_from(takers).unwrap_or(u32::MAX);
            // Whoever looked before these may have left some.
            let had = self.take_ahead(project, now, wanted);
            let missing = wanted - had;
            let more = (self.0.limit.per_second / AHEAD_PART).min(AHEAD_MAX);
            let taken = match self.take_shared(project, now, missing.saturating_add(more)).await {
                Some(taken) => {
                    self.put_ahead(project, now, taken.saturating_sub(missing));
                    taken.min(missing)
                }
                None => self.take_locally(project, now, missing),
            };
            Ok(Arc::new(AtomicU32::new(had + taken)))
        });
        let mine = taken.await?.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if mine.is_ok() { Ok(()) } else { Err(Error::LimitExceeded("too many requests; slow down".into())) }
    }

    fn take_ahead(&self, project: ProjectId, now: OffsetDateTime, wanted: u32) -> u32 {
        let mut all = self.0.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(ahead) = all.get_mut(&project).filter(|ahead| ahead.until > now) else { return 0 };
        let taken = ahead.tokens.min(wanted);
        ahead.tokens -= taken;
        taken
    }

    fn put_ahead(&self, project: ProjectId, now: OffsetDateTime, tokens: u32) {
        let mut all = self.0.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= LOCAL_BUCKETS {
            all.retain(|_, ahead| ahead.until > now);
        }
        all.insert(project, Ahead { tokens, until: now + AHEAD_LASTS });
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

/// Tokens of Redis' bucket that nobody has asked for yet.
struct Ahead {
    tokens: u32,
    until: OffsetDateTime,
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
}
