//! The `Date` of answers, spelled once a second: a spelling takes as long as all the rest of an answer's head.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time of day as HTTP spells it (RFC 9110 § 5.6.7).
#[derive(Debug, Default)]
pub(crate) struct Date(Mutex<Spelled>);

#[derive(Debug, Default)]
struct Spelled {
    /// Since 1970.
    second: u64,
    text: String,
}

impl Date {
    /// Shows the present time.
    #[expect(clippy::disallowed_methods, reason = "as hyper does: no decision hangs on it")]
    pub(crate) fn with<T>(&self, show: impl FnOnce(&str) -> T) -> T {
        self.at(SystemTime::now(), show)
    }

    fn at<T>(&self, now: SystemTime, show: impl FnOnce(&str) -> T) -> T {
        let second = now.duration_since(UNIX_EPOCH).as_ref().map_or(0, Duration::as_secs);
        // Written whole, so never half changed.
        let mut spelled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spelled.second != second || spelled.text.is_empty() {
            *spelled = Spelled { second, text: httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second)) };
        }
        show(&spelled.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_with_the_clock_also_back() {
        let date = Date::default();
        for second in [1_795_194_000, 1_795_194_001, 0, 1_795_194_000] {
            for millis in [0, 999] {
                let now = UNIX_EPOCH + Duration::from_secs(second) + Duration::from_millis(millis);
                assert_eq!(date.at(now, str::to_owned), httpdate::fmt_http_date(now));
            }
        }
        assert!(date.with(|now| now.ends_with(" GMT")));
    }
}
