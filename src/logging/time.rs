//! The time of a line, as tracing-subscriber spells it: RFC 3339 UTC with microseconds. What it shares with the line before,
//! which is all but the microseconds within a second, is kept: spelling it took a fifth of a line's instructions.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::DateTime;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Spells the time of lines.
#[derive(Default)]
pub(super) struct WallTime(Mutex<Second>);

#[derive(Default)]
struct Second {
    /// Since 1970.
    number: u64,
    text: String,
}

impl FormatTime for WallTime {
    #[expect(clippy::disallowed_methods, reason = "no decision hangs on the time of a line")]
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        self.spell(SystemTime::now(), writer)
    }
}

impl WallTime {
    fn spell(&self, now: SystemTime, to: &mut impl fmt::Write) -> fmt::Result {
        // A clock that is before 1970 is wrong anyway.
        let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        // Written whole, so never half changed.
        let mut second = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if second.number != since.as_secs() || second.text.is_empty() {
            *second = Second::new(since.as_secs());
        }
        to.write_str(&second.text)?;
        let (mut micros, mut text) = (since.subsec_micros(), *b".000000Z");
        for byte in text[1..7].iter_mut().rev() {
            *byte = b"0123456789"[(micros % 10) as usize];
            micros /= 10;
        }
        to.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl Second {
    fn new(number: u64) -> Self {
        let at = i64::try_from(number).ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
        Self { number, text: at.unwrap_or_default().format("%Y-%m-%dT%H:%M:%S").to_string() }
    }
}

#[cfg(test)]
mod tests {
    use chrono::{SecondsFormat, Utc};

    use super::*;

    #[test]
    fn it_goes_with_the_clock_also_back() {
        let time = WallTime::default();
        for second in [1_795_194_000, 1_795_194_001, 0, 1_795_194_000] {
            for micros in [0, 1, 123_456, 999_999] {
                let now = UNIX_EPOCH + Duration::from_secs(second) + Duration::from_micros(micros);
                let mut text = String::new();
                time.spell(now, &mut text).unwrap();
                assert_eq!(text, DateTime::<Utc>::from(now).to_rfc3339_opts(SecondsFormat::Micros, true));
            }
        }
    }
}
