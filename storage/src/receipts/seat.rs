use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};

use super::marks::Marks;
use super::{Replica, Shared};
use crate::ids::{Cursor, GatewayId, Seq};

/// How far one live connection is. Taken from [`Receipts::enter`](super::Receipts::enter); dropped, the connection
/// has left, and its position is kept for whoever comes back.
///
/// Its own lock is all that an event or a pong takes, but for one short one of all receipts when a position moves that
/// is on disk: once a second at most, as rows are written behind.
pub struct Seat {
    state: Arc<SeatState>,
    /// Apart, as an event is not concerned with it.
    of: Box<Of>,
}

/// Whose it is.
struct Of {
    shared: Arc<Shared>,
    gateway: GatewayId,
    replica: Replica,
}

/// What the seat and the book share of it.
///
/// Two cache lines with what an `Arc` adds, of which an event looks at the first.
#[repr(C)]
pub(super) struct SeatState {
    progress: Mutex<Progress>,
    /// The how many-th connection of its replica it is.
    pub(super) arrival: u64,
}

#[repr(C)]
pub(super) struct Progress {
    pub(super) sent: Marks,
    /// Its end is up to where the peer is known to have received everything.
    pub(super) received: Marks,
    pub(super) last_receipt: Option<DateTime<Utc>>,
    /// The row that holds it is to be written already.
    pub(super) is_dirty: bool,
}

impl Seat {
    pub(super) fn new(shared: Arc<Shared>, gateway: GatewayId, replica: Replica, state: Arc<SeatState>) -> Self {
        Self { state, of: Box::new(Of { shared, gateway, replica }) }
    }

    /// Who sits here.
    #[must_use]
    pub fn replica(&self) -> &Replica {
        &self.of.replica
    }

    /// Up to where the peer is known to have received everything.
    #[must_use]
    pub fn position(&self) -> Cursor {
        self.state.confirmed()
    }

    /// Events up to `to` were written to the peer, at so many milliseconds since 1970.
    pub fn sent(&self, to: Cursor, now_ms: i64) {
        self.state.progress().sent.pass(to, now_ms);
    }

    /// What comes after `after` up to `up_to` is not there any more, so the peer was led past it.
    pub fn skipped(&self, after: Seq, up_to: Cursor) {
        let Of { shared, gateway, replica } = &*self.of;
        shared.look(*gateway, |kept| kept.skip(replica, after, up_to));
        shared.moved(*gateway, replica, &self.state);
    }

    /// The peer has received everything up to `to`, which was written to it. Never goes back within a life of the log.
    pub fn confirmed(&self, to: Cursor, now: DateTime<Utc>) {
        if self.state.confirm(to, now) {
            let Of { shared, gateway, replica } = &*self.of;
            shared.moved(*gateway, replica, &self.state);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Of { shared, gateway, replica } = &*self.of;
        shared.leave(*gateway, replica, &self.state);
    }
}

impl SeatState {
    pub(super) fn new(at: Cursor, arrival: u64) -> Self {
        let progress = Progress { sent: Marks::new(at), received: Marks::new(at), last_receipt: None, is_dirty: false };
        Self { progress: Mutex::new(progress), arrival }
    }

    pub(super) fn confirmed(&self) -> Cursor {
        self.progress().received.end()
    }

    /// Whether the position moved.
    pub(super) fn confirm(&self, to: Cursor, now: DateTime<Utc>) -> bool {
        let mut progress = self.progress();
        progress.last_receipt = Some(now);
        if progress.received.reach(to) {
            return false;
        }
        progress.received.pass(to, now.timestamp_millis());
        true
    }

    /// Whether events up to `to` were written to the peer, or are before where it began.
    pub(super) fn was_sent(&self, to: Cursor) -> bool {
        self.progress().sent.reach(to)
    }

    /// Whether the row was clean.
    pub(super) fn soil(&self) -> bool {
        !std::mem::replace(&mut self.progress().is_dirty, true)
    }

    /// A poisoned lock is used on: no step under it can panic half-way.
    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_takes_two_cache_lines() {
        // An `Arc` adds its two counts.
        assert_eq!(size_of::<SeatState>() + 2 * size_of::<usize>(), 128);
    }
}
