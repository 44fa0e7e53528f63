//! The one source of time, handed in so that tests can move it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use time::{Duration, OffsetDateTime};

trait Now: Send + Sync {
    fn now(&self) -> OffsetDateTime;
}

struct SystemTime;

impl Now for SystemTime {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }
}

/// Tells the time, in UTC.
#[derive(Clone)]
pub struct Clock(Arc<dyn Now>);

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(SystemTime))
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> OffsetDateTime {
        self.0.now()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

/// A clock that stands still until a test moves it.
#[derive(Clone)]
pub struct MockClock(Arc<Mutex<OffsetDateTime>>);

impl MockClock {
    /// Stands at `start`.
    #[must_use]
    pub fn new(start: OffsetDateTime) -> Self {
        Self(Arc::new(Mutex::new(start)))
    }

    /// Moves it forward.
    pub fn advance(&self, by: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }

    /// The clock to hand to the code under test.
    #[must_use]
    pub fn clock(&self) -> Clock {
        Clock(Arc::new(self.clone()))
    }
}

impl Now for MockClock {
    fn now(&self) -> OffsetDateTime {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mock_clock_moves_only_when_told() {
        let mock = MockClock::new(OffsetDateTime::UNIX_EPOCH);
        let clock = mock.clock();
        assert_eq!(clock.now(), OffsetDateTime::UNIX_EPOCH);
        mock.advance(Duration::seconds(5));
        assert_eq!(clock.now().unix_timestamp(), 5);
    }
}
