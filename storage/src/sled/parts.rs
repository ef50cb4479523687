//! Bodies in parts. sled keeps up to 16 rows in a page, and writes a page of more than 128 KiB into a file of its own, anew
//! for each change; it removes such a file only after another 512 KiB of log, and one whose page had nothing appended to it
//! never. Events of 10 KB to 30 gateways left behind as many bytes as were published, for good, and a ring of 10 MB with
//! events of 150 KB took 2.7 GB. So a body of more than [`PART_BYTES`] is in rows of that size, and pages stay below
//! 100 KiB.
//!
//! - Parts are put before the row of their entry. A crash between leaves parts after the newest entry: they go before
//!   anything is appended there ([`Database::remove_parts`] at the first touch of a log).
//! - An entry that is folded into the compacted state keeps its parts. When its row in the ring is swept they stay, if it
//!   is in the state then, or else go before the row.
//! - When an entry leaves the state, the same commit has a [`keys::left`] row. What is left goes in a sweep, that row last.

use ::sled::IVec;
use bytes::Bytes;

use super::database::Database;
use super::keys;
use super::row::{PART_BYTES, bytes_in_parts, decode_entry, is_in_parts};
use crate::ids::{Epoch, GatewayId, Seq};
use crate::log::Entry;
use crate::records::StoreError;

/// The parts of a body, if it is one that is in parts.
pub(super) fn parts(body: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    (0..).zip(body.chunks(PART_BYTES).filter(|_| is_in_parts(body.len())))
}

impl Database {
    /// The entry of a row; `None` if its body is not all there.
    pub(super) fn entry(
        &self,
        of: GatewayId,
        epoch: Epoch,
        seq: Seq,
        row: &Bytes,
    ) -> Result<Option<Entry>, StoreError> {
        let (entry, in_parts) = decode_entry(seq, row)?;
        if in_parts == 0 {
            return Ok(Some(entry));
        }
        let parts = self.parts(of, epoch, seq, in_parts)?;
        Ok(parts.map(|parts| Entry { body: parts.concat().into(), ..entry }))
    }

    /// The parts of a body of so many bytes; `None` if they are not all there.
    pub(super) fn parts(
        &self,
        of: GatewayId,
        epoch: Epoch,
        seq: Seq,
        bytes: usize,
    ) -> Result<Option<Vec<IVec>>, StoreError> {
        let mut parts = Vec::new();
        for (number, row) in (0..).zip(self.range(keys::part(of, epoch, seq, 0)..=keys::part(of, epoch, seq, u32::MAX)))
        {
            let (key, part) = row?;
            if *key != keys::part(of, epoch, seq, number) {
                return Ok(None);
            }
            parts.push(part);
        }
        let are_whole = parts.iter().map(|part| part.len()).sum::<usize>() == bytes;
        Ok(are_whole.then_some(parts))
    }

    /// Deletes the parts of an entry whose row is about to go, unless the compacted state has it; says how many.
    pub(super) fn remove_parts_with(
        &self,
        of: GatewayId,
        epoch: Epoch,
        seq: Seq,
        row: &[u8],
    ) -> Result<usize, StoreError> {
        // What is not readable may have had parts.
        if bytes_in_parts(row).is_ok_and(|bytes| bytes == 0) || self.get(&keys::state(of, epoch, seq))?.is_some() {
            return Ok(0);
        }
        self.remove_parts(of, epoch, seq, seq, usize::MAX)
    }

    /// Whether there are parts from one position on.
    pub(super) fn has_parts(&self, of: GatewayId, epoch: Epoch, first: Seq) -> Result<bool, StoreError> {
        let parts = keys::part(of, epoch, first, 0)..=keys::part(of, epoch, Seq(u64::MAX), u32::MAX);
        Ok(self.range(parts).next().transpose()?.is_some())
    }

    /// Deletes up to `max` parts from one position to another; says how many.
    pub(super) fn remove_parts(
        &self,
        of: GatewayId,
        epoch: Epoch,
        first: Seq,
        last: Seq,
        max: usize,
    ) -> Result<usize, StoreError> {
        let mut removed = 0;
        for row in self.range(keys::part(of, epoch, first, 0)..=keys::part(of, epoch, last, u32::MAX)).take(max) {
            self.remove(&row?.0)?;
            removed += 1;
        }
        Ok(removed)
    }
}
