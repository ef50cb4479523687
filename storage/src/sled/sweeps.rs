use std::collections::VecDeque;

use super::database::Database;
use super::keys;
use crate::ids::{Epoch, GatewayId, Seq};
use crate::records::StoreError;

/// Rows deleted between two batches, at least.
const SWEEP_ROWS_MIN: usize = 256;
/// Rows deleted per job of the batch before, so that deleting keeps up with appending.
const SWEEP_ROWS_PER_JOB: usize = 2;

/// Rows that no reader sees any more and that are to be deleted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sweep {
    pub(super) gateway: GatewayId,
    pub(super) epoch: Epoch,
    /// The first position and the one after the last.
    pub(super) span: (Seq, Seq),
    /// The whole log was forgotten: its [`keys::forgotten`] row goes last.
    pub(super) is_forgotten: bool,
}

impl Sweep {
    pub(super) fn forgotten(gateway: GatewayId, epoch: Epoch) -> Self {
        Self { gateway, epoch, span: (Seq(0), Seq(u64::MAX)), is_forgotten: true }
    }
}

/// The deletes that lag behind: done in chunks, between batches, so that no append waits for them long.
///
/// They need no sync and may be lost in a crash: what is deleted lies below a floor or in a forgotten epoch, both
/// durable before, and is found again when the log is loaded or the database opened.
#[derive(Default)]
pub(super) struct Sweeps {
    queue: VecDeque<Sweep>,
}

impl Sweeps {
    /// What a crash left of forgotten logs.
    pub(super) fn load(db: &Database) -> Result<Self, StoreError> {
        let mut queue = VecDeque::new();
        for row in db.prefix(&keys::ALL_FORGOTTEN) {
            if let Some((gateway, epoch)) = keys::parse_forgotten(&row?.0) {
                queue.push_back(Sweep::forgotten(gateway, epoch));
            }
        }
        Ok(Self { queue })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn add(&mut self, sweeps: Vec<Sweep>) {
        self.queue.extend(sweeps);
    }

    /// Deletes one chunk.
    pub(super) fn step(&mut self, db: &Database, jobs: usize) -> Result<(), StoreError> {
        let Some(sweep) = self.queue.pop_front() else { return Ok(()) };
        let max = SWEEP_ROWS_MIN.max(jobs * SWEEP_ROWS_PER_JOB);
        let are_gone = db.remove_entries(sweep.gateway, sweep.epoch, sweep.span, max)?
            && (!sweep.is_forgotten || db.remove_state(sweep.gateway, sweep.epoch, max)?);
        if !are_gone {
            self.queue.push_front(sweep);
        } else if sweep.is_forgotten {
            db.remove(&keys::forgotten(sweep.gateway, sweep.epoch))?;
        }
        Ok(())
    }
}
