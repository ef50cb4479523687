use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::committer::Shared;
use super::engine::Engine;
use super::job::Job;
use super::ring::Ring;
use super::row::decode_entry;
use super::walk;
use crate::compaction::Compacted;
use crate::ids::{Cursor, Epoch, GatewayId, Seq};
use crate::log::{Bounds, Budget, Draft, Entry, EventLog, LogError, Page};
use crate::records::StoreError;

/// Reads that meet rows vanishing under them look again this often: once for a trim, once for a hole behind it.
const READ_TRIES_MAX: usize = 4;

/// Entries that are read from memory at once at most: a reader that wants more does not hold up the runtime for them.
const YOUNG_PAGE_MAX: usize = 64;

/// Durable logs in a sled database.
///
/// What no row need be read for is answered on the spot: reads at the newest position, bounds that are known, and a few
/// entries that are all young, as those are that a connection has missed which was away for a moment. All else runs on a
/// blocking thread; the way there and back was an eighth of a reconnect.
pub struct SledLog {
    engine: Arc<Engine>,
}

impl SledLog {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    /// What is known of a log without touching the disk, after loading or creating it at its first touch.
    async fn ring(&self, of: GatewayId) -> Result<Ring, StoreError> {
        for _ in 0..READ_TRIES_MAX {
            if let Some(ring) = self.engine.shared.rings.get(of) {
                return Ok(ring);
            }
            self.engine.ask(|answer| Job::Touch { of, answer }).await?;
        }
        // Forgotten again and again between touch and look.
        Err(StoreError::Overloaded)
    }

    /// The job's answer: one result an entry.
    async fn append_job(&self, drafts: Vec<(GatewayId, Draft)>) -> Result<Vec<Result<Cursor, LogError>>, StoreError> {
        let room = self.engine.room(drafts.iter().map(|(_, draft)| draft.size()).sum()).await?;
        let (answer, done) = oneshot::channel();
        self.engine.send(Job::Append { drafts, room, answer }).await?;
        done.await.map_err(|_| StoreError::Closed)
    }
}

#[async_trait]
impl EventLog for SledLog {
    async fn append(&self, to: GatewayId, draft: Draft) -> Result<Cursor, LogError> {
        let result = self.append_job(vec![(to, draft)]).await?.pop();
        // One draft, one answer.
        result.unwrap_or(Err(StoreError::Closed.into()))
    }

    async fn append_all(&self, drafts: Vec<(GatewayId, Draft)>) -> Vec<Result<Cursor, LogError>> {
        let entries = drafts.len();
        self.append_job(drafts).await.unwrap_or_else(|error| {
            let refusal = || match error {
                StoreError::Overloaded => StoreError::Overloaded,
                _ => StoreError::Closed,
            };
            std::iter::repeat_with(|| Err(refusal().into())).take(entries).collect()
        })
    }

    async fn read(&self, of: GatewayId, from: Cursor, max: Budget) -> Result<Page, LogError> {
        let ring = self.ring(of).await?;
        if from.epoch == ring.head.epoch && from.seq == ring.newest {
            return Ok(Page::Entries(Vec::new()));
        }
        if let Some(entries) = self.engine.shared.young_page(of, ring, from, max) {
            return Ok(Page::Entries(entries));
        }
        Ok(self.engine.blocking(move |shared| shared.page(of, ring, from, max)).await?)
    }

    /// On a blocking thread if everything that left the ring is folded and nothing is being written to the log, which
    /// is the rule: a reader of compacted state was away, and pages follow each other. Else the committer does it.
    async fn compacted(&self, of: GatewayId, after: Cursor, max: Budget) -> Result<Compacted, LogError> {
        let ring = self.ring(of).await?;
        if let Some(page) = self.engine.blocking(move |shared| shared.compacted(of, ring, after, max)).await? {
            return Ok(page);
        }
        let (answer, done) = oneshot::channel();
        self.engine.send(Job::Compacted { of, after, max, answer }).await?;
        done.await.map_err(|_| StoreError::Closed)?
    }

    async fn bounds(&self, of: GatewayId) -> Result<Bounds, LogError> {
        let mut ring = self.ring(of).await?;
        if self.engine.shared.settles_in_memory(of, &mut ring) {
            return Ok(ring.bounds());
        }
        Ok(self.engine.blocking(move |shared| shared.settled(of, ring)).await?.bounds())
    }

    async fn owner_of(&self, epoch: Epoch) -> Result<Option<GatewayId>, LogError> {
        Ok(self.engine.blocking(move |shared| shared.db.owner(epoch)).await?)
    }

    async fn gateways(&self, after: Option<GatewayId>, max: usize) -> Result<Vec<GatewayId>, LogError> {
        Ok(self.engine.blocking(move |shared| walk::gateways(&shared.db, after, max)).await?)
    }

    async fn forget(&self, gateway: GatewayId) -> Result<(), LogError> {
        Ok(self.engine.ask(|answer| Job::Forget { gateway, answer }).await?)
    }

    async fn flush(&self) -> Result<(), LogError> {
        Ok(self.engine.ask(|answer| Job::Flush { answer }).await?)
    }
}

impl Shared {
    /// Whether the ring is within its bounds by what is in memory; these are remembered.
    fn settles_in_memory(&self, of: GatewayId, ring: &mut Ring) -> bool {
        let known = ring.front;
        let is_settled = ring.is_settled_with(of, &self.db.young, &self.retention, self.clock.now());
        if is_settled && ring.front != known {
            self.rings.remember(of, ring);
        }
        is_settled
    }

    /// All that is after a cursor, as far as there is room, if it is no more than [`YOUNG_PAGE_MAX`] entries, all young and whole.
    fn young_page(&self, of: GatewayId, mut ring: Ring, from: Cursor, max: Budget) -> Option<Vec<Entry>> {
        let (first, missed) = (from.seq.next(), ring.newest.0.checked_sub(from.seq.0)?);
        let missed = usize::try_from(missed).ok().filter(|missed| *missed <= YOUNG_PAGE_MAX)?;
        if !self.settles_in_memory(of, &mut ring) || ring.bounds().refuses(from).is_some() {
            return None;
        }
        let rows = self.db.young.certain((of, ring.head.epoch), (first, ring.newest), missed);
        // Positions rise, so as many as there are positions are all.
        if rows.len() < missed {
            return None;
        }
        let entries = rows.iter().map(|(seq, row)| decode_entry(*seq, row).ok().filter(|(_, in_parts)| *in_parts == 0));
        let entries = entries.map(|entry| Some(entry?.0)).collect::<Option<Vec<_>>>()?;
        Some(max.fill(entries.into_iter()))
    }

    /// The ring within its bounds, which are remembered.
    fn settled(&self, of: GatewayId, mut ring: Ring) -> Result<Ring, StoreError> {
        ring.settle(of, &self.db, &self.retention, self.clock.now())?;
        self.rings.remember(of, &ring);
        Ok(ring)
    }

    /// `None` if the compacted state on disk is not (or was not all the time) that of what readers see.
    fn compacted(
        &self,
        of: GatewayId,
        ring: Ring,
        after: Cursor,
        max: Budget,
    ) -> Result<Option<Compacted>, StoreError> {
        let ring = self.settled(of, ring)?;
        let is_whole = || Ok(ring.head.floor == ring.oldest && self.db.head(of)? == Some(ring.head));
        if !is_whole()? {
            return Ok(None);
        }
        let page = self.db.compacted(of, ring.head, ring.newest, ring.seq_of(after), max)?;
        let seqs = self.db.state_seqs(of, ring.head, ring.seq_of(after))?;
        // State and head are written in one commit: the same head again means the same state all along.
        if !is_whole()? {
            return Ok(None);
        }
        self.db.whole(of, ring.head, seqs, page).map(Some)
    }

    /// Up to `ring.newest`, which is durable: rows after it may be in the tree already.
    fn page(&self, of: GatewayId, mut ring: Ring, from: Cursor, max: Budget) -> Result<Page, StoreError> {
        for _ in 0..READ_TRIES_MAX {
            ring = self.settled(of, ring)?;
            let bounds = ring.bounds();
            if let Some(refusal) = bounds.refuses(from) {
                return Ok(refusal);
            }
            let first = from.seq.next();
            let entries = self.db.entries(of, bounds.epoch, first, bounds.newest, max)?;
            if !entries.is_empty() || from.seq == bounds.newest {
                return Ok(Page::Entries(entries));
            }
            // Either the log moved on meanwhile and its rows are swept, or a row is missing.
            match self.rings.get(of) {
                None => return Ok(Page::Truncated { oldest: bounds.newest.next() }),
                Some(now) if now.head.epoch != bounds.epoch || now.head.floor > first => ring = now,
                Some(now) => ring = self.skip_hole(of, now, first)?,
            }
        }
        Err(StoreError::Malformed("the rows of a log keep vanishing".to_owned()))
    }

    /// A row that should be there is not: everything before the next one counts as gone.
    fn skip_hole(&self, of: GatewayId, mut ring: Ring, missing: Seq) -> Result<Ring, StoreError> {
        // Its row may be there, and its body not.
        let next = self.db.fronts(of, ring.head.epoch, missing.next(), ring.newest).next().transpose()?;
        ring.oldest = next.map_or(ring.newest.next(), |front| front.seq);
        ring.front = next;
        tracing::error!(gateway.id = %of, missing = %missing, oldest = %ring.oldest, "The log has a hole; it starts after it.");
        // Readers are told; the error is for whoever can mend it.
        drop(self.db.note_damage("rows are missing"));
        self.rings.remember(of, &ring);
        Ok(ring)
    }
}
