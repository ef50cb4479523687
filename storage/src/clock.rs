//! Wall time, injected so that tests own it. Monotonic time is `tokio::time`.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};

/// Where wall time comes from.
pub trait Clock: Send + Sync {
    /// The time now, UTC.
    fn now(&self) -> DateTime<Utc>;

    /// The same in milliseconds since 1970, for what happens at every delivery: a calendar takes 130 instructions.
    fn millis(&self) -> i64 {
        self.now().timestamp_millis()
    }
}

/// The machine's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    #[expect(clippy::disallowed_methods, reason = "as above")]
    fn millis(&self) -> i64 {
        // A clock that shows a time before 1970 is not set.
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
    }
}

/// A clock that stands still until it is told to go on: a double for tests, here and in other crates.
#[derive(Debug)]
pub struct ManualClock {
    millis: AtomicI64,
}

impl ManualClock {
    /// A clock that shows `now`, to the millisecond.
    #[must_use]
    pub fn new(now: DateTime<Utc>) -> Self {
        Self { millis: AtomicI64::new(now.timestamp_millis()) }
    }

    /// Moves on, to the millisecond.
    pub fn advance(&self, by: Duration) {
        self.millis.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// Moves back, as a clock does that is corrected, to the millisecond.
    pub fn turn_back(&self, by: Duration) {
        self.millis.fetch_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
}

/// 2026-11-20T17:00:00Z, a time like any other.
impl Default for ManualClock {
    fn default() -> Self {
        Self { millis: AtomicI64::new(1_795_194_000_000) }
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.millis.load(Ordering::SeqCst)).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}
