//! Writing behind: what changes in memory now and on disk soon.
//!
//! One task writes what is dirty in commits of at most [`COMMIT_ROWS_MAX`] rows with [`Durability::Lazy`], and then
//! pauses, so that a row that changes all the time is written once a pause and not once a change.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::task::JoinHandle;

use crate::records::{Change, Durability, Records, StoreError};

/// Rows in one commit.
const COMMIT_ROWS_MAX: usize = 1_024;
/// How soon a store that had no room is tried again. What is dirty is bounded as the rows in memory are.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// The pause after a write that failed.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Rows in memory that know which of them are not on disk.
pub(crate) trait Source: Send + Sync + 'static {
    /// Names a row as it was handed over.
    type Row: Send;

    /// About `max` changes that make dirty rows what they are now; fewer are all. They stay dirty.
    fn dirty_rows(&self, max: usize) -> Result<(Vec<Self::Row>, Vec<Change>), StoreError>;

    /// Rows were written: those that did not change meanwhile are clean.
    fn written(&self, rows: &[Self::Row]);
}

/// Writes a source's rows; ends with this value.
pub(crate) struct WriteBehind<S> {
    inner: Arc<Inner<S>>,
    writer: JoinHandle<()>,
}

struct Inner<S> {
    source: Arc<S>,
    records: Arc<dyn Records>,
    dirty: Notify,
    /// Held over a commit, so that [`WriteBehind::flush`] also waits for the commit under way.
    committing: Mutex<()>,
}

impl<S: Source> WriteBehind<S> {
    /// Starts to write, with a `pause` between two rounds; `what` is for the log.
    pub(crate) fn start(source: Arc<S>, records: Arc<dyn Records>, pause: Duration, what: &'static str) -> Self {
        let inner = Arc::new(Inner { source, records, dirty: Notify::new(), committing: Mutex::default() });
        let writer = tokio::spawn(write(Arc::clone(&inner), pause, what));
        Self { inner, writer }
    }

    /// Something is dirty.
    pub(crate) fn wake(&self) {
        self.inner.dirty.notify_one();
    }

    /// Returns once everything that is dirty now is handed to the store.
    pub(crate) async fn flush(&self) -> Result<(), StoreError> {
        self.inner.write_dirty().await
    }
}

impl<S> Drop for WriteBehind<S> {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

impl<S: Source> Inner<S> {
    /// Cancel safe: rows count as written only after their commit.
    async fn write_dirty(&self) -> Result<(), StoreError> {
        let _turn = self.committing.lock().await;
        loop {
            let (rows, changes) = self.source.dirty_rows(COMMIT_ROWS_MAX)?;
            if rows.is_empty() {
                return Ok(());
            }
            let is_all = changes.len() < COMMIT_ROWS_MAX;
            self.records.commit(changes, Durability::Lazy).await?;
            self.source.written(&rows);
            if is_all {
                return Ok(());
            }
        }
    }
}

/// Writes whenever something is dirty, until a write fails for good: the store then refuses everything until a restart.
/// Any other failure may pass, such as a full disk: what is dirty stays so, in memory and bounded.
async fn write<S: Source>(inner: Arc<Inner<S>>, pause: Duration, what: &'static str) {
    loop {
        inner.dirty.notified().await;
        match inner.write_dirty().await {
            Ok(()) => {}
            // The store has waited before it said so; what is dirty stays dirty.
            Err(StoreError::Overloaded) => inner.dirty.notify_one(),
            Err(StoreError::Full) => {
                inner.dirty.notify_one();
                tokio::time::sleep(FULL_PAUSE).await;
            }
            Err(error @ (StoreError::Poisoned | StoreError::Closed)) => {
                tracing::error!(%error, "{what} are no longer written to disk.");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "{what} could not be written to disk; the next try is in {RETRY_AFTER:?}.");
                tokio::time::sleep(RETRY_AFTER).await;
                inner.dirty.notify_one();
            }
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use bytes::Bytes;

    use super::*;
    use crate::records::Table;

    /// One row that is dirty until it was written.
    #[derive(Default)]
    struct One(AtomicUsize);

    impl Source for One {
        type Row = ();

        fn dirty_rows(&self, _: usize) -> Result<(Vec<()>, Vec<Change>), StoreError> {
            Ok((if self.0.load(Ordering::SeqCst) == 0 { vec![()] } else { Vec::new() }, Vec::new()))
        }

        fn written(&self, rows: &[()]) {
            self.0.fetch_add(rows.len(), Ordering::SeqCst);
        }
    }

    /// Fails the first commits.
    struct Failing {
        commits: AtomicUsize,
        fails: usize,
        with: fn() -> StoreError,
    }

    #[async_trait]
    impl Records for Failing {
        async fn some(&self, _: Table, _: Option<&[u8]>, _: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
            Ok(Vec::new())
        }

        async fn get(&self, _: Table, _: &[u8]) -> Result<Option<Bytes>, StoreError> {
            Ok(None)
        }

        async fn commit(&self, _: Vec<Change>, _: Durability) -> Result<(), StoreError> {
            if self.commits.fetch_add(1, Ordering::SeqCst) < self.fails { Err((self.with)()) } else { Ok(()) }
        }
    }

    /// Whether the row was written within ten minutes of failures, and how many commits were tried.
    async fn outcome(fails: usize, with: fn() -> StoreError) -> (bool, usize) {
        let (source, records) =
            (Arc::new(One::default()), Arc::new(Failing { commits: AtomicUsize::new(0), fails, with }));
        let writer =
            WriteBehind::start(Arc::clone(&source), Arc::clone(&records) as Arc<dyn Records>, Duration::ZERO, "Rows");
        writer.wake();
        tokio::time::sleep(Duration::from_secs(600)).await;
        (source.0.load(Ordering::SeqCst) == 1, records.commits.load(Ordering::SeqCst))
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_failed_is_tried_again_without_hurry() {
        let full = || StoreError::Io("the disk is full".into());
        assert_eq!(outcome(100, full).await, (true, 101));
        let (written, tries) = outcome(usize::MAX, full).await;
        assert!(!written && tries <= 121, "{tries}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_refuses_until_a_restart_is_not_asked_again() {
        assert_eq!(outcome(usize::MAX, || StoreError::Poisoned).await, (false, 1));
    }
}
