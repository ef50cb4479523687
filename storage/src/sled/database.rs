use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::blobs::Blobs;
use super::keys;
use super::lock::DataLock;
use super::mark::Mark;
use super::row::{Front, Head, decode_entry, entry_end};
use crate::compaction::Compacted;
use crate::ids::{Epoch, GatewayId, Seq};
use crate::log::{Budget, Entry};
use crate::records::StoreError;

/// One open database: the tree, and what it takes to make it durable.
pub(super) struct Database {
    tree: ::sled::Db,
    /// sled's flush writes and starts the writeback, but waits for no disk: this handle does.
    file: File,
    /// What only a sync needs; syncs go one after the other.
    syncing: Mutex<Syncing>,
    /// Last, so that the directory stays locked until the tree is closed.
    _lock: Arc<DataLock>,
    #[cfg(test)]
    pub(super) fail_sync: std::sync::atomic::AtomicBool,
}

struct Syncing {
    blobs: Blobs,
    mark: Mark,
}

impl Database {
    /// `syncs` is what the mark goes on from.
    pub(super) fn new(tree: ::sled::Db, path: &Path, syncs: u64, lock: Arc<DataLock>) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path.join("db"))?;
        let syncing = Syncing { blobs: Blobs::new(path)?, mark: Mark::open(path, syncs)? };
        Ok(Self {
            tree,
            file,
            syncing: Mutex::new(syncing),
            _lock: lock,
            #[cfg(test)]
            fail_sync: std::sync::atomic::AtomicBool::new(false),
        })
    }

    /// Makes everything written so far survive kill -9 and power loss.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        #[cfg(test)]
        if self.fail_sync.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(failed(io::Error::other("told to fail")));
        }
        let mut syncing = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.put(keys::SYNCS, &syncing.mark.next().to_be_bytes())?;
        self.tree.flush().map_err(failed)?;
        // Blobs after the flush (it may write some) and before the log that points at them.
        syncing.blobs.sync().map_err(failed)?;
        self.file.sync_data().map_err(failed)?;
        syncing.blobs.log_is_synced().map_err(failed)?;
        syncing.mark.done().map_err(failed)
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<::sled::IVec>, StoreError> {
        self.tree.get(key).map_err(failed)
    }

    pub(super) fn put(&self, key: &[u8], row: &[u8]) -> Result<(), StoreError> {
        self.tree.insert(key, row).map(drop).map_err(failed)
    }

    pub(super) fn remove(&self, key: &[u8]) -> Result<(), StoreError> {
        self.tree.remove(key).map(drop).map_err(failed)
    }

    /// All of the batch or nothing, also across kill -9.
    pub(super) fn apply(&self, batch: ::sled::Batch) -> Result<(), StoreError> {
        self.tree.apply_batch(batch).map_err(failed)
    }

    pub(super) fn prefix(
        &self,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(::sled::IVec, ::sled::IVec), StoreError>> {
        self.tree.scan_prefix(prefix).map(|row| row.map_err(failed))
    }

    pub(super) fn head(&self, gateway: GatewayId) -> Result<Option<Head>, StoreError> {
        self.get(&keys::head(gateway))?.map(|row| Head::decode(&row)).transpose()
    }

    /// The gateway whose log has the epoch.
    pub(super) fn owner(&self, epoch: Epoch) -> Result<Option<GatewayId>, StoreError> {
        let Some(row) = self.get(&keys::owner(epoch))? else { return Ok(None) };
        let owner = uuid::Uuid::from_slice(&row).map_err(|e| StoreError::Malformed(format!("an owner: {e}")))?;
        Ok(Some(GatewayId(owner)))
    }

    /// Position and end offset of the last row at or after the floor.
    pub(super) fn last_entry(&self, of: GatewayId, head: Head) -> Result<Option<(Seq, u64)>, StoreError> {
        let last = self.tree.range(span(of, head.epoch, head.floor, Seq(u64::MAX))).next_back();
        let Some((key, row)) = last.transpose().map_err(failed)? else { return Ok(None) };
        Ok(Some((seq_of(&key)?, entry_end(&row)?)))
    }

    pub(super) fn front(&self, of: GatewayId, epoch: Epoch, seq: Seq) -> Result<Option<Front>, StoreError> {
        self.get(&keys::entry(of, epoch, seq))?.map(|row| Front::decode(seq, &row)).transpose()
    }

    pub(super) fn fronts(
        &self,
        of: GatewayId,
        epoch: Epoch,
        first: Seq,
        last: Seq,
    ) -> impl Iterator<Item = Result<Front, StoreError>> {
        self.entry_rows(of, epoch, first, last).map(|row| {
            let (seq, row) = row?;
            Front::decode(seq, &row)
        })
    }

    /// The entries from `first` to `last` within `max`, as far as they are dense.
    pub(super) fn entries(
        &self,
        of: GatewayId,
        epoch: Epoch,
        first: Seq,
        last: Seq,
        max: Budget,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut fault = None;
        let mut expected = first;
        let dense = self.entry_rows(of, epoch, first, last).map_while(|row| {
            let entry = row.and_then(|(seq, row)| decode_entry(seq, &row));
            let entry = entry.map_err(|error| fault = Some(error)).ok()?;
            let fits = entry.seq == expected;
            expected = expected.next();
            fits.then_some(entry)
        });
        let entries = max.fill(dense);
        fault.map_or(Ok(entries), Err)
    }

    /// Deletes up to `max` of the rows from `first` on and before `end`, whichever are there; says whether all are.
    pub(super) fn remove_entries(
        &self,
        of: GatewayId,
        epoch: Epoch,
        (first, end): (Seq, Seq),
        max: usize,
    ) -> Result<bool, StoreError> {
        if first >= end {
            return Ok(true);
        }
        let keys = self.tree.range(span(of, epoch, first, end.prev())).keys().take(max);
        let keys = keys.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        for key in &keys {
            self.remove(key)?;
        }
        Ok(keys.len() < max)
    }

    /// Deletes up to `max` rows of the compacted state of a life of a log; says whether all are deleted.
    pub(super) fn remove_state(&self, of: GatewayId, epoch: Epoch, max: usize) -> Result<bool, StoreError> {
        let prefixes = keys::all_state(of, epoch);
        let keys = prefixes.iter().flat_map(|prefix| self.tree.scan_prefix(prefix).keys()).take(max);
        let keys = keys.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        for key in &keys {
            self.remove(key)?;
        }
        Ok(keys.len() < max)
    }

    /// The compacted state after a position as it is on disk: of everything before the head's floor.
    pub(super) fn compacted(
        &self,
        of: GatewayId,
        head: Head,
        newest: Seq,
        after: Seq,
        max: Budget,
    ) -> Result<Compacted, StoreError> {
        let mut fault = None;
        let rows = self.state_rows(of, head.epoch, after.next()).map_while(|row| {
            let entry = row.and_then(|(seq, row)| decode_entry(seq, &row));
            entry.map_err(|error| fault = Some(error)).ok()
        });
        let entries = max.fill(rows);
        if let Some(error) = fault {
            return Err(error);
        }
        let left = match entries.last() {
            None => 0,
            // All of the state is counted already, and its beginning is what most readers read.
            Some(_) if after == Seq(0) => head.keys.saturating_sub(entries.len() as u64),
            Some(last) => {
                let span = keys::state(of, head.epoch, last.seq.next())..=keys::state(of, head.epoch, Seq(u64::MAX));
                self.tree.range(span).keys().try_fold(0, |left, key| key.map(|_| left + 1)).map_err(failed)?
            }
        };
        let Head { epoch, floor: oldest, let_go, .. } = head;
        Ok(Compacted { epoch, oldest, newest, entries, left, let_go })
    }

    /// The rows of entries from `first` to `last`, whichever are there.
    pub(super) fn entry_rows(
        &self,
        of: GatewayId,
        epoch: Epoch,
        first: Seq,
        last: Seq,
    ) -> impl Iterator<Item = Result<(Seq, ::sled::IVec), StoreError>> {
        self.rows(span(of, epoch, first, last))
    }

    /// The rows of the compacted state from `first` on.
    pub(super) fn state_rows(
        &self,
        of: GatewayId,
        epoch: Epoch,
        first: Seq,
    ) -> impl Iterator<Item = Result<(Seq, ::sled::IVec), StoreError>> {
        self.rows(keys::state(of, epoch, first)..=keys::state(of, epoch, Seq(u64::MAX)))
    }

    /// The tombstones in the compacted state from `first` on.
    pub(super) fn tombstones(
        &self,
        of: GatewayId,
        epoch: Epoch,
        first: Seq,
    ) -> impl Iterator<Item = Result<(Seq, ::sled::IVec), StoreError>> {
        self.rows(keys::tombstone(of, epoch, first)..=keys::tombstone(of, epoch, Seq(u64::MAX)))
    }

    fn rows(
        &self,
        span: RangeInclusive<[u8; 29]>,
    ) -> impl Iterator<Item = Result<(Seq, ::sled::IVec), StoreError>> + use<> {
        // An inverted range would panic in the tree.
        let rows = (span.start() <= span.end()).then(|| self.tree.range(span));
        rows.into_iter().flatten().map(|row| {
            let (key, row) = row.map_err(failed)?;
            Ok((seq_of(&key)?, row))
        })
    }
}

fn span(of: GatewayId, epoch: Epoch, first: Seq, last: Seq) -> RangeInclusive<[u8; 29]> {
    keys::entry(of, epoch, first)..=keys::entry(of, epoch, last)
}

fn seq_of(key: &[u8]) -> Result<Seq, StoreError> {
    keys::seq_of(key).ok_or_else(|| StoreError::Malformed("the key of an entry".to_owned()))
}

/// An I/O error, or one of sled's, as the store's.
pub(super) fn failed(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Io(Box::new(error))
}
