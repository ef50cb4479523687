use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};

use super::database::Database;
use super::row::{Front, Head};
use super::young::Young;
use crate::ids::{Cursor, Epoch, GatewayId, Seq};
use crate::log::{Bounds, Retention};
use crate::records::StoreError;

/// What is known of one log without looking at its rows: some 100 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ring {
    /// The row on disk; only the committer changes it.
    pub(super) head: Head,
    /// The newest durable entry; only the committer changes it.
    pub(super) newest: Seq,
    /// Bytes of all entries up to the newest.
    pub(super) end: u64,
    /// Entries before it are known to be gone; whoever finds out raises it.
    pub(super) oldest: Seq,
    /// What the row at `oldest` says, once it was looked at.
    pub(super) front: Option<Front>,
}

impl Ring {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self { head: Head::new(epoch), newest: Seq(0), end: 0, oldest: Seq(1), front: None }
    }

    /// What readers may see. True only of a settled ring.
    pub(super) fn bounds(&self) -> Bounds {
        let bytes =
            self.front.filter(|_| self.oldest <= self.newest).map_or(0, |front| self.end.saturating_sub(front.start));
        Bounds { epoch: self.head.epoch, oldest: self.oldest, newest: self.newest, bytes }
    }

    /// A cursor as a position in this log: one of another epoch is before everything.
    pub(super) fn seq_of(&self, cursor: Cursor) -> Seq {
        if cursor.epoch == self.head.epoch { cursor.seq } else { Seq(0) }
    }

    /// How far the bound by count reaches.
    fn oldest_by_count(&self, retention: &Retention) -> Seq {
        Seq(self.newest.next().0.saturating_sub(retention.max_events.max(1))).max(self.head.floor)
    }

    /// Whether `oldest` and `front` hold as they are, so that no row need be read.
    pub(super) fn is_settled(&self, retention: &Retention, oldest_kept: DateTime<Utc>) -> bool {
        if self.oldest > self.newest {
            return true;
        }
        let Some(front) = self.front.filter(|front| front.seq == self.oldest) else { return false };
        let fits = self.end.saturating_sub(front.start) <= retention.max_bytes || self.oldest == self.newest;
        self.oldest >= self.oldest_by_count(retention) && fits && front.at >= oldest_kept
    }

    /// Whether it is settled, or is by what the young entries say, for which no row need be read.
    pub(super) fn is_settled_with(
        &mut self,
        of: GatewayId,
        young: &Young,
        retention: &Retention,
        now: DateTime<Utc>,
    ) -> bool {
        if self.front.is_none_or(|front| front.seq != self.oldest) {
            let row = young.certain((of, self.head.epoch), (self.oldest, self.oldest), 1).pop();
            self.front = row.and_then(|(_, row)| Front::decode(self.oldest, &row).ok());
        }
        self.is_settled(retention, retention.oldest_kept_at(now))
    }

    /// Raises `oldest` to where the retention is kept: by count by arithmetic, by bytes by bisection over the offsets
    /// in the rows, by age row after row (each row once in its life). Reads few rows and never writes.
    pub(super) fn settle(
        &mut self,
        of: GatewayId,
        db: &Database,
        retention: &Retention,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let oldest_kept = retention.oldest_kept_at(now);
        if self.is_settled(retention, oldest_kept) {
            return Ok(());
        }
        self.oldest = self.oldest.max(self.oldest_by_count(retention));
        self.look_at_front(of, db)?;
        self.settle_bytes(of, db, retention.max_bytes)?;
        self.settle_age(of, db, oldest_kept)
    }

    fn settle_bytes(&mut self, of: GatewayId, db: &Database, max_bytes: u64) -> Result<(), StoreError> {
        let too_many = |front: Front| self.end.saturating_sub(front.start) > max_bytes;
        if self.oldest >= self.newest || !self.front.is_some_and(too_many) {
            return Ok(());
        }
        let (mut gone, mut kept) = (self.oldest, self.newest);
        while gone.next() < kept {
            let middle = Seq(gone.0 + (kept.0 - gone.0) / 2);
            match db.front(of, self.head.epoch, middle)? {
                Some(front) if too_many(front) => gone = middle,
                _ => kept = middle,
            }
        }
        self.oldest = kept;
        self.look_at_front(of, db)
    }

    fn settle_age(&mut self, of: GatewayId, db: &Database, oldest_kept: DateTime<Utc>) -> Result<(), StoreError> {
        if self.front.is_none_or(|front| front.at >= oldest_kept) {
            return Ok(());
        }
        for front in db.fronts(of, self.head.epoch, self.oldest.next(), self.newest) {
            let front = front?;
            if front.at >= oldest_kept {
                (self.oldest, self.front) = (front.seq, Some(front));
                return Ok(());
            }
        }
        (self.oldest, self.front) = (self.newest.next(), None);
        Ok(())
    }

    /// Reads the row at `oldest`. If it is not there, everything before the next row counts as gone.
    fn look_at_front(&mut self, of: GatewayId, db: &Database) -> Result<(), StoreError> {
        if self.oldest > self.newest || self.front.is_some_and(|front| front.seq == self.oldest) {
            return Ok(());
        }
        let first = db.fronts(of, self.head.epoch, self.oldest, self.newest).next().transpose()?;
        self.oldest = first.map_or(self.newest.next(), |front| front.seq);
        self.front = first;
        Ok(())
    }
}

/// The logs touched since the start. Only the committer adds, removes and moves heads; readers remember what they
/// found out about the old end.
#[derive(Default)]
pub(super) struct Rings {
    map: Mutex<HashMap<GatewayId, Ring>>,
}

impl Rings {
    pub(super) fn get(&self, gateway: GatewayId) -> Option<Ring> {
        self.map().get(&gateway).copied()
    }

    /// For the committer: what a log is from now on; `None` forgets it.
    pub(super) fn publish(&self, gateway: GatewayId, ring: Option<Ring>) {
        let mut map = self.map();
        let Some(mut ring) = ring else {
            map.remove(&gateway);
            return;
        };
        if let Some(before) = map.get(&gateway)
            && before.head.epoch == ring.head.epoch
            && before.oldest > ring.oldest
        {
            (ring.oldest, ring.front) = (before.oldest, before.front);
        }
        map.insert(gateway, ring);
    }

    /// For readers: what was found out about the old end.
    pub(super) fn remember(&self, gateway: GatewayId, found: &Ring) {
        if let Some(ring) = self.map().get_mut(&gateway)
            && ring.head.epoch == found.head.epoch
            && found.oldest >= ring.oldest
        {
            (ring.oldest, ring.front) = (found.oldest, found.front);
        }
    }

    /// A poisoned lock is used on: no step under it can panic half-way.
    fn map(&self) -> MutexGuard<'_, HashMap<GatewayId, Ring>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
