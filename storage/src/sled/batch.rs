use std::collections::HashMap;

use super::committer::Shared;
use super::fold::fold;
use super::job::{Job, Reply};
use super::keys;
use super::pending_rows::PendingRows;
use super::ring::Ring;
use super::row::Head;
use super::space::Space;
use super::sweeps::Sweep;
use crate::compaction::Compacted;
use crate::ids::{Cursor, Epoch, GatewayId, Seq};
use crate::log::{Appended, Budget, Draft, LogError};
use crate::records::{Change, Durability, StoreError};

/// A log is trimmed on disk once it has this many rows more than it may show, as a part of what it may show: deleting
/// row by row writes five times as much (DESIGN.md § 6).
const TRIM_SLACK_PART: u64 = 8;
/// The slack is never more rows than this.
const TRIM_SLACK_ROWS_MAX: u64 = 1_024;
/// Rows that one append lets go of: no publisher waits for more than about a slack of them. Logs whose entries went by
/// age have more, which the next appends let go of, or who reads the compacted state.
const TRIM_ROWS_MAX: usize = 1_024;
/// The writes under one sync. Until then they are in the tree, but in no ring that a reader sees.
pub(super) struct Batch<'a> {
    shared: &'a Shared,
    /// What there is left of the room that there was when it began; none before somebody looks.
    pub(super) space: Space,
    /// What the logs of this batch will be; `None` is forgotten.
    rings: HashMap<GatewayId, Option<Ring>>,
    appended: Vec<(GatewayId, Epoch, Vec<Appended>)>,
    /// Where a log's entries are in `appended`.
    slots: HashMap<(GatewayId, Epoch), usize>,
    replies: Vec<Reply>,
    sweeps: Vec<Sweep>,
    /// What was appended and is not in the tree yet.
    rows: PendingRows,
    /// The logs that these are of.
    grown: Vec<GatewayId>,
    needs_sync: bool,
}

/// What there is to do once a batch is durable.
pub(super) struct Done {
    pub(super) rings: HashMap<GatewayId, Option<Ring>>,
    /// Per log, in the order of positions.
    pub(super) appended: Vec<(GatewayId, Epoch, Vec<Appended>)>,
    pub(super) replies: Vec<Reply>,
    pub(super) sweeps: Vec<Sweep>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            space: Space::default(),
            rings: HashMap::new(),
            appended: Vec::new(),
            slots: HashMap::new(),
            replies: Vec::new(),
            sweeps: Vec::new(),
            rows: PendingRows::default(),
            grown: Vec::new(),
            needs_sync: false,
        }
    }

    pub(super) fn needs_sync(&self) -> bool {
        self.needs_sync
    }

    pub(super) fn finish(self) -> Done {
        Done { rings: self.rings, appended: self.appended, replies: self.replies, sweeps: self.sweeps }
    }

    /// Writes what a job asks for. An error means that a write may be half done; a row that cannot be understood, and
    /// what there is no room for, is the answer to its job alone.
    pub(super) fn write(&mut self, job: Job) -> Result<(), StoreError> {
        if !matches!(job, Job::Append { .. }) {
            // It may read what was appended before it.
            self.put_appended()?;
        }
        match job {
            Job::Append { drafts, room, answer } => {
                let (results, fault) = self.append_all(drafts);
                drop(room);
                self.replies.push(Reply::Appended(answer, results));
                fault
            }
            Job::Compacted { of, after, max, answer } => {
                let result = self.compacted(of, after, max).map_err(LogError::from);
                let (result, fault) = self.part(result);
                self.replies.push(Reply::Compacted(answer, result));
                fault
            }
            Job::Touch { of, answer } => self.reply(answer, |batch| batch.ring(of).map(drop)),
            Job::Forget { gateway, answer } => self.reply(answer, |batch| batch.forget(gateway)),
            Job::Commit { changes, durability, room, answer } => {
                let result = self.reply(answer, |batch| batch.change(&changes, durability));
                drop(room);
                result
            }
            Job::Look(look) => {
                look(Ok(&self.shared.db));
                Ok(())
            }
            Job::Flush { answer } => {
                self.needs_sync |= self.shared.db.is_behind();
                self.reply(answer, |_| Ok(()))
            }
        }
    }

    fn reply(
        &mut self,
        answer: super::job::Answer,
        work: impl FnOnce(&mut Self) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let result = work(self).map_err(LogError::Store);
        let (result, fault) = self.part(result);
        // `part` leaves nothing but the store's errors in a result that had nothing else.
        let result = result.map_err(|error| match error {
            LogError::Store(error) => error,
            LogError::Conflict { .. } => StoreError::Closed,
        });
        self.replies.push(Reply::Done(answer, result));
        fault
    }

    fn append_all(
        &mut self,
        drafts: Vec<(GatewayId, Draft)>,
    ) -> (Vec<Result<Cursor, LogError>>, Result<(), StoreError>) {
        let mut results = Vec::with_capacity(drafts.len());
        let mut fault = Ok(());
        for (to, draft) in drafts {
            // After a fault nothing is written any more; the batch is refused as a whole.
            let result = fault.is_ok().then(|| self.append(to, draft));
            let (result, failed) = self.part(result.unwrap_or(Err(StoreError::Poisoned.into())));
            results.push(result);
            fault = fault.and(failed);
            if self.rows.is_full() {
                fault = fault.and_then(|()| self.put_appended());
            }
        }
        (results, fault)
    }

    /// Puts what was appended since the last time into the tree. Logs are trimmed after it, since that reads their rows.
    pub(super) fn put_appended(&mut self) -> Result<(), StoreError> {
        let db = &self.shared.db;
        // Whatever it is that they met: they are of jobs that count as done.
        std::mem::take(&mut self.rows).put(db).map_err(|error| db.half_written(error))?;
        std::mem::take(&mut self.grown).into_iter().try_for_each(|of| self.trim_appended(of))
    }

    /// The entry is stored whatever an older row is like.
    fn trim_appended(&mut self, to: GatewayId) -> Result<(), StoreError> {
        let Some(Some(mut ring)) = self.rings.get(&to).copied() else { return Ok(()) };
        let trimmed = self.trim(to, &mut ring);
        self.rings.insert(to, Some(ring));
        match trimmed {
            // A later event finds room, or a reader: it is for them that it is done.
            Err(StoreError::Full) => Ok(()),
            Err(error) if self.is_of_one_job(&error) => {
                tracing::error!(gateway.id = %to, %error, "A log could not be trimmed; it is tried again at the next event.");
                Ok(())
            }
            result => result,
        }
    }

    fn append(&mut self, to: GatewayId, draft: Draft) -> Result<Cursor, LogError> {
        let mut ring = self.ring_in(to)?;
        let head = Cursor { epoch: ring.head.epoch, seq: ring.newest };
        if draft.expect.is_some_and(|expected| expected != head) {
            // The head may be of this very batch; the answer waits for its sync like all others.
            return Err(LogError::Conflict { head });
        }
        let cursor = Cursor { seq: ring.newest.next(), ..head };
        let (appended, beside) = draft.at_seq(cursor.seq);
        let entry = &appended.entry;
        ring.newest = entry.seq;
        ring.end += entry.size();
        self.needs_sync = true;
        self.rows.insert_entry(to, cursor.epoch, entry, ring.end);
        for row in &beside {
            self.rows.insert(keys::record(row.table, &row.key), row.row(cursor));
        }
        self.shared.db.note_appended();
        self.grown.push(to);
        let slot = *self.slots.entry((to, ring.head.epoch)).or_insert_with(|| {
            self.appended.push((to, ring.head.epoch, Vec::new()));
            self.appended.len() - 1
        });
        if let Some((_, _, all)) = self.appended.get_mut(slot) {
            all.push(appended);
        }
        self.rings.insert(to, Some(ring));
        Ok(cursor)
    }

    /// Raises the floor when the rows on disk are a chunk more than what readers see.
    fn trim(&mut self, of: GatewayId, ring: &mut Ring) -> Result<(), StoreError> {
        let Shared { db, retention, clock, .. } = self.shared;
        let rows = ring.newest.next().0 - ring.head.floor.0;
        let slack = (retention.max_events / TRIM_SLACK_PART).clamp(1, TRIM_SLACK_ROWS_MAX);
        let bytes = ring.end - ring.head.floor_start;
        let bytes_max = retention.max_bytes.saturating_add(retention.max_bytes / TRIM_SLACK_PART);
        // One entry larger than the bound is kept, and is no reason to try again at every append.
        let too_many_bytes = bytes > bytes_max && rows > 1;
        if rows <= retention.max_events.saturating_add(slack) && !too_many_bytes {
            return Ok(());
        }
        ring.settle(of, db, retention, clock.now())?;
        self.raise_floor(of, ring, TRIM_ROWS_MAX)
    }

    /// Raises the floor towards what readers see, over up to `rows_max` rows (and the rest of a chunk), folding them
    /// into the compacted state. The head is written before the rows are deleted: a crash between leaves rows too many,
    /// which no one sees and which are not folded again, since the floor is what is folded from.
    fn raise_floor(&mut self, of: GatewayId, ring: &mut Ring, rows_max: usize) -> Result<(), StoreError> {
        let before = ring.head.floor;
        let folded = self.fold(of, ring, rows_max);
        // What was folded is, whatever ended it.
        if ring.head.floor > before {
            self.needs_sync = true;
            self.sweeps.push(Sweep::Entries(of, ring.head.epoch, (before, ring.head.floor)));
        }
        folded
    }

    fn fold(&mut self, of: GatewayId, ring: &mut Ring, rows_max: usize) -> Result<(), StoreError> {
        let Shared { db, retention, .. } = self.shared;
        let to = (ring.oldest, ring.front.map_or(ring.end, |front| front.start));
        let mut rows = 0;
        while ring.head.floor < ring.oldest && rows < rows_max {
            let folded = fold(db, of, ring.head, to, &retention.compaction, &mut self.space)?;
            ring.head = folded.head;
            rows += folded.rows;
            let epoch = ring.head.epoch;
            self.sweeps.extend(folded.left.into_iter().map(|seq| Sweep::Left(of, epoch, seq)));
        }
        Ok(())
    }

    /// Lets go of all that readers don't see any more, then reads: nothing comes between on this thread.
    fn compacted(&mut self, of: GatewayId, after: Cursor, max: Budget) -> Result<Compacted, StoreError> {
        let Shared { db, retention, clock, .. } = self.shared;
        let mut ring = self.ring(of)?;
        ring.settle(of, db, retention, clock.now())?;
        let raised = self.raise_floor_to_the_end(of, &mut ring);
        self.rings.insert(of, Some(ring));
        raised?;
        let page = db.compacted(of, ring.head, ring.newest, ring.seq_of(after), max)?;
        let seqs = db.state_seqs(of, ring.head, ring.seq_of(after))?;
        db.whole(of, ring.head, seqs, page)
    }

    /// A chunk at a time: all that was admitted before is written, so what there is room for can be looked at again. For
    /// a whole ring at once far more would have to be free than it takes.
    fn raise_floor_to_the_end(&mut self, of: GatewayId, ring: &mut Ring) -> Result<(), StoreError> {
        while ring.head.floor < ring.oldest {
            self.space = Space::look(&self.shared.db)?;
            self.raise_floor(of, ring, 1)?;
        }
        Ok(())
    }

    fn forget(&mut self, gateway: GatewayId) -> Result<(), StoreError> {
        let is_known = match self.rings.get(&gateway) {
            Some(ring) => ring.is_some(),
            None => self.shared.db.head(gateway)?.is_some(),
        };
        if !is_known {
            return Ok(());
        }
        let Ring { head, newest, .. } = self.ring(gateway)?;
        self.shared.db.note_forgotten(head.epoch, newest)?;
        let mut rows = ::sled::Batch::default();
        rows.remove(&keys::head(gateway));
        rows.remove(&keys::owner(head.epoch));
        rows.insert(&keys::forgotten(gateway, head.epoch), &[]);
        self.needs_sync = true;
        self.shared.db.apply(rows)?;
        self.rings.insert(gateway, None);
        self.sweeps.push(Sweep::Forgotten(gateway, head.epoch));
        Ok(())
    }

    fn change(&mut self, changes: &[Change], durability: Durability) -> Result<(), StoreError> {
        self.shared.db.note(changes)?;
        let mut rows = ::sled::Batch::default();
        for Change { table, key, row } in changes {
            let key = keys::record(*table, key);
            match row {
                Some(row) => rows.insert(key, &**row),
                None => rows.remove(key),
            }
        }
        self.needs_sync |= durability != Durability::Lazy;
        self.shared.db.apply(rows)
    }

    /// A log as this batch has left it, loaded at its first touch, created if there is none.
    fn ring(&mut self, of: GatewayId) -> Result<Ring, StoreError> {
        let ring = self.ring_in(of)?;
        self.put_appended()?;
        Ok(ring)
    }

    /// As [`Self::ring`]; what makes a log is left to be put.
    fn ring_in(&mut self, of: GatewayId) -> Result<Ring, StoreError> {
        match self.rings.get(&of) {
            Some(Some(ring)) => return Ok(*ring),
            Some(None) => {}
            None => {
                if let Some(ring) = self.shared.rings.get(of) {
                    return Ok(ring);
                }
                if let Some(head) = self.shared.db.head(of)? {
                    return self.load(of, head);
                }
            }
        }
        self.create(of)
    }

    /// Head and owner in one commit, with an epoch that no log has and whose leftovers are not still being deleted.
    fn create(&mut self, of: GatewayId) -> Result<Ring, StoreError> {
        let db = &self.shared.db;
        // A failed look-up counts as "not in use": the write below then fails as well.
        let is_used = |epoch| {
            let is_new = self.rings.values().flatten().any(|ring| ring.head.epoch == epoch);
            let taken = db.owner(epoch).is_ok_and(|owner| owner.is_some()) || db.young.has((of, epoch));
            is_new || taken || db.get(&keys::forgotten(of, epoch)).is_ok_and(|row| row.is_some())
        };
        let ring = Ring::new(Epoch::unused(is_used));
        db.note_created(ring.head.epoch)?;
        self.rows.insert(keys::head(of), ring.head.encode());
        self.rows.insert(keys::owner(ring.head.epoch), of.0.as_bytes().to_vec());
        self.needs_sync = true;
        self.rings.insert(of, Some(ring));
        Ok(ring)
    }

    /// Two look-ups, whatever the log holds. Rows from the floor on are dense: none of them was ever deleted, and
    /// sled recovers a prefix of what was written. Should one be missing all the same, readers find out (see
    /// [`Ring::settle`] and the read path).
    fn load(&mut self, of: GatewayId, head: Head) -> Result<Ring, StoreError> {
        let last = self.shared.db.last_entry(of, head)?;
        let (newest, end) = last.unwrap_or((head.floor.prev(), head.floor_start));
        if end < head.floor_start {
            return Err(StoreError::Malformed("a log that ends before its first row".to_owned()));
        }
        let ring = Ring { head, newest, end, oldest: head.floor, front: None };
        // Rows below the floor are what an interrupted sweep left.
        let below = head.floor.prev();
        if below > Seq(0) && self.shared.db.fronts(of, head.epoch, Seq(0), below).next().is_some() {
            self.sweeps.push(Sweep::Entries(of, head.epoch, (Seq(0), head.floor)));
        }
        // What a crash left of an entry that was never there.
        if self.space.has_little() {
            self.shared.db.remove_parts(of, head.epoch, newest.next(), Seq(u64::MAX), usize::MAX)?;
        } else if self.shared.db.has_parts(of, head.epoch, newest.next())? {
            return Err(StoreError::Full);
        }
        // Shown at once: it was durable before this process opened the store. And before anything is appended to it.
        self.shared.rings.publish(of, Some(ring));
        Ok(ring)
    }

    /// What the job is told, and whether the engine can go on.
    fn part<T>(&self, result: Result<T, LogError>) -> (Result<T, LogError>, Result<(), StoreError>) {
        match result {
            Err(LogError::Store(error)) if !self.is_of_one_job(&error) => {
                (Err(StoreError::Poisoned.into()), Err(error))
            }
            result => (result, Ok(())),
        }
    }

    /// Whether a job came to nothing before it wrote: rows of its log are not what they were, or there is no room.
    fn is_of_one_job(&self, error: &StoreError) -> bool {
        let is_met_by_looking =
            matches!(error, StoreError::Malformed(_) | StoreError::Damaged { .. } | StoreError::Full);
        is_met_by_looking && !self.shared.db.is_half_written()
    }
}
