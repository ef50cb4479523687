use super::database::Database;
use super::job::{Job, Need};
use crate::records::StoreError;

/// Room that is left alone by what takes room. sled is dead for good once a write of its own finds none: this is for
/// what it has buffered, its snapshots, the deletes that make room, and whoever else writes to the file system.
pub(super) const RESERVE_BYTES: u64 = 16 * 1024 * 1024;
/// Room below which nothing at all is written.
pub(super) const LAST_RESERVE_BYTES: u64 = RESERVE_BYTES / 2;
/// What sled writes per byte of a row before it uses the room of what it replaced again: 9–10 measured.
const WRITTEN_PER_BYTE: u64 = 12;
/// Bytes of a row beside what it holds: key, heads, the page it is in.
const ROW_OVERHEAD_BYTES: u64 = 512;

/// What the file system of a database has room for, asked once a batch: a write is refused before it is begun.
#[derive(Default)]
pub(super) struct Space {
    left: u64,
}

impl Space {
    pub(super) fn look(db: &Database) -> Result<Self, StoreError> {
        Ok(Self { left: db.room()? })
    }

    /// Whether a job may be done; its room is taken then. Else there is none for those after it either.
    pub(super) fn admits(&mut self, job: &Job) -> bool {
        let need = job.need();
        let is_admitted = self.takes(&need);
        if !is_admitted && matches!(need, Need::Room { .. }) {
            self.left = self.left.min(RESERVE_BYTES);
        }
        is_admitted
    }

    /// Takes room for something, if there is so much.
    pub(super) fn takes(&mut self, need: &Need) -> bool {
        self.takes_beside(RESERVE_BYTES, need)
    }

    /// As [`Self::takes`], also of what is left alone for what is small.
    pub(super) fn takes_of_reserve(&mut self, need: &Need) -> bool {
        self.takes_beside(LAST_RESERVE_BYTES, need)
    }

    fn takes_beside(&mut self, reserve: u64, need: &Need) -> bool {
        let Need::Room { bytes, rows } = need else { return self.has_little() };
        let room = bytes.saturating_add(rows * ROW_OVERHEAD_BYTES).saturating_mul(WRITTEN_PER_BYTE);
        let has_room = room <= self.left.saturating_sub(reserve);
        if has_room {
            self.left -= room;
        }
        has_room
    }

    /// Whether there is room for what is small or makes room.
    pub(super) fn has_little(&self) -> bool {
        self.left > LAST_RESERVE_BYTES
    }
}
