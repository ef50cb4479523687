//! Tables in memory whose commits fail when they are told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use gatecast_storage::{Change, Durability, Records, StoreError, Table};

/// What becomes of commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Commits {
    Work,
    /// The next one does nothing and says so.
    FailOnce,
    /// None is made: from the next on the store refuses.
    AreRefused,
    /// The next one is made, but its sync failed: from then on the store refuses.
    FailAfter,
}

pub(crate) struct FaultyRecords {
    records: Arc<dyn Records>,
    commits: AtomicU8,
}

impl FaultyRecords {
    pub(crate) fn new(records: Arc<dyn Records>) -> Arc<Self> {
        Arc::new(Self { records, commits: AtomicU8::new(Commits::Work as u8) })
    }

    pub(crate) fn set(&self, commits: Commits) {
        self.commits.store(commits as u8, Ordering::SeqCst);
    }

    fn turn(&self, from: Commits, to: Commits) -> bool {
        self.commits.compare_exchange(from as u8, to as u8, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

#[async_trait]
impl Records for FaultyRecords {
    async fn some(&self, table: Table, after: Option<&[u8]>, max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.records.some(table, after, max).await
    }

    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.records.get(table, key).await
    }

    async fn commit(&self, changes: Vec<Change>, durability: Durability) -> Result<(), StoreError> {
        if self.turn(Commits::FailOnce, Commits::Work) {
            return Err(StoreError::Io("the disk of the test is broken".into()));
        }
        if self.turn(Commits::FailAfter, Commits::AreRefused) {
            self.records.commit(changes, durability).await?;
            return Err(StoreError::Poisoned);
        }
        if self.commits.load(Ordering::SeqCst) == Commits::AreRefused as u8 {
            return Err(StoreError::Poisoned);
        }
        self.records.commit(changes, durability).await
    }
}
