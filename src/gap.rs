//! How long until a gateway's ring lets go of the event that a replica needs next, if the replica stays where it is:
//! from the pace of the recent past and what the ring still holds. An estimate: it supposes that events go on to come
//! as they came lately and are as large as those held.

use chrono::{DateTime, TimeDelta, Utc};
use gatecast_storage::{Bounds, Budget, Cursor, Entry, EventLog, GatewayId, LogError, Page, Retention, Seq};

/// How many of the newest events tell the pace.
const PACE_EVENTS: u64 = 256;

/// A ring and the pace at which it moves.
#[derive(Debug, Clone, Copy)]
pub struct Outlook {
    gateway: GatewayId,
    bounds: Bounds,
    retention: Retention,
    now: DateTime<Utc>,
    /// Seconds from one event to the next, and since the newest; `None` with fewer than two events.
    pace: Option<Pace>,
}

#[derive(Debug, Clone, Copy)]
struct Pace {
    interval: f64,
    since_newest: f64,
}

impl Outlook {
    /// The outlook of a gateway's log.
    ///
    /// # Errors
    /// If the log cannot be read now.
    pub async fn of(
        log: &dyn EventLog,
        gateway: GatewayId,
        bounds: Bounds,
        retention: Retention,
        now: DateTime<Utc>,
    ) -> Result<Self, LogError> {
        let mut outlook = Self { gateway, bounds, retention, now, pace: None };
        let count = bounds.events().min(PACE_EVENTS);
        if count < 2 {
            return Ok(outlook);
        }
        let first = outlook.after(log, Seq(bounds.newest.0.saturating_sub(count))).await?;
        let last = outlook.after(log, bounds.newest.prev()).await?;
        outlook.pace = first.zip(last).and_then(|(first, last)| pace(&first, &last, now));
        Ok(outlook)
    }

    /// Seconds until a replica at `position` has lost an event; 0 if it has, `None` if nothing says that it will.
    ///
    /// # Errors
    /// If the log cannot be read now.
    pub async fn time_to_gap(&self, log: &dyn EventLog, position: Cursor) -> Result<Option<f64>, LogError> {
        let Bounds { epoch, oldest, newest, .. } = self.bounds;
        if position.epoch != epoch || position.seq.next() < oldest {
            return Ok(Some(0.0));
        }
        let next = if position.seq < newest { self.after(log, position.seq).await? } else { None };
        Ok(self.seconds(position.seq, next.map(|entry| entry.at)))
    }

    /// The sooner of being pushed out and growing too old; `next_at` is when the event after the position came.
    fn seconds(&self, position: Seq, next_at: Option<DateTime<Utc>>) -> Option<f64> {
        let age = self.retention.max_age.as_secs_f64();
        let pushed_out = self.pace.map(|pace| self.until_pushed_out(position, pace));
        let too_old = match (next_at, self.pace) {
            (Some(at), _) => Some(seconds(at - self.now) + age),
            (None, Some(pace)) => Some(pace.interval + age),
            (None, None) => None,
        };
        let soonest = [pushed_out, too_old].into_iter().flatten().fold(f64::INFINITY, f64::min);
        soonest.is_finite().then(|| soonest.max(0.0))
    }

    fn until_pushed_out(&self, position: Seq, pace: Pace) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let (held, bytes, events_max, bytes_max, lag) = (
            self.bounds.events() as f64,
            self.bounds.bytes as f64,
            self.retention.max_events as f64,
            self.retention.max_bytes as f64,
            self.bounds.newest.0.saturating_sub(position.0) as f64,
        );
        let fit = if bytes > 0.0 { (bytes_max * held / bytes).floor().min(events_max).max(1.0) } else { events_max };
        (fit + 1.0 - lag) * pace.interval - pace.since_newest
    }

    /// The entry after a position, if it is held.
    async fn after(&self, log: &dyn EventLog, seq: Seq) -> Result<Option<Entry>, LogError> {
        let from = Cursor { epoch: self.bounds.epoch, seq };
        match log.read(self.gateway, from, Budget { events: 1, bytes: 1 }).await? {
            Page::Entries(entries) => Ok(entries.into_iter().next()),
            Page::Truncated { .. } | Page::WrongEpoch { .. } | Page::Ahead { .. } => Ok(None),
        }
    }
}

/// A silence that is longer than the interval counts as a part of it: the pace falls when nothing comes any more.
fn pace(first: &Entry, last: &Entry, now: DateTime<Utc>) -> Option<Pace> {
    let intervals = last.seq.0.checked_sub(first.seq.0).filter(|intervals| *intervals > 0)?;
    #[expect(clippy::cast_precision_loss, reason = "at most 256")]
    let intervals = intervals as f64;
    let (span, silence) = (seconds(last.at - first.at), seconds(now - last.at).max(0.0));
    let mean = span / intervals;
    if silence <= mean {
        return Some(Pace { interval: mean, since_newest: silence });
    }
    Some(Pace { interval: (span + silence) / (intervals + 1.0), since_newest: 0.0 })
}

fn seconds(delta: TimeDelta) -> f64 {
    delta.as_seconds_f64()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gatecast_storage::Epoch;
    use uuid::Uuid;

    use super::*;

    fn outlook(pace: Option<Pace>) -> Outlook {
        Outlook {
            gateway: GatewayId(Uuid::nil()),
            bounds: Bounds { epoch: Epoch(1), oldest: Seq(11), newest: Seq(20), bytes: 1_000 },
            retention: Retention {
                max_events: 50,
                max_bytes: 1 << 20,
                max_age: Duration::from_secs(3_600),
                compaction: gatecast_storage::Compaction::DEFAULT,
            },
            now: DateTime::UNIX_EPOCH,
            pace,
        }
    }

    #[test]
    fn the_soonest_of_count_bytes_and_age_counts() {
        let pace = Some(Pace { interval: 2.0, since_newest: 1.0 });
        let at = |second| DateTime::from_timestamp(second, 0);
        assert_eq!(outlook(pace).seconds(Seq(20), None), Some(51.0 * 2.0 - 1.0));
        assert_eq!(outlook(pace).seconds(Seq(10), at(-60)), Some(41.0 * 2.0 - 1.0));
        assert_eq!(outlook(pace).seconds(Seq(10), at(-3_590)), Some(10.0));
        let mut small = outlook(pace);
        small.retention.max_bytes = 2_000;
        assert_eq!(small.seconds(Seq(20), None), Some(21.0 * 2.0 - 1.0));
        assert_eq!(outlook(None).seconds(Seq(20), None), None, "nothing has ever come");
        assert_eq!(outlook(None).seconds(Seq(10), at(-600)), Some(3_000.0));
    }

    #[test]
    fn a_silence_slows_the_pace() {
        let entry = |seq, second| Entry {
            seq: Seq(seq),
            at: DateTime::from_timestamp(second, 0).unwrap(),
            ends_key: false,
            key: None,
            body: bytes::Bytes::new(),
        };
        let pace = |now| super::pace(&entry(1, 0), &entry(11, 20), DateTime::from_timestamp(now, 0).unwrap()).unwrap();
        assert_eq!((pace(21).interval, pace(21).since_newest), (2.0, 1.0));
        assert!(pace(1_000).interval > 90.0);
    }
}
