use std::collections::VecDeque;

use super::database::Database;
use super::keys;
use crate::ids::{Epoch, GatewayId, Seq};
use crate::records::StoreError;

/// Rows deleted between two batches, at least.
const SWEEP_ROWS_MIN: usize = 256;
/// Rows deleted per row of the batch before, so that deleting keeps up with appending.
const SWEEP_ROWS_PER_ROW: usize = 2;

/// Rows that no reader sees any more and that are to be deleted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sweep {
    /// Entries from the first position on and before the second.
    Entries(GatewayId, Epoch, (Seq, Seq)),
    /// All of a log: its [`keys::forgotten`] row goes last.
    Forgotten(GatewayId, Epoch),
    /// The body of an entry that has left the compacted state: its [`keys::left`] row goes last.
    Left(GatewayId, Epoch, Seq),
}

/// The deletes that lag behind: done in chunks, between batches, so that no append waits for them long.
///
/// They need no sync and may be lost in a crash: what is deleted lies below a floor, in a forgotten epoch, or has left the
/// compacted state, all durable before, and is found again when the log is loaded or the database opened.
#[derive(Default)]
pub(super) struct Sweeps {
    queue: VecDeque<Sweep>,
}

impl Sweeps {
    /// What a crash left of forgotten logs and of bodies.
    pub(super) fn load(db: &Database) -> Result<Self, StoreError> {
        let mut queue = VecDeque::new();
        for row in db.prefix(&keys::ALL_FORGOTTEN) {
            queue.extend(keys::parse_forgotten(&row?.0).map(|(of, epoch)| Sweep::Forgotten(of, epoch)));
        }
        for row in db.prefix(&keys::ALL_LEFT) {
            queue.extend(keys::parse_left(&row?.0).map(|(of, epoch, seq)| Sweep::Left(of, epoch, seq)));
        }
        Ok(Self { queue })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn add(&mut self, sweeps: Vec<Sweep>) {
        self.queue.extend(sweeps);
    }

    /// Deletes one chunk, after a batch of so many rows.
    pub(super) fn step(&mut self, db: &Database, rows: usize) -> Result<(), StoreError> {
        let mut left = SWEEP_ROWS_MIN.max(rows * SWEEP_ROWS_PER_ROW);
        while left > 0
            && let Some(sweep) = self.queue.pop_front()
        {
            let removed = sweep.step(db, left)?;
            // It may have more.
            if removed >= left {
                self.queue.push_front(sweep);
            }
            left = left.saturating_sub(removed.max(1));
        }
        Ok(())
    }
}

impl Sweep {
    /// Deletes up to about `max` rows; says how many. Fewer are all.
    fn step(self, db: &Database, max: usize) -> Result<usize, StoreError> {
        match self {
            Self::Entries(of, epoch, span) => db.remove_entries(of, epoch, span, max),
            Self::Forgotten(of, epoch) => {
                let mut removed = db.remove_entries(of, epoch, (Seq(0), Seq(u64::MAX)), max)?;
                if removed < max {
                    removed += db.remove_beside_entries(of, epoch, max - removed)?;
                }
                if removed < max {
                    db.remove(&keys::forgotten(of, epoch))?;
                }
                Ok(removed)
            }
            Self::Left(of, epoch, seq) => {
                let removed = db.remove_parts(of, epoch, seq, seq, max)?;
                if removed < max {
                    db.remove(&keys::left(of, epoch, seq))?;
                }
                Ok(removed)
            }
        }
    }
}
