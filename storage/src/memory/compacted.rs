use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use bytes::Bytes;

use crate::compaction::Compaction;
use crate::ids::Seq;
use crate::log::{Budget, Entry};

/// The compacted state of one log: the model of [`crate::compaction`].
#[derive(Default)]
pub(super) struct State {
    entries: BTreeMap<Seq, Entry>,
    keys: HashMap<Bytes, Seq>,
    tombstones: BTreeSet<Seq>,
    bytes: u64,
    let_go: Seq,
}

impl State {
    /// Takes in an entry that leaves the ring.
    pub(super) fn fold(&mut self, entry: Entry, limits: &Compaction) {
        let Some(key) = entry.key.clone() else { return };
        if let Some(before) = self.keys.get(&key).copied() {
            self.remove(before);
        }
        let (seq, oldest_tombstone_at) = (entry.seq, limits.oldest_tombstone_at(entry.at));
        self.keys.insert(key, seq);
        self.bytes += entry.size();
        if entry.ends_key {
            self.tombstones.insert(seq);
        }
        self.entries.insert(seq, entry);
        while let Some(oldest) = self.tombstones.first().and_then(|seq| self.entries.get(seq))
            && oldest.at < oldest_tombstone_at
        {
            self.give_up(oldest.seq);
        }
        while limits.is_exceeded_by(self.entries.len() as u64, self.bytes) {
            let tombstone = self.tombstones.first().copied();
            let Some(seq) = tombstone.or_else(|| self.entries.keys().next().copied()) else { break };
            self.give_up(seq);
        }
    }

    /// The first entries after a position, and how many follow.
    pub(super) fn page(&self, after: Seq, max: Budget) -> (Vec<Entry>, u64) {
        let rest = || self.entries.range((Bound::Excluded(after), Bound::Unbounded));
        let page = max.fill(rest().map(|(_, entry)| entry.clone()));
        let left = rest().count() - page.len();
        (page, left as u64)
    }

    pub(super) fn let_go(&self) -> Seq {
        self.let_go
    }

    fn give_up(&mut self, seq: Seq) {
        self.let_go = self.let_go.max(seq);
        self.remove(seq);
    }

    fn remove(&mut self, seq: Seq) {
        let Some(entry) = self.entries.remove(&seq) else { return };
        self.bytes -= entry.size();
        self.tombstones.remove(&seq);
        if let Some(key) = &entry.key {
            self.keys.remove(key);
        }
    }
}
