//! Young entries: those that are in [bundles](super::bundle) and not in the rows of their logs yet.
//!
//! - At most [`BUNDLES_MAX`] bundles are young, some 16 MiB, so some 45,000 events of 300 bytes. All are in memory: they
//!   are read from there, and again when the database is opened.
//! - When there are more, the oldest bundle is settled: of each log that it has entries of, as many of its young
//!   entries as are a [block] are put as one row. A log that has an entry in every fourth bundle or so
//!   is written block by block and not entry by entry.
//! - A bundle's key is its number modulo [`BUNDLES_MAX`]: a new one takes the place of one that is settled, which costs
//!   neither a delete nor a split. [`keys::SETTLED`] has the number of the oldest that is not. It is put after the rows
//!   of what it says is settled and before a bundle takes such a place, and sled recovers a prefix of what was written.
//! - A crash may have left young what is settled or of a log that is forgotten, and a block has entries of younger
//!   bundles as well. So of each log that is young when the database is opened two look-ups tell what of it is not, when
//!   it is first asked for or settled, some 50 µs a log once: for all of them at once these took a third of a start with
//!   100,000 gateways, and 60 MB of sled's cache.
//! - In memory a bundle's row is the one that sled has in its cache, a log takes 64 bytes and an entry 24: most logs have
//!   one or two.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ::sled::{Batch, IVec};
use bytes::Bytes;

use super::block::{self, BLOCK_ENTRIES_MAX};
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
    logs: HashMap<Life, OfLog>,
    /// The rows of the bundles, oldest first.
    bundles: VecDeque<Bytes>,
    /// The number of the first of these.
    first: u64,
}

struct OfLog {
    /// By position.
    places: VecDeque<Place>,
    /// It may be settled or forgotten: nobody has looked since the database was opened.
    is_doubtful: bool,
}

/// Where the row of an entry is.
struct Place {
    seq: Seq,
    bundle: u64,
    at: Range<u32>,
}

impl Young {
    /// Whether there is an entry of this life of a log, or may be.
    pub(super) fn has(&self, life: Life) -> bool {
        self.inner().logs.contains_key(&life)
    }

    /// As [`Database::some_young`] without a look at the disk, so nothing of a log of which that has to be asked first.
    pub(super) fn certain(&self, life: Life, span: (Seq, Seq), max: usize) -> Vec<(Seq, Bytes)> {
        let inner = self.inner();
        let is_certain = inner.logs.get(&life).is_some_and(|of| !of.is_doubtful);
        if is_certain { inner.some(life, span, max) } else { Vec::new() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Used on if it is poisoned: no step under it can panic half-way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn places(&self, life: Life) -> Option<&VecDeque<Place>> {
        self.logs.get(&life).map(|of| &of.places)
    }

    fn row(&self, place: &Place) -> (Seq, Bytes) {
        let bundle =
            place.bundle.checked_sub(self.first).and_then(|index| self.bundles.get(usize::try_from(index).ok()?));
        // An entry goes before its bundle does.
        (place.seq, bundle.map_or_else(Bytes::new, |row| row.slice(place.at.start as usize..place.at.end as usize)))
    }

    fn some(&self, life: Life, (first, last): (Seq, Seq), max: usize) -> Vec<(Seq, Bytes)> {
        let Some(places) = self.places(life) else { return Vec::new() };
        let places = places.range(start(places, first)..).take_while(|place| place.seq <= last);
        places.take(max).map(|place| self.row(place)).collect()
    }

    /// Says whether each entry comes after those of its log that were added before.
    fn add(&mut self, row: Bytes, entries: Vec<Bundled>) -> bool {
        let bundle = self.first + self.bundles.len() as u64;
        self.bundles.push_back(row);
        let mut are_in_order = true;
        for Bundled { life, seq, at } in entries {
            let new = || OfLog { places: VecDeque::with_capacity(1), is_doubtful: false };
            let places = &mut self.logs.entry(life).or_insert_with(new).places;
            are_in_order &= places.back().is_none_or(|last| last.seq < seq);
            places.push_back(Place { seq, bundle, at });
        }
        are_in_order
    }

    fn take_before(&mut self, life: Life, end: Seq, max: usize) -> Vec<Place> {
        let Some(of) = self.logs.get_mut(&life) else { return Vec::new() };
        let taken = of.places.drain(..start(&of.places, end).min(max)).collect();
        if of.places.is_empty() {
            self.logs.remove(&life);
        }
        taken
    }

    /// The entries of a log that are to be one row, if its oldest is not after `up_to`.
    fn block(&self, life: Life, up_to: Seq) -> Vec<(Seq, Bytes)> {
        let oldest = self.places(life).and_then(VecDeque::front);
        if oldest.is_none_or(|oldest| oldest.seq > up_to) {
            return Vec::new();
        }
        let mut rows = self.some(life, (Seq(0), Seq(u64::MAX)), BLOCK_ENTRIES_MAX);
        rows.truncate(block::len(rows.iter()));
        rows
    }
}

/// Where a position is, or would be.
fn start(places: &VecDeque<Place>, seq: Seq) -> usize {
    places.partition_point(|place| place.seq < seq)
}

/// The young entries of a log.
impl Database {
    /// The row of an entry.
    pub(super) fn young_row(&self, life: Life, seq: Seq) -> Result<Option<Bytes>, StoreError> {
        Ok(self.some_young(life, (seq, seq), 1)?.pop().map(|(_, row)| row))
    }

    /// The newest entry.
    pub(super) fn last_young(&self, life: Life) -> Result<Option<(Seq, Bytes)>, StoreError> {
        let young = self.young_of(life)?;
        Ok(young.places(life).and_then(VecDeque::back).map(|place| young.row(place)))
    }

    /// Up to `max` entries from the first position to the last, in order.
    pub(super) fn some_young(&self, life: Life, span: (Seq, Seq), max: usize) -> Result<Vec<(Seq, Bytes)>, StoreError> {
        Ok(self.young_of(life)?.some(life, span, max))
    }

    /// Takes up to `max` entries before `end` away, as nobody wants them.
    pub(super) fn take_young_before(&self, life: Life, end: Seq, max: usize) -> Result<Vec<(Seq, Bytes)>, StoreError> {
        let mut young = self.young_of(life)?;
        let taken = young.take_before(life, end, max);
        Ok(taken.iter().map(|place| young.row(place)).collect())
    }

    /// All that is young, certain of this log.
    fn young_of(&self, life: Life) -> Result<MutexGuard<'_, Inner>, StoreError> {
        let young = self.young.inner();
        if young.logs.get(&life).is_none_or(|of| !of.is_doubtful) {
            return Ok(young);
        }
        drop(young);
        self.forget_settled(life)?;
        Ok(self.young.inner())
    }

    /// Whoever else does so meanwhile, or settles, takes away nothing that is not in the tree.
    fn forget_settled(&self, life: Life) -> Result<(), StoreError> {
        let is_forgotten = match self.head(life.0) {
            Ok(head) => head.is_none_or(|head| head.epoch != life.1),
            // Its readers are told so. What it has is kept for a repair, and the writer goes on for all others.
            Err(StoreError::Malformed(_)) => false,
            Err(error) => return Err(error),
        };
        if is_forgotten {
            self.young.inner().take_before(life, Seq(u64::MAX), usize::MAX);
        }
        let first = || self.young.inner().places(life)?.front().map(|place| place.seq);
        while let Some(seq) = first()
            && let Some((last, _)) = self.block_at(life, seq)?.last()
        {
            self.young.inner().take_before(life, last.next(), usize::MAX);
        }
        if let Some(of) = self.young.inner().logs.get_mut(&life) {
            of.is_doubtful = false;
        }
        Ok(())
    }
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
        let numbered = (next..).zip(bundles).map(|(number, bundle)| {
            let (row, entries) = bundle.numbered(number);
            (keys::bundle(slot(number)), IVec::from(row), entries)
        });
        let numbered: Vec<_> = numbered.collect();
        if beside.is_empty() {
            numbered.iter().try_for_each(|(key, row, _)| self.put(key, row))?;
        } else {
            let mut batch = Batch::default();
            beside.into_iter().for_each(|(key, row)| batch.insert(key, row));
            numbered.iter().for_each(|(key, row, _)| batch.insert(key, row));
            self.apply(batch)?;
        }
        let mut young = self.young.inner();
        for (_, row, entries) in numbered {
            young.add(Bytes::from_owner(row), entries);
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
        let oldest = self.young.inner().bundles.front().cloned().unwrap_or_default();
        for Bundled { life, seq, .. } in bundle::parse(&oldest).unwrap_or_default() {
            loop {
                let rows = self.young_of(life)?.block(life, seq);
                let (Some((first, _)), Some((last, _))) = (rows.first(), rows.last()) else { break };
                self.put(&keys::entry(life.0, life.1, *first), block::encode(&rows))?;
                // Only now: who reads looks here first and then for the row.
                self.young.inner().take_before(life, last.next(), rows.len());
            }
        }
        let mut inner = self.young.inner();
        inner.bundles.pop_front();
        inner.first += 1;
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
                bundles.push((number, Bytes::from_owner(row)));
            }
        }
        bundles.sort_unstable_by_key(|(number, _)| *number);
        let mut young = self.young.inner();
        young.first = settled;
        for (expected, (number, row)) in (settled..).zip(bundles) {
            let entries = bundle::parse(&row).filter(|_| number == expected);
            let entries = entries.ok_or_else(|| damaged("a bundle is missing, or is none"))?;
            if !young.add(row, entries) {
                return Err(damaged("they are out of order"));
            }
        }
        young.logs.values_mut().for_each(|of| of.is_doubtful = true);
        drop(young);
        // Else the next ones might take the places of these.
        if are_in_place { Ok(()) } else { self.settle_down_to(0) }
    }
}

fn slot(number: u64) -> u32 {
    // The remainder of a division by a number of 32 bits has no more.
    u32::try_from(number % u64::from(BUNDLES_MAX)).unwrap_or(0)
}
