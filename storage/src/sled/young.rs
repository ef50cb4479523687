//! Young entries: those that are in [bundles](super::bundle) and not in the rows of their logs yet.
//!
//! - At most [`BUNDLES_MAX`] bundles are young, some 16 MiB, so some 45,000 events of 300 bytes. All are in memory: they
//!   are read from there, and again when the database is opened.
//! - When there are more, the oldest bundle is settled: of each log that it has entries of, as many of its young
//!   entries as are a [block](super::block) are put as one row. A log that has an entry in every fourth bundle or so
//!   is written block by block and not entry by entry.
//! - A bundle's key is its number modulo [`BUNDLES_MAX`]: a new one takes the place of one that is settled, which costs
//!   neither a delete nor a split. [`keys::SETTLED`] has the number of the oldest that is not. It is put after the rows
//!   of what it says is settled and before a bundle takes such a place, and sled recovers a prefix of what was written.
//! - After a crash some of what was in bundles may be settled as well, or of a log that is forgotten: two look-ups a log
//!   tell when the database is opened.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ::sled::{Batch, IVec};
use bytes::Bytes;

use super::block;
use super::bundle::{self, Bundle, Bundled, Life};
use super::database::Database;
use super::keys;
use crate::ids::Seq;
use crate::records::StoreError;

/// Bundles that are not settled at most. Fewer in tests, so that these meet what is settled; a store may be opened with
/// another number than it was written with.
pub(super) const BUNDLES_MAX: u32 = if cfg!(test) {
    8
} else if cfg!(debug_assertions) {
    64
} else {
    4_096
};
/// Bundles that are left young after a batch, so that the next one need not settle any before it is answered.
const BUNDLES_KEPT: usize = BUNDLES_MAX as usize / 8 * 7;
/// Bundles that are put at once at most: there is a place for each.
pub(super) const BUNDLES_AT_ONCE_MAX: usize = BUNDLES_MAX as usize / 2;

/// The young entries of a database. Only its writer adds and settles.
#[derive(Default)]
pub(super) struct Young {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// By position.
    logs: HashMap<Life, VecDeque<(Seq, Bytes)>>,
    /// What each bundle has, oldest first: the last position of each run of a log's entries.
    bundles: VecDeque<Vec<(Life, Seq)>>,
    /// The number of the first of these.
    first: u64,
}

impl Young {
    /// The row of an entry.
    pub(super) fn get(&self, life: Life, seq: Seq) -> Option<Bytes> {
        let inner = self.inner();
        let rows = inner.logs.get(&life)?;
        rows.get(start(rows, seq)).filter(|(found, _)| *found == seq).map(|(_, row)| row.clone())
    }

    /// The newest entry.
    pub(super) fn last(&self, life: Life) -> Option<(Seq, Bytes)> {
        self.inner().logs.get(&life)?.back().cloned()
    }

    /// Up to `max` entries from `first` to `last`, in order.
    pub(super) fn some(&self, life: Life, (first, last): (Seq, Seq), max: usize) -> Vec<(Seq, Bytes)> {
        let inner = self.inner();
        let Some(rows) = inner.logs.get(&life) else { return Vec::new() };
        let rows = rows.range(start(rows, first)..).take_while(|(seq, _)| *seq <= last);
        rows.take(max).cloned().collect()
    }

    /// Takes up to `max` entries before `end` away, as they are settled or nobody wants them.
    pub(super) fn take_before(&self, life: Life, end: Seq, max: usize) -> Vec<(Seq, Bytes)> {
        let mut inner = self.inner();
        let Some(rows) = inner.logs.get_mut(&life) else { return Vec::new() };
        let taken = rows.drain(..start(rows, end).min(max)).collect();
        if rows.is_empty() {
            inner.logs.remove(&life);
        }
        taken
    }

    /// Says whether each entry comes after those of its log that were added before.
    fn add(&self, row: &Bytes, entries: Vec<Bundled>) -> bool {
        let mut inner = self.inner();
        let (mut runs, mut are_in_order) = (Vec::new(), true);
        for Bundled { life, seq, at } in entries {
            let rows = inner.logs.entry(life).or_default();
            are_in_order &= rows.back().is_none_or(|(last, _)| *last < seq);
            rows.push_back((seq, row.slice(at)));
            match runs.last_mut() {
                Some((last, end)) if *last == life => *end = seq,
                _ => runs.push((life, seq)),
            }
        }
        inner.bundles.push_back(runs);
        are_in_order
    }

    /// The entries of a log that are to be one row, if its oldest is not after `up_to`.
    fn block(&self, life: Life, up_to: Seq) -> Vec<(Seq, Bytes)> {
        let inner = self.inner();
        let Some(rows) = inner.logs.get(&life) else { return Vec::new() };
        if rows.front().is_none_or(|(seq, _)| *seq > up_to) {
            return Vec::new();
        }
        rows.iter().take(block::len(rows.iter())).cloned().collect()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Used on if it is poisoned: no step under it can panic half-way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a position is, or would be.
fn start(rows: &VecDeque<(Seq, Bytes)>, seq: Seq) -> usize {
    rows.partition_point(|(found, _)| *found < seq)
}

/// The writer's side.
impl Database {
    /// Puts entries, and rows that belong to them. With such rows all of it is there or nothing.
    pub(super) fn put_bundles(&self, bundles: Vec<Bundle>, beside: Vec<(IVec, IVec)>) -> Result<(), StoreError> {
        self.settle_down_to((BUNDLES_MAX as usize).saturating_sub(bundles.len()))?;
        let next = {
            let inner = self.young.inner();
            inner.first + inner.bundles.len() as u64
        };
        let numbered: Vec<_> = (next..)
            .zip(bundles)
            .map(|(number, bundle)| (keys::bundle(slot(number)), bundle.numbered(number)))
            .collect();
        if beside.is_empty() {
            numbered.iter().try_for_each(|(key, (row, _))| self.put(key, &row[..]))?;
        } else {
            let mut batch = Batch::default();
            beside.into_iter().for_each(|(key, row)| batch.insert(key, row));
            numbered.iter().for_each(|(key, (row, _))| batch.insert(key, &row[..]));
            self.apply(batch)?;
        }
        for (_, (row, entries)) in numbered {
            self.young.add(&row, entries);
        }
        Ok(())
    }

    /// Settles what is more than is kept young.
    pub(super) fn settle(&self) -> Result<(), StoreError> {
        self.settle_down_to(BUNDLES_KEPT)
    }

    pub(super) fn settle_down_to(&self, bundles: usize) -> Result<(), StoreError> {
        let surplus = self.young.inner().bundles.len().saturating_sub(bundles);
        if surplus == 0 {
            return Ok(());
        }
        for _ in 0..surplus {
            self.settle_oldest()?;
        }
        let settled = self.young.inner().first;
        self.put(keys::SETTLED, &settled.to_be_bytes()[..])
    }

    fn settle_oldest(&self) -> Result<(), StoreError> {
        let runs = self.young.inner().bundles.front().cloned().unwrap_or_default();
        for (life, up_to) in runs {
            loop {
                let rows = self.young.block(life, up_to);
                let (Some((first, _)), Some((last, _))) = (rows.first(), rows.last()) else { break };
                self.put(&keys::entry(life.0, life.1, *first), block::encode(&rows))?;
                // Only now: who reads looks here first and then for the row.
                self.young.take_before(life, last.next(), rows.len());
            }
        }
        let mut inner = self.young.inner();
        inner.bundles.pop_front();
        inner.first += 1;
        Ok(())
    }

    /// A crash may have left young what is settled, or of a log that is forgotten.
    fn forget_settled(&self, life: Life) -> Result<(), StoreError> {
        if self.head(life.0)?.is_none_or(|head| head.epoch != life.1) {
            self.young.take_before(life, Seq(u64::MAX), usize::MAX);
        }
        while let [(seq, _)] = self.young.some(life, (Seq(0), Seq(u64::MAX)), 1)[..]
            && let Some((last, _)) = self.block_at(life, seq)?.last()
        {
            self.young.take_before(life, last.next(), usize::MAX);
        }
        Ok(())
    }

    /// Reads what is young; before anything else is asked of the database.
    pub(super) fn restore_young(&self) -> Result<(), StoreError> {
        let damaged = |what: &str| self.note_damage(&format!("entries that were not in their logs yet: {what}"));
        let settled = self.get(keys::SETTLED)?;
        let settled = settled.map(|row| <[u8; 8]>::try_from(&*row)).transpose();
        let settled = settled.map_err(|_| damaged("where they begin"))?.map_or(0, u64::from_be_bytes);
        let (mut bundles, mut are_in_place) = (Vec::new(), true);
        for row in self.range(keys::bundle(0)..=keys::bundle(u32::MAX)) {
            let (key, row) = row?;
            let number = bundle::number(&row).ok_or_else(|| damaged("a bundle"))?;
            if number >= settled {
                are_in_place &= *key == keys::bundle(slot(number));
                bundles.push((number, Bytes::copy_from_slice(&row)));
            }
        }
        bundles.sort_unstable_by_key(|(number, _)| *number);
        self.young.inner().first = settled;
        for (expected, (number, row)) in (settled..).zip(bundles) {
            let entries = bundle::parse(&row).filter(|_| number == expected);
            let entries = entries.ok_or_else(|| damaged("a bundle is missing, or is none"))?;
            if !self.young.add(&row, entries) {
                return Err(damaged("they are out of order"));
            }
        }
        let lives: Vec<_> = self.young.inner().logs.keys().copied().collect();
        lives.into_iter().try_for_each(|life| self.forget_settled(life))?;
        // Else the next ones might take the places of these.
        if are_in_place { Ok(()) } else { self.settle_down_to(0) }
    }
}

fn slot(number: u64) -> u32 {
    // The remainder of a division by a number of 32 bits has no more.
    u32::try_from(number % u64::from(BUNDLES_MAX)).unwrap_or(0)
}
