use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::seat::SeatState;
use crate::ids::{Cursor, Epoch, Seq};

/// How long a position that somebody came back for is still kept: it may have been somebody else who came.
pub const TAKEN_KEPT: Duration = Duration::from_secs(15 * 60);
/// How long a position that nobody came back for is kept beside later ones.
pub const LEFT_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Positions kept of connections of one replica that ended; the furthest go first.
pub const LEFT_MAX: usize = 64;

/// How far the connections of one replica are that live, and how far those were that ended.
#[derive(Default)]
pub(super) struct Positions {
    pub(super) live: Vec<Arc<SeatState>>,
    pub(super) left: Vec<Left>,
    /// How many have come.
    arrivals: u64,
    /// Of a name: two were heard at once that give it.
    is_shared: bool,
}

/// Where a connection was when it ended: 40 bytes, as each gateway has a few.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "LeftRow", into = "LeftRow")]
pub(super) struct Left {
    pub(super) position: Cursor,
    /// When, in µs since 1970.
    at: i64,
    /// Somebody came who may be the one that left.
    taken: Option<Taken>,
}

/// The mark of an arrival on a position that was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    /// When, in µs since 1970.
    at: i64,
    arrival: NonZeroU64,
}

/// As it is on disk.
#[derive(Serialize, Deserialize)]
struct LeftRow {
    position: Cursor,
    at: DateTime<Utc>,
    taken: Option<TakenRow>,
}

#[derive(Serialize, Deserialize)]
struct TakenRow {
    at: DateTime<Utc>,
    arrival: u64,
}

impl From<LeftRow> for Left {
    fn from(LeftRow { position, at, taken }: LeftRow) -> Self {
        let taken = taken.map(|TakenRow { at, arrival }| Taken {
            at: at.timestamp_micros(),
            // The first to come is the first.
            arrival: NonZeroU64::new(arrival).unwrap_or(NonZeroU64::MIN),
        });
        Self { position, at: at.timestamp_micros(), taken }
    }
}

impl From<Left> for LeftRow {
    fn from(Left { position, at, taken }: Left) -> Self {
        let taken = taken.map(|Taken { at, arrival }| TakenRow { at: time(at), arrival: arrival.get() });
        Self { position, at: time(at), taken }
    }
}

impl Positions {
    /// Where a replica that comes now begins, so that it misses nothing whichever of those that were here it is.
    pub(super) fn start(&mut self, epoch: Epoch, now: DateTime<Utc>) -> Option<Cursor> {
        self.prune(now);
        let left = self.left.iter().map(|left| left.position);
        self.live.iter().map(|seat| seat.confirmed()).chain(left).min_by_key(|cursor| rank(*cursor, epoch))
    }

    /// Up to where it is known to have received everything: as far as all that are here, and those that left for good as
    /// far as can be told.
    pub(super) fn known(&mut self, epoch: Epoch, now: DateTime<Utc>) -> Option<Cursor> {
        if self.live.is_empty() {
            return self.start(epoch, now);
        }
        self.prune(now);
        let away = self.left.iter().filter(|left| left.taken.is_none()).map(|left| left.position);
        self.live.iter().map(|seat| seat.confirmed()).chain(away).min_by_key(|cursor| rank(*cursor, epoch))
    }

    /// How far any of its connections was in this life of the log.
    pub(super) fn furthest(&self, epoch: Epoch) -> Seq {
        let all = self.live.iter().map(|seat| seat.confirmed()).chain(self.left.iter().map(|left| left.position));
        all.filter(|position| position.epoch == epoch).map(|position| position.seq).max().unwrap_or(Seq(0))
    }

    /// The replica of this name came. There is one, unless two were heard at once: what it left is its own, and from where
    /// it begins now on it has been told so.
    pub(super) fn take_named(&mut self, epoch: Epoch, now: DateTime<Utc>) -> u64 {
        self.prune(now);
        self.is_shared &= !self.live.is_empty() || self.left.len() > 1;
        if !self.is_shared {
            self.left.clear();
        }
        self.take(epoch, now)
    }

    /// As [`Self::leave`], of a connection of this name; whether something was heard on it since another came.
    pub(super) fn leave_named(&mut self, position: Cursor, arrival: u64, is_heard: bool, now: DateTime<Utc>) {
        let is_followed = self.arrivals > arrival;
        if is_followed && !is_heard {
            // It was dead: its replica was back before that was noticed, and what is kept is of its later connections.
            return;
        }
        self.is_shared |= is_followed;
        if !self.is_shared {
            self.left.clear();
        }
        self.leave(position, arrival, now);
    }

    /// Where the last connection was, of a replica that has none and that is known to be one.
    pub(super) fn left_alone(&mut self) -> Option<&mut Left> {
        match &mut self.left[..] {
            [left] if self.live.is_empty() => Some(left),
            _ => None,
        }
    }

    /// Somebody came. Of those that left it is one; whoever it is, the others were at least as far as the positions
    /// that remain when the furthest is marked.
    /// Returns the arrival's number.
    pub(super) fn take(&mut self, epoch: Epoch, now: DateTime<Utc>) -> u64 {
        self.prune(now);
        self.arrivals += 1;
        let arrival = self.arrivals;
        let untaken = self.left.iter_mut().filter(|left| left.taken.is_none());
        if let Some(furthest) = untaken.max_by_key(|left| rank(left.position, epoch)) {
            furthest.taken = NonZeroU64::new(arrival).map(|arrival| Taken { at: now.timestamp_micros(), arrival });
        }
        arrival
    }

    /// The connection that was the `arrival`-th to come has ended. Whoever came since may have been its own peer, whose
    /// connection was dead: a mark that was set then belongs here rather than on a lower position.
    pub(super) fn leave(&mut self, position: Cursor, arrival: u64, now: DateTime<Utc>) {
        self.arrivals = self.arrivals.max(arrival);
        let place = |cursor: Cursor| rank(cursor, position.epoch);
        let lower = self.left.iter_mut().filter(|left| place(left.position) < place(position));
        let marked = lower.filter(|left| left.taken.is_some_and(|taken| taken.arrival.get() > arrival));
        let taken = marked.min_by_key(|left| place(left.position)).and_then(|left| left.taken.take());
        // There are few, of each gateway.
        self.left.reserve_exact(1);
        self.left.push(Left { position, at: now.timestamp_micros(), taken });
        self.prune(now);
        while self.left.len() > LEFT_MAX
            && let Some(furthest) = self.furthest_left(position.epoch)
        {
            self.left.swap_remove(furthest);
        }
    }

    /// Lets go of what is old. The position that was left last stays for ever while nobody came back for it: that is
    /// a lone replica's own.
    pub(super) fn prune(&mut self, now: DateTime<Utc>) {
        let newest = self.left.iter().filter(|left| left.taken.is_none()).map(|left| left.at).max();
        self.left.retain(|left| match left.taken {
            Some(taken) => within(now, taken.at, TAKEN_KEPT),
            None => Some(left.at) == newest || within(now, left.at, LEFT_KEPT),
        });
    }

    /// Takes in what was left before a restart, and who was here then, by position and arrival, and has left by now.
    pub(super) fn load(&mut self, left: Vec<Left>, live: Vec<(Cursor, u64)>, now: DateTime<Utc>) {
        self.arrivals = left.iter().filter_map(|left| left.taken).map(|taken| taken.arrival.get()).max().unwrap_or(0);
        self.left = left;
        live.into_iter().for_each(|(position, arrival)| self.leave(position, arrival, now));
        // Of one that is alone there is one, unless it was here twice when the server crashed.
        self.is_shared = self.left.len() > 1;
    }

    /// When a connection was here last; `None` while one is.
    pub(super) fn gone_since(&self) -> Option<DateTime<Utc>> {
        let last = self.left.iter().map(|left| time(left.at)).max();
        if self.live.is_empty() { Some(last.unwrap_or(DateTime::<Utc>::MIN_UTC)) } else { None }
    }

    fn furthest_left(&self, epoch: Epoch) -> Option<usize> {
        let furthest = self.left.iter().enumerate().max_by_key(|(_, left)| rank(left.position, epoch));
        furthest.map(|(index, _)| index)
    }
}

/// Where an anonymous replica begins that comes from a new address: it may be any of the others, moved. Those that
/// live or left of late count, or else the one that left last.
pub(super) fn start_of_stranger<'p>(
    others: impl Iterator<Item = &'p mut Positions>,
    epoch: Epoch,
    now: DateTime<Utc>,
) -> Option<Cursor> {
    let mut lowest: Option<Cursor> = None;
    let mut last: Option<Left> = None;
    let lower = |cursor: Cursor, lowest: &mut Option<Cursor>| {
        if lowest.is_none_or(|now| rank(cursor, epoch) < rank(now, epoch)) {
            *lowest = Some(cursor);
        }
    };
    for positions in others {
        positions.prune(now);
        positions.live.iter().for_each(|seat| lower(seat.confirmed(), &mut lowest));
        for left in &positions.left {
            if within(now, left.at, LEFT_KEPT) {
                lower(left.position, &mut lowest);
            }
            if last.is_none_or(|last| left.at > last.at) {
                last = Some(*left);
            }
        }
    }
    lowest.or(last.map(|left| left.position))
}

/// A position in another life of the log comes before all others: it is answered by a reset.
fn rank(cursor: Cursor, epoch: Epoch) -> (bool, Seq) {
    (cursor.epoch == epoch, cursor.seq)
}

/// Of microseconds since 1970.
fn time(micros: i64) -> DateTime<Utc> {
    // They were made from a time.
    DateTime::from_timestamp_micros(micros).unwrap_or_default()
}

fn within(now: DateTime<Utc>, then: i64, span: Duration) -> bool {
    i128::from(now.timestamp_micros()) - i128::from(then) <= i128::try_from(span.as_micros()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_kept_of_who_left_is_small_and_on_disk_as_ever() {
        assert_eq!(size_of::<Left>(), 40);
        let position = serde_json::to_value(Cursor { epoch: Epoch(7), seq: Seq(3) }).unwrap();
        let row = json!({"position": position, "at": "2026-11-29T20:00:00.000001Z", "taken": null});
        let taken = json!({"position": position, "at": "2026-11-29T20:00:00.123456Z",
            "taken": {"at": "2026-11-29T20:01:00.000009Z", "arrival": 4}});
        for row in [row, taken] {
            let left: Left = serde_json::from_value(row.clone()).unwrap();
            assert_eq!(serde_json::to_value(left).unwrap(), row);
        }
        // Of before, to the nanosecond.
        let finer = json!({"position": position, "at": "2026-11-29T20:00:00.123456789Z", "taken": null});
        let left: Left = serde_json::from_value(finer).unwrap();
        assert_eq!(time(left.at).to_rfc3339(), "2026-11-29T20:00:00.123456+00:00");
    }
}
