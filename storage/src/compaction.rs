//! The compacted state of a log: for every key, the latest of the entries that have left the ring.
//!
//! It is what the entries before [`Compacted::oldest`] leave behind: they are folded into it one after the other, in the
//! order of positions, as they leave the ring ([`Compaction`] says what each does). So it changes only when the ring
//! lets go, appending pays nothing for it, and it is the same in every engine whenever the engine does the work.
//!
//! # Reading it beside a log that goes on
//! A reader takes it in the order of positions, page by page, each time what lies after its cursor *now*, and then the
//! ring. It misses no key's latest state, whatever is appended and let go meanwhile: an entry after the cursor that
//! vanishes was superseded by one with a higher position, which lies after the cursor too; an entry that leaves the
//! ring has a higher position than all that was compacted before. So any position is a cursor into it, whoever has it:
//! a reader that was cut off in the middle, and one that has seen everything up to there and stayed away, need the same
//! entries.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::ids::{Epoch, Seq};
use crate::log::Entry;

/// How much compacted state is kept of each log.
///
/// Folding an entry with a key does this: it takes the place of the entry of its key; then, while the oldest tombstone
/// ([`Entry::ends_key`]) was published more than `max_tombstone_age` before this entry, that is let go; then, while the
/// state has too many keys or bytes, the oldest tombstone is let go or, without one, the oldest entry. An entry without
/// a key does nothing.
#[derive(Debug, Clone, Copy)]
pub struct Compaction {
    /// Keys per log, tombstones included.
    pub max_keys: u64,
    /// Bytes of bodies and keys per log.
    pub max_bytes: u64,
    /// Age of a tombstone against the entry being folded, so that a log at rest forgets nothing. A reader that was away
    /// longer may not hear of a deletion; [`Compacted::let_go`] tells.
    pub max_tombstone_age: Duration,
}

impl Compaction {
    /// 10,000 keys, 16 MiB, 365 days.
    pub const DEFAULT: Self = Self {
        max_keys: 10_000,
        max_bytes: 16 * 1024 * 1024,
        max_tombstone_age: Duration::from_secs(365 * 24 * 60 * 60),
    };

    /// Tombstones published before this are too old when an entry of `at` is folded.
    #[must_use]
    pub(crate) fn oldest_tombstone_at(&self, at: DateTime<Utc>) -> DateTime<Utc> {
        let age = TimeDelta::from_std(self.max_tombstone_age).ok();
        age.and_then(|age| at.checked_sub_signed(age)).unwrap_or(DateTime::<Utc>::MIN_UTC)
    }

    /// Whether a state of this size must let go of something.
    #[must_use]
    pub(crate) fn is_exceeded_by(&self, keys: u64, bytes: u64) -> bool {
        keys > self.max_keys || bytes > self.max_bytes
    }
}

impl Default for Compaction {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A part of a log's compacted state, and where the ring goes on, all of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compacted {
    /// The life of the log.
    pub epoch: Epoch,
    /// Where the ring goes on: the state is of everything before it. `newest.next()` when the ring is empty.
    pub oldest: Seq,
    /// The last entry of the log.
    pub newest: Seq,
    /// The first entries of the state after the cursor, in order; empty only if there are none.
    pub entries: Vec<Entry>,
    /// How many follow after these.
    pub left: u64,
    /// The newest entry that was ever let go of by [`Compaction`]'s bounds, or lost to damage; 0 for none. For a cursor at
    /// or after it nothing is missing: what follows leads to exactly the state of a reader that never left.
    pub let_go: Seq,
}

impl Compacted {
    /// How many entries after `after` (or after where the ring begins, if that is later) nobody will read any more:
    /// they have left the ring and are not in the state. `after` must be the position that was read after.
    #[must_use]
    pub fn lost_after(&self, after: Seq) -> u64 {
        let gone = self.oldest.prev().0.saturating_sub(after.0);
        gone.saturating_sub(self.entries.len() as u64 + self.left)
    }
}
