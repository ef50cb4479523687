//! Failed deliveries: what was published and could not be handed over, for operators to look at.
//!
//! - A row is one failure: an event published while nobody was connected ([`FailureReason::NotConnected`]) or that a
//!   replica could not apply ([`FailureReason::FailedByGateway`]); or, of a replica, all that a connection of it had not
//!   handed over when it ended, or that was overwritten before it came: the first event and how many. What a replica
//!   reports of an event takes the place of what it reported of it before, unless that has recovered.
//! - It recovers when the last of its events reaches that replica (any, if none was connected), or when the replica
//!   reports success. Events that were overwritten never come, so [`FailureReason::Overwritten`] stays.
//! - At most [`DELIVERIES_MAX`] are kept and [`DELIVERIES_PER_GATEWAY_MAX`] of one gateway, so that it takes a
//!   hundred failing gateways to push out another's; none longer than [`DELIVERY_AGE_MAX`]. The oldest go first.
//! - All are in memory (at most some 40 MB) and written behind to [`Records`] with [`Durability::Lazy`](crate::Durability::Lazy): recording
//!   never waits for the disk, and a crash may lose the last second.
//! - On disk some share a row (`group.rs`). What waits to be written is a set of rows, each once, so it is bounded by what is
//!   kept.

mod book;
mod failure;
mod group;
mod pending;
mod rows;
mod sorted;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};

pub use self::failure::{DeliveryFilter, DeliveryTotals, FailedDelivery, Failure, FailureReason, UnknownReason};

use self::book::{Book, Written};
use self::pending::Pending;
use crate::clock::Clock;
use crate::ids::{Cursor, GatewayId, Seq};
use crate::receipts::Replica;
use crate::records::{Change, Records, StoreError, Table, each_row};
use crate::write_behind::{Source, WriteBehind};

/// Failed deliveries kept in all.
pub const DELIVERIES_MAX: usize = 100_000;
/// Failed deliveries kept of one gateway.
pub const DELIVERIES_PER_GATEWAY_MAX: usize = 1_000;
/// The pause between two rounds of writing. Each commit costs as much as some ten events: while many are published to
/// gateways that are away, it is one for hundreds of failures.
const WRITE_EVERY: Duration = Duration::from_millis(20);
/// How long a failed delivery is kept.
pub const DELIVERY_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How many failed deliveries are kept, and how long.
#[derive(Debug, Clone, Copy)]
pub struct DeliveryLimits {
    /// In all; at least 1.
    pub total: usize,
    /// Of one gateway; at least 1.
    pub per_gateway: usize,
    /// By [`Failure::at`] against the clock.
    pub age: Duration,
}

impl Default for DeliveryLimits {
    fn default() -> Self {
        Self { total: DELIVERIES_MAX, per_gateway: DELIVERIES_PER_GATEWAY_MAX, age: DELIVERY_AGE_MAX }
    }
}

/// The failed deliveries of all gateways.
pub struct Deliveries {
    shared: Arc<Shared>,
    writer: WriteBehind<Shared>,
}

struct Shared {
    book: Mutex<Book>,
    /// The book's, readable without its lock: a delivery looks only here while nothing of its gateway failed.
    pending: Arc<Pending>,
    clock: Arc<dyn Clock>,
}

impl Deliveries {
    /// Loads what `records` holds and starts to write behind.
    ///
    /// # Errors
    /// If the store cannot be read, or holds a row that this version does not understand.
    pub async fn open(
        records: Arc<dyn Records>,
        clock: Arc<dyn Clock>,
        limits: DeliveryLimits,
    ) -> Result<Self, StoreError> {
        let mut book = Book::new(limits);
        each_row(&*records, Table::Deliveries, |key, row| book.load(&key, &row)).await?;
        book.expire(clock.now());
        let pending = book.pending();
        let shared = Arc::new(Shared { book: Mutex::new(book), pending, clock });
        let writer = WriteBehind::start(Arc::clone(&shared), records, WRITE_EVERY, "Failed deliveries");
        Ok(Self { shared, writer })
    }

    /// Records a failed delivery and returns its number. Does not wait for the disk.
    pub fn record(&self, failure: Failure) -> u64 {
        self.change(|book, now| {
            let number = book.record(failure);
            book.expire(now);
            number
        })
    }

    /// The type and correlation id of the first event of a failure that was recorded without, if that is still kept.
    pub fn describe(&self, number: u64, event_type: String, correlation_id: String) {
        self.change(|book, _| book.describe(number, [event_type, correlation_id].map(Arc::from)));
    }

    /// Events after `after` up to `up_to`, in its epoch, have reached a replica: marks the failures that this makes good
    /// as recovered at `now`; says how many.
    pub fn recovered(
        &self,
        gateway: GatewayId,
        (after, up_to): (Seq, Cursor),
        by: &Replica,
        now: DateTime<Utc>,
    ) -> usize {
        if !self.may_recover(gateway) {
            return 0;
        }
        self.change(|book, _| book.recovered(gateway, (after, up_to), by, now))
    }

    /// Whether a failure of the gateway may recover and has not: an atomic load, for every delivery. Of another one now
    /// and then, never missing one of this.
    #[must_use]
    pub fn may_recover(&self, gateway: GatewayId) -> bool {
        self.shared.pending.any(gateway)
    }

    /// A replica has applied an event: marks its reports of having failed as recovered at `now`; says how many.
    pub fn applied(&self, gateway: GatewayId, event: Cursor, by: &Replica, now: DateTime<Utc>) -> usize {
        if !self.may_recover(gateway) {
            return 0;
        }
        self.change(|book, _| book.applied(gateway, event, by, now))
    }

    /// How many match, and up to `limit` of them from `offset` on, newest first.
    #[must_use]
    pub fn query(&self, filter: &DeliveryFilter, offset: usize, limit: usize) -> (usize, Vec<FailedDelivery>) {
        self.change(|book, now| {
            book.expire(now);
            book.query(filter, offset, limit)
        })
    }

    /// The gateways of which something is kept.
    #[must_use]
    pub fn gateways(&self) -> Vec<GatewayId> {
        self.shared.book().gateways()
    }

    /// Drops what is kept of a gateway.
    pub fn forget(&self, gateway: GatewayId) {
        self.change(|book, _| book.forget(gateway));
    }

    /// The gateways with unrecovered failures, and how many of these are kept of each.
    #[must_use]
    pub fn unrecovered(&self) -> Vec<(GatewayId, u64)> {
        self.change(|book, now| {
            book.expire(now);
            book.unrecovered()
        })
    }

    /// What failed since the start of the process.
    #[must_use]
    pub fn totals(&self) -> DeliveryTotals {
        self.shared.book().totals()
    }

    /// Returns once everything recorded so far is handed to the store; for shutdown, before the store's own flush.
    ///
    /// # Errors
    /// If the store cannot be written now.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.writer.flush().await
    }

    /// Runs `work` on the book, then has written what it changed.
    fn change<T>(&self, work: impl FnOnce(&mut Book, DateTime<Utc>) -> T) -> T {
        let now = self.shared.clock.now();
        let mut book = self.shared.book();
        let answer = work(&mut book, now);
        if book.is_dirty() {
            self.writer.wake();
        }
        answer
    }
}

/// How many failures a stored row has.
pub(crate) fn in_row(key: &[u8], row: &[u8]) -> u64 {
    let group = group::parse_key(key).and_then(|group| group::decode(group, row));
    group.map_or(1, |failures| failures.len() as u64)
}

impl Shared {
    /// A poisoned lock is used on: no step under it can panic half-way.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Shared {
    type Row = Written;

    fn dirty_rows(&self, max: usize) -> Result<(Vec<Written>, Vec<Change>), StoreError> {
        Ok(self.book().dirty_rows(max))
    }

    fn written(&self, rows: &[Written]) {
        self.book().written(rows);
    }
}

#[cfg(test)]
mod tests;
