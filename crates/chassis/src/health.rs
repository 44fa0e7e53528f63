//! Readiness: named checks that must all pass, and named facts that are only told. A check has two
//! seconds; one that hangs has failed.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

const CHECK_TIME: Duration = Duration::from_secs(2);

type CheckFuture = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
type Check = Arc<dyn Fn() -> CheckFuture + Send + Sync>;
type Fact = Arc<dyn Fn() -> String + Send + Sync>;

/// The checks of one process.
#[derive(Clone, Default)]
pub struct Health(Arc<Inner>);

#[derive(Default)]
struct Inner {
    checks: RwLock<BTreeMap<String, Check>>,
    facts: RwLock<BTreeMap<String, Fact>>,
    draining: CancellationToken,
}

/// A check that the service itself switches.
#[derive(Clone, Debug)]
pub struct Flag(Arc<AtomicBool>);

impl Flag {
    /// It works, or no longer does.
    pub fn set(&self, ok: bool) {
        self.0.store(ok, Ordering::Release);
    }
}

/// The answer of `/readyz`.
#[derive(Clone, Debug, Serialize)]
pub struct Readiness {
    /// Whether all checks pass.
    pub ready: bool,
    /// Each check: `ok`, or why not.
    pub checks: BTreeMap<String, String>,
    /// Told, but never a reason to be unready.
    pub facts: BTreeMap<String, String>,
}

impl Health {
    /// Registers a check that `/readyz` runs each time.
    pub fn check<F, Fut>(&self, name: &str, check: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        let check: Check = Arc::new(move || Box::pin(check()));
        self.0.checks.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), check);
    }

    /// Registers a check that is switched by hand, and fails until it is switched on.
    #[must_use]
    pub fn flag(&self, name: &str) -> Flag {
        let flag = Flag(Arc::new(AtomicBool::new(false)));
        let read = flag.0.clone();
        self.check(name, move || {
            let ok = read.load(Ordering::Acquire);
            async move { if ok { Ok(()) } else { Err("not yet".to_owned()) } }
        });
        flag
    }

    /// Registers something worth telling that does not decide readiness.
    pub fn fact(&self, name: &str, fact: impl Fn() -> String + Send + Sync + 'static) {
        self.0.facts.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), Arc::new(fact));
    }

    /// From now on the process is not ready: it is about to stop.
    pub(crate) fn drain(&self) {
        self.0.draining.cancel();
    }

    /// Cancelled when the process begins to stop. Answers that never end by themselves end then.
    #[must_use]
    pub fn draining(&self) -> CancellationToken {
        self.0.draining.clone()
    }

    /// Runs all checks at once.
    pub async fn readiness(&self) -> Readiness {
        let checks: Vec<(String, Check)> = {
            let checks = self.0.checks.read().unwrap_or_else(PoisonError::into_inner);
            checks.iter().map(|(name, check)| (name.clone(), check.clone())).collect()
        };
        let results = futures::future::join_all(checks.into_iter().map(|(name, check)| async move {
            let outcome = tokio::time::timeout(CHECK_TIME, check()).await;
            (name, outcome.unwrap_or_else(|_| Err("no answer in time".to_owned())))
        }));
        let mut results: BTreeMap<String, Result<(), String>> = results.await.into_iter().collect();
        if self.0.draining.is_cancelled() {
            results.insert("running".to_owned(), Err("stopping".to_owned()));
        }
        let facts = self.0.facts.read().unwrap_or_else(PoisonError::into_inner);
        Readiness {
            ready: results.values().all(Result::is_ok),
            checks: results.into_iter().map(|(name, r)| (name, r.err().unwrap_or_else(|| "ok".to_owned()))).collect(),
            facts: facts.iter().map(|(name, fact)| (name.clone(), fact())).collect(),
        }
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_means_every_check_passes_and_facts_do_not_count() {
        let health = Health::default();
        health.fact("redis", || "down".to_owned());
        assert!(health.readiness().await.ready);
        let flag = health.flag("plan");
        let readiness = health.readiness().await;
        assert!(!readiness.ready);
        assert_eq!(readiness.checks["plan"], "not yet");
        assert_eq!(readiness.facts["redis"], "down");
        flag.set(true);
        assert!(health.readiness().await.ready);
        health.drain();
        assert!(!health.readiness().await.ready);
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_has_failed() {
        let health = Health::default();
        health.check("stuck", std::future::pending);
        assert_eq!(health.readiness().await.checks["stuck"], "no answer in time");
    }
}
