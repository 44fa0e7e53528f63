//! The restart policy, pure: whether a run that ended is begun again by the host, and when. Docker's
//! rules: 100 ms doubling up to a minute, small again after ten seconds of running.

use std::time::Duration;

use model::RestartPolicy;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
const PROVEN_AFTER: Duration = Duration::from_secs(10);

/// Whether the policy begins the run again after `restarts` restarts so far.
pub(crate) fn restarts(policy: RestartPolicy, exit_code: i32, restarts: u32) -> bool {
    match policy {
        RestartPolicy::No => false,
        RestartPolicy::OnFailure { max_retries } => exit_code != 0 && (max_retries == 0 || restarts < max_retries),
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
    }
}

/// The next delay, from the one before (`None` before the first) and how long the run lasted.
pub(crate) fn delay(before: Option<Duration>, lasted: Duration) -> Duration {
    match before {
        Some(delay) if lasted < PROVEN_AFTER => (delay * 2).min(LONGEST),
        Some(_) | None => FIRST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_failure_counts_and_wants_a_failure() {
        let policy = RestartPolicy::OnFailure { max_retries: 2 };
        assert!(!restarts(policy, 0, 0));
        assert!(restarts(policy, 1, 1));
        assert!(!restarts(policy, 1, 2));
        assert!(restarts(RestartPolicy::OnFailure { max_retries: 0 }, 1, 10_000));
    }

    #[test]
    fn always_does_not_look_at_the_code_and_no_never_restarts() {
        assert!(restarts(RestartPolicy::Always, 0, 99));
        assert!(restarts(RestartPolicy::UnlessStopped, 0, 99));
        assert!(!restarts(RestartPolicy::No, 1, 0));
    }

    #[test]
    fn the_delay_doubles_to_a_minute_and_falls_back_after_a_long_run() {
        let short = Duration::from_secs(1);
        let mut last = None;
        let mut seen = Vec::new();
        for _ in 0..12 {
            let next = delay(last, short);
            seen.push(next.as_millis());
            last = Some(next);
        }
        assert_eq!(seen, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
        assert_eq!(delay(last, Duration::from_secs(10)), FIRST);
    }
}
