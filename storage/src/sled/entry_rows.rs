//! The rows of entries: in [blocks](super::block) in the tree, and what is [young](super::young) in memory.

use std::ops::RangeInclusive;

use bytes::Bytes;

use super::block;
use super::bundle::Life;
use super::database::Database;
use super::keys;
use super::log_rows::seq_of;
use super::row::{Front, Head, entry_end};
use crate::ids::{Epoch, GatewayId, Seq};
use crate::records::StoreError;

/// Young rows that are looked up at once: a reader may want no more.
const YOUNG_AT_ONCE: usize = 64;

type Rows = Vec<(Seq, Bytes)>;

impl Database {
    /// The rows of entries from `first` to `last`, whichever are there.
    pub(super) fn entry_rows(
        &self,
        of: GatewayId,
        epoch: Epoch,
        first: Seq,
        last: Seq,
    ) -> impl Iterator<Item = Result<(Seq, Bytes), StoreError>> {
        EntryRows { db: self, life: (of, epoch), next: Some(first), last, ready: Vec::new().into_iter(), tree: None }
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

    pub(super) fn front(&self, of: GatewayId, epoch: Epoch, seq: Seq) -> Result<Option<Front>, StoreError> {
        let row = match self.young_row((of, epoch), seq)? {
            Some(row) => Some(row),
            None => self.block_at((of, epoch), seq)?.into_iter().find(|(found, _)| *found == seq).map(|(_, row)| row),
        };
        row.map(|row| Front::decode(seq, &row)).transpose()
    }

    /// Position and end offset of the last row at or after the floor.
    pub(super) fn last_entry(&self, of: GatewayId, head: Head) -> Result<Option<(Seq, u64)>, StoreError> {
        let last = match self.last_young((of, head.epoch))? {
            Some(last) => Some(last),
            None => self.last_block((of, head.epoch), Seq(u64::MAX))?.pop(),
        };
        let last = last.filter(|(seq, _)| *seq >= head.floor);
        last.map(|(seq, row)| Ok((seq, entry_end(&row)?))).transpose()
    }

    /// The rows of the block that has an entry, or would; empty if no block of the tree does.
    pub(super) fn block_at(&self, life: Life, seq: Seq) -> Result<Rows, StoreError> {
        let mut block = self.last_block(life, seq)?;
        if block.last().is_none_or(|(last, _)| *last < seq) {
            block.clear();
        }
        Ok(block)
    }

    /// The rows of the last block in the tree that begins at a position or before it.
    fn last_block(&self, life: Life, seq: Seq) -> Result<Rows, StoreError> {
        let last = self.range(span(life, Seq(0), seq)).next_back().transpose()?;
        last.map_or_else(|| Ok(Rows::new()), |(key, row)| Ok(block::split(seq_of(&key)?, &row)))
    }

    /// Deletes entries from `first` on and before `end`, whichever are there, of up to about `max` rows; says how many
    /// rows. Fewer are all, but those that share a row with entries that stay.
    pub(super) fn remove_entries(
        &self,
        of: GatewayId,
        epoch: Epoch,
        (first, end): (Seq, Seq),
        max: usize,
    ) -> Result<usize, StoreError> {
        if first >= end {
            return Ok(0);
        }
        let life = (of, epoch);
        // Of the time before: it stayed for the sake of what goes now.
        let begin = self.block_at(life, first)?.first().map_or(first, |(seq, _)| *seq);
        let blocks = self.range(span(life, begin, end.prev())).take(max).collect::<Result<Vec<_>, _>>()?;
        let mut removed = 0;
        for (key, row) in blocks {
            let rows = block::split(seq_of(&key)?, &row);
            if removed >= max || rows.last().is_some_and(|(last, _)| *last >= end) {
                break;
            }
            for (seq, row) in &rows {
                removed += self.remove_parts_with(of, epoch, *seq, row)?;
            }
            self.remove(&key)?;
            removed += 1;
        }
        for (seq, row) in self.take_young_before(life, end, max.saturating_sub(removed))? {
            removed += 1 + self.remove_parts_with(of, epoch, seq, &row)?;
        }
        Ok(removed)
    }
}

fn span((of, epoch): Life, first: Seq, last: Seq) -> RangeInclusive<[u8; 29]> {
    keys::entry(of, epoch, first)..=keys::entry(of, epoch, last)
}

/// Goes on where it is while entries become settled under it: what it does not find young is in the tree by then.
struct EntryRows<'a> {
    db: &'a Database,
    life: Life,
    /// `None` at the end.
    next: Option<Seq>,
    last: Seq,
    ready: std::vec::IntoIter<(Seq, Bytes)>,
    tree: Option<InTree<'a>>,
}

/// Blocks of the tree, of which the entries up to a position are wanted.
struct InTree<'a> {
    blocks: Box<dyn Iterator<Item = Result<(::sled::IVec, ::sled::IVec), StoreError>> + 'a>,
    up_to: Seq,
}

impl Iterator for EntryRows<'_> {
    type Item = Result<(Seq, Bytes), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((seq, row)) = self.ready.next() {
                self.go_on_after(seq);
                return Some(Ok((seq, row)));
            }
            let next = self.next.filter(|next| *next <= self.last)?;
            if let Err(error) = self.refill(next) {
                self.next = None;
                return Some(Err(error));
            }
        }
    }
}

impl EntryRows<'_> {
    /// Makes rows ready, or goes on elsewhere.
    fn refill(&mut self, next: Seq) -> Result<(), StoreError> {
        if let Some(InTree { blocks, up_to }) = &mut self.tree {
            let up_to = *up_to;
            match blocks.next().transpose()? {
                Some((key, row)) => {
                    let mut rows = block::split(seq_of(&key)?, &row);
                    rows.retain(|(seq, _)| (next..=up_to).contains(seq));
                    self.ready = rows.into_iter();
                }
                None => {
                    self.tree = None;
                    self.go_on_after(up_to);
                }
            }
            return Ok(());
        }
        let young = self.db.some_young(self.life, (next, self.last), YOUNG_AT_ONCE)?;
        match young.first() {
            Some((first, _)) if *first == next => self.ready = young.into_iter(),
            first => {
                let up_to = first.map_or(self.last, |(first, _)| first.prev());
                let begin = self.db.block_at(self.life, next)?.first().map_or(next, |(seq, _)| *seq);
                let blocks = Box::new(self.db.range(span(self.life, begin, up_to)));
                self.tree = Some(InTree { blocks, up_to });
            }
        }
        Ok(())
    }

    fn go_on_after(&mut self, seq: Seq) {
        self.next = (seq < Seq(u64::MAX)).then(|| seq.next());
    }
}
