//! A length of time as people are told it.

use std::time::Duration;

/// In seconds, to a tenth.
pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
