//! The loop that places: read a snapshot, plan, apply if nobody else applied meanwhile. A round
//! serves everything that is unplaced, whoever asked for it, and answers who waits.

use std::{collections::BTreeMap, sync::Arc};

use chassis::{
    Bus,
    metrics::Metrics,
    prometheus::{HistogramVec, IntCounterVec, IntGauge},
    reconcile::Reconciler,
};
use contract::wake::Topic;
use model::{ContainerId, Error, HostId, Result};
use store::{Applied, PLANNED_AT_ONCE, Store};

use crate::placements::{Placements, Waiter};

/// Rounds lost to another scheduler before the askers are told to come again.
const STALE_MAX: u32 = 100;

pub(crate) struct PlanLoop {
    store: Store,
    bus: Bus,
    placements: Arc<Placements>,
    durations: HistogramVec,
    outcomes: IntCounterVec,
    unplaced: IntGauge,
}

/// What a round decided.
#[derive(Default)]
struct Decided {
    placed: BTreeMap<ContainerId, HostId>,
    explained: BTreeMap<ContainerId, Error>,
    /// There may be more than this round looked at.
    more: bool,
}

/// What no change of the fleet will help is a conflict, the rest may come right.
fn explained(why: &planner::Explanation) -> Error {
    if why.is_lasting() { Error::Conflict(why.to_string()) } else { Error::NoCapacity(why.to_string()) }
}

impl PlanLoop {
    pub(crate) fn new(store: Store, bus: Bus, placements: Arc<Placements>, metrics: &Metrics) -> Self {
        Self {
            store,
            bus,
            placements,
            durations: metrics.seconds("wharfage_plan_duration_seconds", "From snapshot to applied plan", &[]),
            outcomes: metrics.counter("wharfage_plan_outcomes_total", "What became of plans", &["outcome"]),
            unplaced: metrics.gauge("wharfage_unplaced_containers", "Containers no host can take now"),
        }
    }

    /// Plans until a plan is applied or there is nothing to apply.
    async fn decide(&self, first: &[ContainerId]) -> Result<Decided> {
        for _ in 0..STALE_MAX {
            let timer = self.durations.with_label_values(&[] as &[&str]).start_timer();
            let Some(snapshot) = self.store.plan_snapshot(first).await? else {
                timer.stop_and_discard();
                self.unplaced.set(0);
                return Ok(Decided::default());
            };
            let plan = planner::plan(&snapshot);
            let applied = if plan.steps.is_empty() {
                Applied::Done { placed: BTreeMap::new(), changed: std::collections::BTreeSet::new() }
            } else {
                self.store.apply_plan(&plan).await?
            };
            timer.observe_duration();
            let (placed, changed) = match applied {
                Applied::Stale => {
                    self.outcomes.with_label_values(&["stale"]).inc();
                    continue;
                }
                Applied::Done { placed, changed } => (placed, changed),
            };
            for host in changed {
                self.bus.publish(&Topic::Host(host));
            }
            self.note(&plan, placed.len());
            let explained = plan.unplaced.into_iter().map(|(id, why)| (id, explained(&why))).collect();
            let more = i64::try_from(snapshot.unplaced.len()).is_ok_and(|n| n >= PLANNED_AT_ONCE) && !placed.is_empty();
            return Ok(Decided { placed, explained, more });
        }
        Err(Error::Unavailable("other schedulers were faster each time; try again".into()))
    }

    fn note(&self, plan: &planner::Plan, placed: usize) {
        if placed > 0 {
            self.outcomes.with_label_values(&["applied"]).inc();
            tracing::debug!(epoch = plan.epoch, placed, "plan applied");
        }
        self.unplaced.set(i64::try_from(plan.unplaced.len()).unwrap_or(i64::MAX));
        if let Some((container, why)) = plan.unplaced.first() {
            tracing::info!(unplaced = plan.unplaced.len(), %container, %why, "no host for some containers");
        }
    }

    async fn answer(&self, waiters: Vec<Waiter>, decided: Decided) {
        let mut unknown = Vec::new();
        for waiter in waiters {
            if let Some(host) = decided.placed.get(&waiter.container) {
                waiter.answer(Ok(*host));
            } else if let Some(why) = decided.explained.get(&waiter.container) {
                waiter.answer(Err(why.clone()));
            } else {
                unknown.push(waiter);
            }
        }
        if unknown.is_empty() {
            return;
        }
        // Placed before, by this scheduler or another; or removed while we planned; or one too many.
        let ids: Vec<ContainerId> = unknown.iter().map(|waiter| waiter.container.clone()).collect();
        let placed = self.store.placements(&ids).await;
        let mut again = Vec::new();
        for waiter in unknown {
            match &placed {
                Err(error) => waiter.answer(Err(error.clone())),
                Ok(placed) => match placed.get(&waiter.container) {
                    Some(host) => waiter.answer(Ok(*host)),
                    None if decided.more && !waiter.is_gone() => again.push(waiter),
                    None => {
                        let gone = format!("No such container: {}", waiter.container);
                        waiter.answer(Err(Error::NotFound(gone)));
                    }
                },
            }
        }
        self.placements.put_back(again);
    }
}

impl Reconciler for PlanLoop {
    type Status = ();

    async fn reconcile(&mut self) {
        let waiters = self.placements.take();
        let first: Vec<ContainerId> = waiters.iter().map(|waiter| waiter.container.clone()).collect();
        match self.decide(&first).await {
            Ok(decided) => {
                if decided.more {
                    self.placements.wake().notify_one();
                }
                self.answer(waiters, decided).await;
            }
            Err(error) => {
                tracing::warn!(%error, "this round placed nothing");
                for waiter in waiters {
                    waiter.answer(Err(error.clone()));
                }
            }
        }
    }
}
