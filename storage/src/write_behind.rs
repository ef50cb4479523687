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

/// Rows in memory that know which of them are not on disk.
pub(crate) trait Source: Send + Sync + 'static {
    /// Names a row as it was handed over.
    type Row: Send;

    /// Up to `max` dirty rows as they are now; they stay dirty.
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
            self.records.commit(changes, Durability::Lazy).await?;
            self.source.written(&rows);
            if rows.len() < COMMIT_ROWS_MAX {
                return Ok(());
            }
        }
    }
}

/// Writes whenever something is dirty, until a write fails for good: the store then refuses everything until a restart.
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
            Err(error) => {
                tracing::error!(%error, "{what} are no longer written to disk.");
                return;
            }
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}
