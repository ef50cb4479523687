use std::collections::{BTreeMap, HashMap, HashSet};

use ::sled::Batch;
use bytes::Bytes;

use super::database::Database;
use super::job::Need;
use super::keys;
use super::row::{Head, Key, StateKey, entry_end, is_in_parts, key_of};
use super::space::Space;
use crate::compaction::Compaction;
use crate::ids::{GatewayId, Seq};
use crate::records::StoreError;

/// Rows folded into a log's compacted state in one commit.
const FOLD_ROWS_MAX: usize = 256;

/// What folding has done.
pub(super) struct Folded {
    pub(super) head: Head,
    pub(super) rows: usize,
    /// Entries that are no longer in the state and may have parts.
    pub(super) left: Vec<Seq>,
}

/// Folds the oldest rows of a log, up to `to` and [`FOLD_ROWS_MAX`], into its compacted state and raises its floor over
/// them: rows and head in one commit, so a crash leaves all of it or nothing. `end` is the offset of `to`.
///
/// [`StoreError::Full`] if there is no room for what is added; nothing is written then.
///
/// A key's rows are `S` (its entry, by position), `K` (its position, by key) and, for a tombstone, `D` (by position).
pub(super) fn fold(
    db: &Database,
    of: GatewayId,
    head: Head,
    (to, end): (Seq, u64),
    limits: &Compaction,
    space: &mut Space,
) -> Result<Folded, StoreError> {
    let mut fold = Fold::new(db, of, head, limits);
    let (mut rows, mut floor) = (0, (head.floor, head.floor_start));
    for row in db.entry_rows(of, head.epoch, head.floor, to.prev()).take(FOLD_ROWS_MAX) {
        let (seq, row) = row?;
        rows += 1;
        fold.miss(floor.0, seq);
        floor = (seq.next(), entry_end(&row).unwrap_or(floor.1));
        fold.take(seq, row)?;
    }
    if rows < FOLD_ROWS_MAX {
        fold.miss(floor.0, to);
        floor = (to, end);
    }
    if !space.takes(&fold.need()) {
        return Err(StoreError::Full);
    }
    let (head, left) = fold.commit(floor.0, floor.1)?;
    Ok(Folded { head, rows, left })
}

/// Entries on their way into a compacted state. Keys that the chunk has several entries of are written once.
struct Fold<'a> {
    db: &'a Database,
    of: GatewayId,
    limits: &'a Compaction,
    head: Head,
    /// Entries of this chunk that are in the state now.
    fresh: BTreeMap<Seq, Fresh>,
    fresh_keys: HashMap<Bytes, Seq>,
    /// Entries on disk that are no longer in the state.
    gone: HashSet<Seq>,
    rows: Batch,
    left: Vec<Seq>,
    /// On disk, everything before these was given up or is gone: where to look for what goes next.
    first_row: Seq,
    first_tombstone: Seq,
}

struct Fresh {
    key: Key,
    row: Bytes,
}

impl<'a> Fold<'a> {
    fn new(db: &'a Database, of: GatewayId, head: Head, limits: &'a Compaction) -> Self {
        Self {
            db,
            of,
            limits,
            head,
            fresh: BTreeMap::new(),
            fresh_keys: HashMap::new(),
            gone: HashSet::new(),
            rows: Batch::default(),
            left: Vec::new(),
            first_row: Seq(0),
            first_tombstone: Seq(0),
        }
    }

    /// Rows from `first` on and before `end` are not there, if that is any. Which keys they were of is not known, so the
    /// state lacks something from there on, and says so.
    fn miss(&mut self, first: Seq, end: Seq) {
        if first < end {
            tracing::error!(gateway.id = %self.of, %first, %end, "Stored events are lost.");
            self.head.let_go = self.head.let_go.max(end.prev());
        }
    }

    fn take(&mut self, seq: Seq, row: Bytes) -> Result<(), StoreError> {
        let key = key_of(&row).unwrap_or_else(|error| {
            // Not a reason to let the log grow for ever.
            tracing::error!(gateway.id = %self.of, event.seq = %seq, %error, "A stored event is lost.");
            self.head.let_go = self.head.let_go.max(seq);
            None
        });
        let Some(key) = key else { return Ok(()) };
        if let Some(before) = self.fresh_keys.remove(&key.key) {
            self.drop_fresh(before);
        } else if let Some(before) = self.on_disk(&key.key)? {
            self.drop_row(before, &key.key);
        }
        let oldest_tombstone_at = self.limits.oldest_tombstone_at(key.at);
        self.head.keys += 1;
        self.head.key_bytes += key.size;
        self.head.seqs = self.head.seqs.map(|seqs| seqs.wrapping_add(seq.0));
        self.fresh_keys.insert(key.key.clone(), seq);
        self.fresh.insert(seq, Fresh { key, row });
        while let Some((oldest, at)) = self.oldest_tombstone()?
            && at < oldest_tombstone_at.timestamp_millis()
        {
            self.give_up(oldest)?;
        }
        while self.limits.is_exceeded_by(self.head.keys, self.head.key_bytes) {
            let tombstone = self.oldest_tombstone()?.map(|(seq, _)| seq);
            let Some(oldest) = tombstone.map_or_else(|| self.oldest(), |seq| Ok(Some(seq)))? else { break };
            self.give_up(oldest)?;
        }
        Ok(())
    }

    /// What is added; the parts of bodies stay where they are.
    fn need(&self) -> Need {
        let fresh = self.fresh.values();
        let (bytes, rows) = fresh.fold((0, 0), |(bytes, rows), Fresh { key, row }| {
            (bytes + row.len() + key.key.len(), rows + if key.ends_key { 3 } else { 2 })
        });
        Need::Room { bytes: bytes as u64, rows }
    }

    /// Writes what the chunk has made of the state, and the head with it.
    fn commit(mut self, floor: Seq, floor_start: u64) -> Result<(Head, Vec<Seq>), StoreError> {
        let epoch = self.head.epoch;
        for (seq, Fresh { key, row }) in self.fresh {
            self.rows.insert(&keys::state(self.of, epoch, seq), &row[..]);
            let state_key = StateKey { seq, size: key.size, ends_key: key.ends_key };
            self.rows.insert(keys::state_key(self.of, epoch, &key.key), &state_key.encode()[..]);
            if key.ends_key {
                self.rows.insert(&keys::tombstone(self.of, epoch, seq), &key.at.timestamp_millis().to_be_bytes());
            }
        }
        self.head = Head { floor, floor_start, ..self.head };
        self.rows.insert(&keys::head(self.of), &self.head.encode()[..]);
        self.db.apply(self.rows)?;
        Ok((self.head, self.left))
    }

    fn give_up(&mut self, seq: Seq) -> Result<(), StoreError> {
        self.head.let_go = self.head.let_go.max(seq);
        if let Some(fresh) = self.fresh.get(&seq) {
            let key = fresh.key.key.clone();
            self.fresh_keys.remove(&key);
            self.drop_fresh(seq);
            return Ok(());
        }
        let row = self.db.get(&keys::state(self.of, self.head.epoch, seq))?;
        let key = row.map(|row| key_of(&row)).transpose()?.flatten();
        let key = key.ok_or_else(|| StoreError::Malformed("a tombstone without its entry".to_owned()))?;
        self.drop_row(StateKey { seq, size: key.size, ends_key: key.ends_key }, &key.key);
        Ok(())
    }

    fn drop_fresh(&mut self, seq: Seq) {
        if let Some(fresh) = self.fresh.remove(&seq) {
            self.uncount(seq, fresh.key.size);
        }
    }

    fn drop_row(&mut self, StateKey { seq, size, ends_key }: StateKey, key: &[u8]) {
        let epoch = self.head.epoch;
        self.rows.remove(&keys::state(self.of, epoch, seq));
        if ends_key {
            self.rows.remove(&keys::tombstone(self.of, epoch, seq));
        }
        self.rows.remove(keys::state_key(self.of, epoch, key));
        if usize::try_from(size).is_ok_and(|size| is_in_parts(size.saturating_sub(key.len()))) {
            self.rows.insert(&keys::left(self.of, epoch, seq), &[]);
            self.left.push(seq);
        }
        self.gone.insert(seq);
        self.uncount(seq, size);
    }

    fn uncount(&mut self, seq: Seq, size: u64) {
        self.head.seqs = self.head.seqs.map(|seqs| seqs.wrapping_sub(seq.0));
        self.head.keys = self.head.keys.saturating_sub(1);
        self.head.key_bytes = self.head.key_bytes.saturating_sub(size);
    }

    /// The entry of a key in the state on disk, unless it is gone already.
    fn on_disk(&self, key: &[u8]) -> Result<Option<StateKey>, StoreError> {
        let row = self.db.get(&keys::state_key(self.of, self.head.epoch, key))?;
        let found = row.map(|row| StateKey::decode(&row)).transpose()?;
        Ok(found.filter(|found| !self.gone.contains(&found.seq)))
    }

    /// What is on disk is older than what is fresh.
    fn oldest(&mut self) -> Result<Option<Seq>, StoreError> {
        for row in self.db.state_rows(self.of, self.head.epoch, self.first_row) {
            let (seq, _) = row?;
            self.first_row = seq;
            if !self.gone.contains(&seq) {
                return Ok(Some(seq));
            }
        }
        self.first_row = Seq(u64::MAX);
        Ok(self.fresh.keys().next().copied())
    }

    /// The oldest tombstone, and when it was published.
    fn oldest_tombstone(&mut self) -> Result<Option<(Seq, i64)>, StoreError> {
        for row in self.db.tombstones(self.of, self.head.epoch, self.first_tombstone) {
            let (seq, at) = row?;
            self.first_tombstone = seq;
            if !self.gone.contains(&seq) {
                let at = <[u8; 8]>::try_from(&*at).map_err(|e| StoreError::Malformed(format!("a tombstone: {e}")))?;
                return Ok(Some((seq, i64::from_be_bytes(at))));
            }
        }
        self.first_tombstone = Seq(u64::MAX);
        let fresh = self.fresh.iter().find(|(_, fresh)| fresh.key.ends_key);
        Ok(fresh.map(|(seq, fresh)| (*seq, fresh.key.at.timestamp_millis())))
    }
}
