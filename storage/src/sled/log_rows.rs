use std::ops::RangeInclusive;

use bytes::Bytes;

use super::database::Database;
use super::keys;
use super::row::Head;
use crate::compaction::Compacted;
use crate::ids::{Epoch, GatewayId, Seq};
use crate::log::{Budget, Entry};
use crate::records::StoreError;

/// The rows of logs.
impl Database {
    pub(super) fn head(&self, gateway: GatewayId) -> Result<Option<Head>, StoreError> {
        self.get(&keys::head(gateway))?.map(|row| Head::decode(&row)).transpose()
    }

    /// The gateway whose log has the epoch.
    pub(super) fn owner(&self, epoch: Epoch) -> Result<Option<GatewayId>, StoreError> {
        let Some(row) = self.get(&keys::owner(epoch))? else { return Ok(None) };
        let owner = uuid::Uuid::from_slice(&row).map_err(|e| StoreError::Malformed(format!("an owner: {e}")))?;
        Ok(Some(GatewayId(owner)))
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
            let entry = row.and_then(|(seq, row)| self.entry(of, epoch, seq, &row));
            let entry = entry.map_err(|error| fault = Some(error)).ok()??;
            let fits = entry.seq == expected;
            expected = expected.next();
            fits.then_some(entry)
        });
        let entries = max.fill(dense);
        fault.map_or(Ok(entries), Err)
    }

    /// Deletes up to `max` rows of a life of a log that are none of entries; says how many.
    pub(super) fn remove_beside_entries(&self, of: GatewayId, epoch: Epoch, max: usize) -> Result<usize, StoreError> {
        let prefixes = keys::all_beside_entries(of, epoch);
        let rows = prefixes.iter().flat_map(|prefix| self.prefix(prefix)).take(max);
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        for (key, _) in &rows {
            self.remove(key)?;
        }
        Ok(rows.len())
    }

    /// The compacted state after a position as it is on disk: of everything before the head's floor. `None` if an entry of
    /// it is not all there.
    pub(super) fn compacted(
        &self,
        of: GatewayId,
        head: Head,
        newest: Seq,
        after: Seq,
        max: Budget,
    ) -> Result<Option<Compacted>, StoreError> {
        let (mut fault, mut is_whole) = (None, true);
        let rows = self.state_rows(of, head.epoch, after.next()).map_while(|row| {
            let entry = row.and_then(|(seq, row)| self.entry(of, head.epoch, seq, &row));
            let entry = entry.map_err(|error| fault = Some(error)).ok()?;
            is_whole &= entry.is_some();
            entry
        });
        let entries = max.fill(rows);
        if let Some(error) = fault {
            return Err(error);
        }
        if !is_whole {
            return Ok(None);
        }
        let left = match entries.last() {
            None => 0,
            Some(last) => {
                let span = keys::state(of, head.epoch, last.seq.next())..=keys::state(of, head.epoch, Seq(u64::MAX));
                self.range(span).try_fold(0, |left, row| row.map(|_| left + 1))?
            }
        };
        let Head { epoch, floor: oldest, let_go, .. } = head;
        Ok(Some(Compacted { epoch, oldest, newest, entries, left, let_go }))
    }

    /// The positions in a compacted state added up, for its first page; `None` for others.
    pub(super) fn state_seqs(&self, of: GatewayId, head: Head, after: Seq) -> Result<Option<u64>, StoreError> {
        if after != Seq(0) {
            return Ok(None);
        }
        let span = keys::state(of, head.epoch, Seq(0))..=keys::state(of, head.epoch, Seq(u64::MAX));
        let seqs = self.range(span).try_fold(0_u64, |seqs, row| Ok(seqs.wrapping_add(seq_of(&row?.0)?.0)));
        seqs.map(Some)
    }

    /// The page, if it is of a state that has as many entries as its head says, at positions that add up to the same: one
    /// that lacks some, or has older ones, would lead a gateway astray. Rows, sum and head must be of one moment. The
    /// first page stands for the others.
    pub(super) fn whole(
        &self,
        of: GatewayId,
        head: Head,
        seqs: Option<u64>,
        page: Option<Compacted>,
    ) -> Result<Compacted, StoreError> {
        let is_right = |page: &Compacted| {
            let has_all = || page.entries.len() as u64 + page.left == head.keys;
            seqs.is_none_or(|seqs| has_all() && head.seqs.is_none_or(|of_head| of_head == seqs))
        };
        if let Some(page) = page.filter(is_right) {
            return Ok(page);
        }
        Err(self.note_damage(&format!("the compacted state of gateway {of} is not what it was")))
    }

    /// The rows of the compacted state from `first` on.
    pub(super) fn state_rows(
        &self,
        of: GatewayId,
        epoch: Epoch,
        first: Seq,
    ) -> impl Iterator<Item = Result<(Seq, Bytes), StoreError>> {
        self.rows(keys::state(of, epoch, first)..=keys::state(of, epoch, Seq(u64::MAX)))
    }

    /// The tombstones in the compacted state from `first` on.
    pub(super) fn tombstones(
        &self,
        of: GatewayId,
        epoch: Epoch,
        first: Seq,
    ) -> impl Iterator<Item = Result<(Seq, Bytes), StoreError>> {
        self.rows(keys::tombstone(of, epoch, first)..=keys::tombstone(of, epoch, Seq(u64::MAX)))
    }

    fn rows(&self, span: RangeInclusive<[u8; 29]>) -> impl Iterator<Item = Result<(Seq, Bytes), StoreError>> {
        self.range(span).map(|row| {
            let (key, row) = row?;
            Ok((seq_of(&key)?, Bytes::copy_from_slice(&row)))
        })
    }
}

pub(super) fn seq_of(key: &[u8]) -> Result<Seq, StoreError> {
    keys::seq_of(key).ok_or_else(|| StoreError::Malformed("the key of an entry".to_owned()))
}
