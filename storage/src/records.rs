//! Small tables with atomic commits: what an engine offers beside its logs.

use async_trait::async_trait;
use bytes::Bytes;

/// A table. Its tag is the first byte of a row's key on disk and never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// Facts about the store itself, such as its format version and the hash of the admin token.
    Meta = b'm',
    /// Gateways by id.
    Gateways = b'g',
    /// Tokens by id.
    Tokens = b't',
    /// APIs by API id, without their artifacts.
    Apis = b'a',
    /// API artifacts by API id; in a table of their own so that loading the APIs does not load them.
    Artifacts = b'x',
    /// What is deployed where.
    Deployments = b'd',
    /// Registered event types by name.
    EventTypes = b'e',
    /// Failed deliveries by number.
    Deliveries = b'f',
    /// How far each replica of each gateway is.
    Positions = b'p',
    /// What each replica of each gateway reported.
    Outcomes = b'o',
    /// What was answered to calls with an idempotency key.
    Answers = b'i',
    /// Deployments whose event is stored and that the directory may not know of yet, by their id.
    Orders = b'q',
}

/// One row put or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The table.
    pub table: Table,
    /// The row's key, unique in its table.
    pub key: Bytes,
    /// The row, or `None` to delete it.
    pub row: Option<Bytes>,
}

/// What a commit's answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It survives kill -9 and power loss.
    Synced,
    /// As [`Self::Synced`]; and where the file system has no room for more, a commit that only puts a little in place of rows
    /// that are there takes of what is left alone. For what has to go whatever the disk is like, as revoking a key has, and
    /// not for what callers repeat without end while it is refused: they would use that up.
    Urgent,
    /// It is on disk within a second, in order with later commits; for records that may be lost in a crash.
    Lazy,
}

/// The store cannot serve now: I/O failed, it is closed, or it refuses after a failed flush.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Reading or writing failed.
    #[error("the store failed: {0}")]
    Io(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An earlier flush failed, so what is on disk is not known; restart to recover.
    #[error("the store refuses to write after a failed flush; restart the server")]
    Poisoned,
    /// The file system has no room for it; the store goes on by itself once there is. Nothing was done.
    #[error("the file system of the store is full")]
    Full,
    /// The process has as many files and sockets open as it may; the store goes on by itself once it has fewer. Nothing was
    /// done.
    #[error("the process may open no more files")]
    OutOfFiles,
    /// Too much waits to be written; try again later. Nothing was done.
    #[error("the store is overloaded")]
    Overloaded,
    /// Another process has the data directory open.
    #[error("the data directory {0} is in use by another process")]
    InUse(String),
    /// The data directory is none, or it or what is in it is not ours to write to. Nothing was changed.
    #[error("the data directory {path} cannot be used: {source}")]
    Unusable {
        /// Where it should be, or what is in it.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The store on disk is not as it was written.
    #[error("the store at {path} is damaged: {detail}")]
    Damaged {
        /// Where it is.
        path: String,
        /// What was seen.
        detail: String,
    },
    /// What should be new exists and has something in it. Nothing was changed.
    #[error("{0} is not empty")]
    NotEmpty(String),
    /// An export cannot be used. Nothing was changed.
    #[error("{file} cannot be used: {detail}")]
    Unreadable {
        /// Its name.
        file: String,
        /// Why not.
        detail: String,
    },
    /// A row is not of the form this version writes.
    #[error("a row of the store is not readable: {0}")]
    Malformed(String),
    /// The engine was closed.
    #[error("the store is closed")]
    Closed,
}

/// What a store can do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// All that it is for.
    Serving,
    /// Reading; writes that take room are refused with [`StoreError::Full`] until there is some.
    Full,
    /// Not all: it refuses writes after a failed one, or met damage on disk. A restart is needed.
    Broken,
}

impl StoreError {
    /// Whether the entry may be stored all the same: after a failed write or sync only the next start knows.
    #[must_use]
    pub fn may_be_stored(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Poisoned | Self::Closed)
    }
}

/// Tables of an engine.
#[async_trait]
pub trait Records: Send + Sync {
    /// Up to `max` rows of a table in key order: the first ones, or those after a key.
    ///
    /// # Errors
    /// If the store cannot be read now.
    async fn some(&self, table: Table, after: Option<&[u8]>, max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError>;

    /// All rows of a table in key order. What may be many is better gone through by [`each_row`].
    ///
    /// # Errors
    /// If the store cannot be read now.
    async fn scan(&self, table: Table) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut rows = Vec::new();
        each_row(self, table, |key, row| {
            rows.push((key, row));
            Ok(())
        })
        .await?;
        Ok(rows)
    }

    /// One row.
    ///
    /// # Errors
    /// If the store cannot be read now.
    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Makes all changes or none, also across kill -9. Concurrent commits are applied in one order.
    /// Dropping the future leaves the commit made or not made, never torn.
    ///
    /// # Errors
    /// If the changes may not have been made.
    async fn commit(&self, changes: Vec<Change>, durability: Durability) -> Result<(), StoreError>;

    /// What the store can do now. It asks the file system at most, and that briefly.
    fn condition(&self) -> Condition {
        Condition::Serving
    }
}

/// Rows that are in memory at once while a table is gone through. With all of them there, what 100,000 gateways took for
/// that moment was never given back: 40 MB.
const ROWS_AT_ONCE: usize = 1_024;

/// Goes through all rows of a table in key order, until `put` fails.
pub(crate) async fn each_row<R: Records + ?Sized>(
    records: &R,
    table: Table,
    mut put: impl FnMut(Bytes, Bytes) -> Result<(), StoreError> + Send,
) -> Result<(), StoreError> {
    let mut last: Option<Bytes> = None;
    loop {
        let rows = records.some(table, last.as_deref(), ROWS_AT_ONCE).await?;
        let is_all = rows.len() < ROWS_AT_ONCE;
        last = rows.last().map(|(key, _)| key.clone());
        rows.into_iter().try_for_each(|(key, row)| put(key, row))?;
        if is_all {
            return Ok(());
        }
    }
}
