//! One bounded, durable, ordered ring of entries per gateway.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use crate::compaction::{Compacted, Compaction};
use crate::ids::{Cursor, Epoch, GatewayId, Seq};
use crate::records::{StoreError, Table};

/// An entry to be. The engine gives it its [`Seq`].
#[derive(Debug, Clone)]
pub struct Draft {
    /// When it was published; entries older than [`Retention::max_age`] are let go by it. Kept with millisecond precision.
    pub at: DateTime<Utc>,
    /// The same moment by the monotonic clock: told to the [`Follower`], not stored.
    pub since: Instant,
    /// The entity that the entry is about, for compaction; `None` for entries that are no one's state.
    pub key: Option<Bytes>,
    /// The entity is gone with this entry: it is its tombstone, which compacted state lets go of first. Without a key
    /// it means nothing and is not kept.
    pub ends_key: bool,
    /// Opaque to the engine.
    pub body: Bytes,
    /// Append only if this is the newest position (`<epoch>-0` for an empty log), else [`LogError::Conflict`].
    pub expect: Option<Cursor>,
    /// Rows that are stored with the entry, all or nothing.
    pub beside: Vec<Beside>,
}

/// A row that is stored if and only if an entry is, also across kill -9 and power loss: in
/// [`Stores::events_records`](crate::Stores::events_records), where it is readable once the append is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beside {
    /// The table.
    pub table: Table,
    /// The row's key, unique in its table; an earlier row of this key is replaced.
    pub key: Bytes,
    /// What follows the entry's position, which the engine puts in front: [`Beside::parse`] takes both apart.
    pub rest: Bytes,
}

impl Beside {
    /// The row beside the entry at a position.
    #[must_use]
    pub(crate) fn row(&self, at: Cursor) -> Vec<u8> {
        let mut row = Vec::with_capacity(12 + self.rest.len());
        row.extend_from_slice(&at.epoch.0.to_be_bytes());
        row.extend_from_slice(&at.seq.0.to_be_bytes());
        row.extend_from_slice(&self.rest);
        row
    }

    /// The position of the entry that a row is beside, and the row's rest; `None` if it is no such row.
    #[must_use]
    pub fn parse(row: &[u8]) -> Option<(Cursor, &[u8])> {
        let (epoch, rest) = row.split_first_chunk::<4>()?;
        let (seq, rest) = rest.split_first_chunk::<8>()?;
        let at = Cursor { epoch: Epoch(u32::from_be_bytes(*epoch)), seq: Seq(u64::from_be_bytes(*seq)) };
        Some((at, rest))
    }
}

impl Draft {
    /// What it takes of a writer's queue: the bytes of body, key and rows.
    #[must_use]
    pub fn size(&self) -> usize {
        let beside = self.beside.iter().map(|row| row.key.len() + row.rest.len());
        self.body.len() + self.key.as_ref().map_or(0, Bytes::len) + beside.sum::<usize>()
    }

    /// [`Draft::at`] with the precision that is kept.
    #[must_use]
    pub fn at_millis(&self) -> DateTime<Utc> {
        // Out of range only beyond what `DateTime` itself can hold.
        DateTime::from_timestamp_millis(self.at.timestamp_millis()).unwrap_or(self.at)
    }

    /// The entry that this becomes at a position, and what is stored with it.
    #[must_use]
    pub(crate) fn at_seq(self, seq: Seq) -> (Appended, Vec<Beside>) {
        let ends_key = self.ends_key && self.key.is_some();
        let at = self.at_millis();
        let entry = Entry { seq, at, key: self.key, ends_key, body: self.body };
        (Appended { entry, since: self.since }, self.beside)
    }
}

/// A stored entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its position.
    pub seq: Seq,
    /// As in [`Draft::at`], with millisecond precision.
    pub at: DateTime<Utc>,
    /// As in [`Draft::key`].
    pub key: Option<Bytes>,
    /// As in [`Draft::ends_key`]; never without a key.
    pub ends_key: bool,
    /// As in [`Draft::body`].
    pub body: Bytes,
}

impl Entry {
    /// What it counts against [`Retention::max_bytes`]: the bytes of body and key.
    #[must_use]
    pub fn size(&self) -> u64 {
        (self.body.len() + self.key.as_ref().map_or(0, Bytes::len)) as u64
    }
}

/// What one log holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The life of the log.
    pub epoch: Epoch,
    /// The first entry that [`EventLog::read`] still gives; `newest.next()` when none is held.
    pub oldest: Seq,
    /// The last entry; 0 when none was ever appended.
    pub newest: Seq,
    /// Bytes of the bodies and keys held from `oldest` to `newest`.
    pub bytes: u64,
}

impl Bounds {
    /// How many entries are held.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.newest.next().0.saturating_sub(self.oldest.0)
    }

    /// The cursor of the newest entry.
    #[must_use]
    pub fn head(&self) -> Cursor {
        Cursor { epoch: self.epoch, seq: self.newest }
    }

    /// Why nothing can be read from a cursor on, if so: what every engine's `read` checks first.
    #[must_use]
    pub fn refuses(&self, from: Cursor) -> Option<Page> {
        if from.epoch != self.epoch {
            return Some(Page::WrongEpoch { now: self.epoch });
        }
        if from.seq > self.newest {
            return Some(Page::Ahead { newest: self.newest });
        }
        (from.seq.next() < self.oldest).then_some(Page::Truncated { oldest: self.oldest })
    }
}

/// How much one read may return. At least one entry is returned however large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Entries at most; at least 1.
    pub events: usize,
    /// Bytes of bodies at most.
    pub bytes: usize,
}

impl Budget {
    /// Takes entries while they fit, and the first one in any case: what every engine's `read` returns.
    #[must_use]
    pub fn fill(self, entries: impl Iterator<Item = Entry>) -> Vec<Entry> {
        let mut page = Vec::new();
        let mut bytes = 0;
        for entry in entries {
            bytes += entry.body.len();
            if !page.is_empty() && bytes > self.bytes {
                break;
            }
            page.push(entry);
            if page.len() >= self.events {
                break;
            }
        }
        page
    }
}

/// What lies after a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// The entries right after the cursor, dense and in order; empty when the cursor is the newest position.
    Entries(Vec<Entry>),
    /// Entries after the cursor are gone: the first one held is `oldest` (`newest.next()` when none is).
    Truncated {
        /// The first entry still held.
        oldest: Seq,
    },
    /// The cursor counts in another life of the log.
    WrongEpoch {
        /// The log's present life.
        now: Epoch,
    },
    /// The cursor lies after the newest entry.
    Ahead {
        /// The newest entry.
        newest: Seq,
    },
}

/// How much of each log is kept. An entry is gone as soon as it breaks one of these bounds; the newest entry is
/// kept whatever its size, but not beyond its age. What is held is always dense: an entry that is too old but lies
/// behind a younger one goes together with that one.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Entries per gateway; at least 1.
    pub max_events: u64,
    /// Bytes of bodies and keys per gateway.
    pub max_bytes: u64,
    /// Age of an entry by [`Draft::at`] against the engine's clock.
    pub max_age: Duration,
    /// What is kept of the entries that are gone.
    pub compaction: Compaction,
}

impl Retention {
    /// Entries published before this are too old.
    #[must_use]
    pub fn oldest_kept_at(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let age = TimeDelta::from_std(self.max_age).ok();
        age.and_then(|age| now.checked_sub_signed(age)).unwrap_or(DateTime::<Utc>::MIN_UTC)
    }
}

/// Why a log could not do what was asked. Nothing is half done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// [`Draft::expect`] was not the newest position.
    #[error("the newest event is {head}")]
    Conflict {
        /// The newest position.
        head: Cursor,
    },
    /// The store cannot serve now.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An entry that was stored just now.
#[derive(Debug, Clone)]
pub struct Appended {
    /// What is stored.
    pub entry: Entry,
    /// As in [`Draft::since`].
    pub since: Instant,
}

/// Hears of every append, in order, once per entry, after it became durable.
///
/// Called on the engine's writer: it must be quick and must not call back into the log.
pub trait Follower: Send + Sync {
    /// These were appended to the log of `gateway`: dense, in order, right after the ones told before.
    /// An empty slice is a hint to look (an engine whose writers are elsewhere).
    fn appended(&self, gateway: GatewayId, epoch: Epoch, appended: &[Appended]);

    /// All that became durable together was told: whoever waits for it may be woken. Called where those are, before any
    /// of it is answered.
    fn told(&self) {}
}

/// Nobody listens; for tools and tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFollower;

impl Follower for NoFollower {
    fn appended(&self, _gateway: GatewayId, _epoch: Epoch, _appended: &[Appended]) {}
}

/// A ring per gateway.
///
/// To be correct an engine must keep:
/// - `append` assigns dense positions per gateway and epoch, and answers once the entry would survive kill -9 and
///   power loss, is readable, and the [`Follower`] was told of it, in this order: durable, readable, told, answered.
/// - The rows of [`Draft::beside`] are stored in the same moment as the entry; a refused draft leaves none.
/// - Concurrent appends to one gateway get positions in the order in which the follower and readers see them.
/// - An answered entry stays readable until [`Retention`] lets it go; a position is never reused within an epoch.
/// - The compacted state is that of [`crate::compaction`], exactly and of one moment, survives as entries do, and
///   holds whatever the ring has let go: an entry is in one or the other or counted as lost, never in none.
/// - A failed flush poisons the engine: it refuses further appends rather than guess what is on disk.
/// - Every method is cancel safe: dropping the future of `append` leaves the entry stored or not stored, never torn.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Appends an entry, creating the gateway's log if it has none.
    ///
    /// # Errors
    /// [`LogError::Conflict`] if [`Draft::expect`] does not hold; [`LogError::Store`] if it may not have been stored.
    async fn append(&self, to: GatewayId, draft: Draft) -> Result<Cursor, LogError>;

    /// Appends entries to one log or many, in this order and each as [`Self::append`] would, and answers for each. An
    /// engine that syncs does so once for all of them. Who appends after them waits for them: callers that have many
    /// give some thousand at a time.
    async fn append_all(&self, drafts: Vec<(GatewayId, Draft)>) -> Vec<Result<Cursor, LogError>> {
        let mut results = Vec::with_capacity(drafts.len());
        for (to, draft) in drafts {
            results.push(self.append(to, draft).await);
        }
        results
    }

    /// The entries after `from`, in order, within `max`. Never skips silently.
    ///
    /// # Errors
    /// [`LogError::Store`] if the store cannot be read now.
    async fn read(&self, of: GatewayId, from: Cursor, max: Budget) -> Result<Page, LogError>;

    /// The compacted state after `after`, within `max`, and where the ring goes on. A cursor of another epoch is
    /// before everything.
    ///
    /// # Errors
    /// [`LogError::Store`] if the store cannot be read now, or written: an engine may have to catch up with its work
    /// first.
    async fn compacted(&self, of: GatewayId, after: Cursor, max: Budget) -> Result<Compacted, LogError>;

    /// What the log holds, creating it (durably, with a new epoch) if the gateway has none.
    ///
    /// # Errors
    /// [`LogError::Store`] if the store cannot be read or written now.
    async fn bounds(&self, of: GatewayId) -> Result<Bounds, LogError>;

    /// The gateway whose log has this epoch now; `None` for an epoch that is over or never was. Two logs of one store
    /// never have the same epoch.
    ///
    /// # Errors
    /// [`LogError::Store`] if the store cannot be read now.
    async fn owner_of(&self, epoch: Epoch) -> Result<Option<GatewayId>, LogError>;

    /// Up to `max` gateways that have a log, in the order of their ids: the first ones, or those after one. What comes or
    /// goes meanwhile may be among them or not. By default none, which is true of an engine that is empty when it is opened.
    ///
    /// # Errors
    /// [`LogError::Store`] if the store cannot be read now.
    async fn gateways(&self, after: Option<GatewayId>, max: usize) -> Result<Vec<GatewayId>, LogError> {
        let _ = (after, max);
        Ok(Vec::new())
    }

    /// Drops the log of a gateway: its entries and its epoch. A later log of the same gateway has a new epoch.
    ///
    /// # Errors
    /// [`LogError::Store`] if the store cannot be written now.
    async fn forget(&self, gateway: GatewayId) -> Result<(), LogError>;

    /// Returns once everything accepted so far is durable; for shutdown.
    ///
    /// # Errors
    /// [`LogError::Store`] if the flush failed.
    async fn flush(&self) -> Result<(), LogError>;
}
