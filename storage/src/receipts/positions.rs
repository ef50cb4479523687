use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
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
}

/// Where a connection was when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Left {
    pub(super) position: Cursor,
    pub(super) at: DateTime<Utc>,
    /// Somebody came who may be the one that left.
    pub(super) taken: Option<Taken>,
}

/// The mark of an arrival on a position that was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Taken {
    at: DateTime<Utc>,
    arrival: u64,
}

impl Positions {
    /// Where a replica that comes now begins, so that it misses nothing whichever of those that were here it is.
    pub(super) fn start(&mut self, epoch: Epoch, now: DateTime<Utc>) -> Option<Cursor> {
        self.prune(now);
        let left = self.left.iter().map(|left| left.position);
        self.live.iter().map(|seat| seat.confirmed()).chain(left).min_by_key(|cursor| rank(*cursor, epoch))
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
            furthest.taken = Some(Taken { at: now, arrival });
        }
        arrival
    }

    /// The connection that was the `arrival`-th to come has ended. Whoever came since may have been its own peer, whose
    /// connection was dead: a mark that was set then belongs here rather than on a lower position.
    pub(super) fn leave(&mut self, position: Cursor, arrival: u64, now: DateTime<Utc>) {
        self.arrivals = self.arrivals.max(arrival);
        let place = |cursor: Cursor| rank(cursor, position.epoch);
        let lower = self.left.iter_mut().filter(|left| place(left.position) < place(position));
        let marked = lower.filter(|left| left.taken.is_some_and(|taken| taken.arrival > arrival));
        let taken = marked.min_by_key(|left| place(left.position)).and_then(|left| left.taken.take());
        // There are few, of each gateway.
        self.left.reserve_exact(1);
        self.left.push(Left { position, at: now, taken });
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

    /// Takes in what was left before a restart.
    pub(super) fn load(&mut self, left: Vec<Left>) {
        self.arrivals = left.iter().filter_map(|left| left.taken).map(|taken| taken.arrival).max().unwrap_or(0);
        self.left = left;
    }

    /// When a connection was here last; `None` while one is.
    pub(super) fn gone_since(&self) -> Option<DateTime<Utc>> {
        let last = self.left.iter().map(|left| left.at).max();
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

fn within(now: DateTime<Utc>, then: DateTime<Utc>, span: Duration) -> bool {
    now.signed_duration_since(then) <= TimeDelta::from_std(span).unwrap_or(TimeDelta::MAX)
}
