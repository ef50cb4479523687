use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::compacted::State;
use super::records::MemoryRecords;
use crate::clock::Clock;
use crate::compaction::Compacted;
use crate::ids::{Cursor, Epoch, GatewayId, Seq};
use crate::log::{Bounds, Budget, Draft, Entry, EventLog, Follower, LogError, Page, Retention};

/// Logs in memory: a ring per gateway under one lock.
pub struct MemoryLog {
    retention: Retention,
    clock: Arc<dyn Clock>,
    follower: Arc<dyn Follower>,
    records: Arc<MemoryRecords>,
    logs: Mutex<Logs>,
}

#[derive(Default)]
struct Logs {
    rings: HashMap<GatewayId, Ring>,
    owners: HashMap<Epoch, GatewayId>,
}

impl MemoryLog {
    /// Empty logs.
    #[must_use]
    pub fn new(retention: Retention, clock: Arc<dyn Clock>, follower: Arc<dyn Follower>) -> Self {
        Self { retention, clock, follower, records: Arc::default(), logs: Mutex::default() }
    }

    /// Where the rows of [`Draft::beside`] are.
    #[must_use]
    pub fn records(&self) -> Arc<MemoryRecords> {
        Arc::clone(&self.records)
    }

    /// Runs `work` on a gateway's ring, creating it if there is none, after letting go of what is too old.
    fn with_ring<T>(&self, gateway: GatewayId, work: impl FnOnce(&mut Ring) -> T) -> T {
        let mut logs = self.logs();
        let Logs { rings, owners } = &mut *logs;
        let ring = rings.entry(gateway).or_insert_with(|| {
            let epoch = Epoch::unused(|epoch| owners.contains_key(&epoch));
            owners.insert(epoch, gateway);
            Ring::new(epoch)
        });
        ring.trim(&self.retention, self.clock.now());
        work(ring)
    }

    /// A poisoned lock is used on: only the follower can panic under it, and it is told last.
    fn logs(&self) -> MutexGuard<'_, Logs> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl EventLog for MemoryLog {
    async fn append(&self, to: GatewayId, draft: Draft) -> Result<Cursor, LogError> {
        let now = self.clock.now();
        let at = self.with_ring(to, |ring| {
            let head = ring.bounds().head();
            if draft.expect.is_some_and(|expected| expected != head) {
                return Err(LogError::Conflict { head });
            }
            let at = Cursor { seq: head.seq.next(), ..head };
            let (appended, beside) = draft.at_seq(at.seq);
            self.records.put_beside(&beside, at);
            ring.push(appended.entry.clone());
            ring.trim(&self.retention, now);
            // Told under the lock, so that followers hear in the order of positions.
            self.follower.appended(to, ring.epoch, std::slice::from_ref(&appended));
            Ok(at)
        })?;
        self.follower.told();
        Ok(at)
    }

    async fn read(&self, of: GatewayId, from: Cursor, max: Budget) -> Result<Page, LogError> {
        Ok(self.with_ring(of, |ring| ring.page(from, max)))
    }

    async fn compacted(&self, of: GatewayId, after: Cursor, max: Budget) -> Result<Compacted, LogError> {
        Ok(self.with_ring(of, |ring| {
            let Bounds { epoch, oldest, newest, .. } = ring.bounds();
            let after = if after.epoch == epoch { after.seq } else { Seq(0) };
            let (entries, left) = ring.compacted.page(after, max);
            Compacted { epoch, oldest, newest, entries, left, let_go: ring.compacted.let_go() }
        }))
    }

    async fn bounds(&self, of: GatewayId) -> Result<Bounds, LogError> {
        Ok(self.with_ring(of, |ring| ring.bounds()))
    }

    async fn owner_of(&self, epoch: Epoch) -> Result<Option<GatewayId>, LogError> {
        Ok(self.logs().owners.get(&epoch).copied())
    }

    async fn gateways(&self, after: Option<GatewayId>, max: usize) -> Result<Vec<GatewayId>, LogError> {
        let mut gateways: Vec<_> = self.logs().rings.keys().copied().filter(|of| Some(*of) > after).collect();
        gateways.sort_unstable();
        gateways.truncate(max);
        Ok(gateways)
    }

    async fn forget(&self, gateway: GatewayId) -> Result<(), LogError> {
        let mut logs = self.logs();
        if let Some(ring) = logs.rings.remove(&gateway) {
            logs.owners.remove(&ring.epoch);
        }
        Ok(())
    }

    async fn flush(&self) -> Result<(), LogError> {
        Ok(())
    }
}

struct Ring {
    epoch: Epoch,
    newest: Seq,
    bytes: u64,
    entries: VecDeque<Entry>,
    /// Of all entries before those.
    compacted: State,
}

impl Ring {
    fn new(epoch: Epoch) -> Self {
        Self { epoch, newest: Seq(0), bytes: 0, entries: VecDeque::new(), compacted: State::default() }
    }

    fn bounds(&self) -> Bounds {
        let oldest = self.entries.front().map_or(self.newest.next(), |entry| entry.seq);
        Bounds { epoch: self.epoch, oldest, newest: self.newest, bytes: self.bytes }
    }

    fn push(&mut self, entry: Entry) {
        self.newest = entry.seq;
        self.bytes += entry.size();
        self.entries.push_back(entry);
    }

    /// Lets go of what breaks a bound. By age only the oldest entry is looked at, so what is held stays dense.
    fn trim(&mut self, retention: &Retention, now: DateTime<Utc>) {
        let over = |ring: &Self| {
            let held = ring.entries.len();
            held > 1 && (held as u64 > retention.max_events || ring.bytes > retention.max_bytes)
        };
        while over(self) {
            self.pop(retention);
        }
        let oldest_kept = retention.oldest_kept_at(now);
        while self.entries.front().is_some_and(|entry| entry.at < oldest_kept) {
            self.pop(retention);
        }
    }

    fn pop(&mut self, retention: &Retention) {
        if let Some(gone) = self.entries.pop_front() {
            self.bytes -= gone.size();
            self.compacted.fold(gone, &retention.compaction);
        }
    }

    fn page(&self, from: Cursor, max: Budget) -> Page {
        let bounds = self.bounds();
        if let Some(refusal) = bounds.refuses(from) {
            return refusal;
        }
        let skip = usize::try_from(from.seq.next().0 - bounds.oldest.0).unwrap_or(usize::MAX);
        Page::Entries(max.fill(self.entries.iter().skip(skip).cloned()))
    }
}
