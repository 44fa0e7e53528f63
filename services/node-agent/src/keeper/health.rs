//! Health, pure: what a probe means for a container's health, and when the next one is due. dockerd's
//! rules: failures in the start period do not count before a first success; as many failures in a row
//! as allowed make it unhealthy; one success makes it healthy.

use std::time::Duration;

use model::{HEALTH_LOG_ENTRIES, Health, HealthProbe, HealthStatus, Healthcheck};
use time::OffsetDateTime;

/// Of a run that begins. What was probed before stays in sight, as in dockerd.
pub(crate) fn begun(before: Option<Health>) -> Health {
    Health { status: HealthStatus::Starting, failing_streak: 0, log: before.map_or_else(Vec::new, |h| h.log) }
}

/// After a probe of a run that started at `started_at`.
pub(crate) fn after(mut health: Health, check: &Healthcheck, started_at: OffsetDateTime, probe: HealthProbe) -> Health {
    let age = since(started_at, probe.started_at);
    if probe.exit_code == 0 {
        health.failing_streak = 0;
        health.status = HealthStatus::Healthy;
    } else if health.status != HealthStatus::Starting || age >= Duration::from_millis(check.start_period_ms) {
        health.failing_streak = health.failing_streak.saturating_add(1);
        if health.failing_streak >= check.retries {
            health.status = HealthStatus::Unhealthy;
        }
    }
    health.log.push(probe);
    let over = health.log.len().saturating_sub(HEALTH_LOG_ENTRIES);
    health.log.drain(..over);
    health
}

/// How much of the rest after `last` (the end of the last probe, or the start) is still to come.
pub(crate) fn left(
    check: &Healthcheck,
    status: HealthStatus,
    started_at: OffsetDateTime,
    last: OffsetDateTime,
    now: OffsetDateTime,
) -> Duration {
    rest(check, status, started_at, last).saturating_sub(since(last, now))
}

/// How long to rest after `last`.
fn rest(check: &Healthcheck, status: HealthStatus, started_at: OffsetDateTime, last: OffsetDateTime) -> Duration {
    let in_start_period = since(started_at, last) < Duration::from_millis(check.start_period_ms);
    Duration::from_millis(if in_start_period && status == HealthStatus::Starting {
        check.start_interval_ms
    } else {
        check.interval_ms
    })
}

/// The end of the last probe of the run, or its start.
pub(crate) fn last(health: &Health, started_at: OffsetDateTime) -> OffsetDateTime {
    health.log.last().map_or(started_at, |probe| probe.finished_at.max(started_at))
}

/// From one instant to a later one; nothing if a clock was set back.
fn since(then: OffsetDateTime, now: OffsetDateTime) -> Duration {
    Duration::try_from(now - then).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const START: OffsetDateTime = datetime!(2026-01-01 00:00 UTC);

    fn check(start_period_ms: u64, retries: u32) -> Healthcheck {
        Healthcheck {
            command: vec!["true".into()],
            interval_ms: 30_000,
            timeout_ms: 1_000,
            start_period_ms,
            start_interval_ms: 2_000,
            retries,
        }
    }

    fn at(second: i64) -> OffsetDateTime {
        START + time::Duration::seconds(second)
    }

    /// Probes at these seconds with these codes, and what is said after each.
    fn play(check: &Healthcheck, probes: &[(i64, i32)]) -> Vec<(HealthStatus, u32)> {
        let mut health = begun(None);
        let mut said = Vec::new();
        for (second, exit_code) in probes {
            let instant = at(*second);
            let probe =
                HealthProbe { started_at: instant, finished_at: instant, exit_code: *exit_code, output: String::new() };
            health = after(health, check, START, probe);
            said.push((health.status, health.failing_streak));
        }
        said
    }

    #[test]
    fn as_many_failures_as_allowed_make_it_unhealthy_and_one_success_healthy() {
        use HealthStatus::{Healthy, Starting, Unhealthy};
        let said = play(&check(0, 2), &[(1, 1), (2, -1), (3, 1), (4, 0), (5, 1), (6, 0), (7, 1), (8, 7)]);
        let expected = [
            (Starting, 1),
            (Unhealthy, 2),
            (Unhealthy, 3),
            (Healthy, 0),
            (Healthy, 1),
            (Healthy, 0),
            (Healthy, 1),
            (Unhealthy, 2),
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn failures_in_the_start_period_count_only_after_a_success() {
        use HealthStatus::{Healthy, Starting, Unhealthy};
        assert_eq!(play(&check(10_000, 1), &[(1, 1), (9, 1), (10, 1)]), [(Starting, 0), (Starting, 0), (Unhealthy, 1)]);
        assert_eq!(play(&check(10_000, 1), &[(1, 1), (2, 0), (3, 1)]), [(Starting, 0), (Healthy, 0), (Unhealthy, 1)]);
    }

    #[test]
    fn only_the_last_probes_are_kept_and_a_new_run_starts_again() {
        let mut health = begun(None);
        for code in 1..=7 {
            let probe = HealthProbe { started_at: START, finished_at: at(1), exit_code: code, output: String::new() };
            health = after(health, &check(0, 3), START, probe);
        }
        let codes: Vec<_> = health.log.iter().map(|probe| probe.exit_code).collect();
        assert_eq!(codes, [3, 4, 5, 6, 7]);
        let again = begun(Some(health.clone()));
        assert_eq!((again.status, again.failing_streak, again.log.len()), (HealthStatus::Starting, 0, 5));
        assert_eq!(last(&again, at(60)), at(60), "an earlier run's probe delays nothing");
        assert_eq!(last(&health, START), at(1));
    }

    #[test]
    fn a_rest_that_was_begun_is_not_begun_again() {
        let check = check(0, 3);
        let probe = HealthProbe { started_at: at(40), finished_at: at(41), exit_code: 0, output: String::new() };
        let health = after(begun(None), &check, START, probe);
        let left = |now| left(&check, health.status, START, last(&health, START), at(now)).as_secs();
        assert_eq!((left(41), left(60), left(71), left(600)), (30, 11, 0, 0));
    }

    #[test]
    fn the_start_interval_is_for_the_start_period_and_until_the_first_success() {
        let seconds = |status, second| rest(&check(10_000, 3), status, START, at(second)).as_secs();
        assert_eq!(seconds(HealthStatus::Starting, 0), 2);
        assert_eq!(seconds(HealthStatus::Starting, 9), 2);
        assert_eq!(seconds(HealthStatus::Starting, 10), 30);
        assert_eq!(seconds(HealthStatus::Healthy, 1), 30);
        assert_eq!(rest(&check(0, 3), HealthStatus::Starting, START, START).as_secs(), 30);
        assert_eq!(rest(&check(0, 3), HealthStatus::Starting, START, at(-5)).as_secs(), 30, "a clock set back");
    }
}
