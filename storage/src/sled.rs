//! The embedded engine: sled 0.34.7, measured in DESIGN.md § 6. Nothing outside this module names sled.
//!
//! # On disk
//! - `<data>/lock`: locked by the one process that has the directory open.
//! - `<data>/events`: logs and failed deliveries. One that does not open is renamed to `events.damaged-<time>` and a
//!   fresh one started: gateways catch up by a reset. `<data>/directory`: gateways and the rest; one that does not open
//!   is [`StoreError::Damaged`], since nothing else holds what it holds.
//! - `<database>.new`: one that is being made and was never open (`birth.rs`).
//! - One tree a database. Keys by first byte: `V` format, `N` number of syncs, `H` heads of logs, `O` owners of epochs, `R` entries (gateway 16 bytes, epoch 4,
//!   position 8), `S` entries of compacted states (alike), `K` where in them a key is (gateway, epoch, key), `D` which of
//!   them are tombstones (as `S`), `F` forgotten logs whose rows are being deleted, and the lower-case tags of
//!   [`Table`](crate::Table).
//! - An entry's row holds the running total of bytes, so sizes and bounds need no scan. A head holds epoch and floor;
//!   rows below the floor are gone for readers and deleted in chunks behind.
//! - Entries are folded into the compacted state when the floor is raised over them: state and head in one commit.
//! - A log is loaded at its first touch by its head and its last row: opening reads nothing per log.
//! - Rows of logs that nobody appends to are deleted by count and bytes only; by age they are hidden, not deleted.
//! - `<database>/mark` tells a database that lost answered writes from one that never had them (`mark.rs`): sled opens
//!   a shortened file without complaint. To go on with what is left of a damaged directory, delete its mark.
//!
//! # Writing
//! One committer thread per database takes up to 1,024 jobs, writes, syncs once, shows the entries to readers, tells the
//! follower, answers (`committer.rs`, start there; `batch.rs` has the writes).
//! sled's own `flush` is not durable on power loss: `database.rs` syncs the file, and `blobs.rs` the blobs that sled
//! never syncs.
//!
//! # What kill -9 may lose
//! Entries that were not answered, from the end; and up to 500 ms of [`Durability::Lazy`](crate::Durability) commits.

mod batch;
mod birth;
mod blobs;
mod committer;
mod database;
mod engine;
mod fold;
mod job;
mod keys;
mod lock;
mod log;
mod mark;
mod open;
mod records;
mod ring;
mod row;
mod sweeps;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use self::log::SledLog;
pub use self::records::SledRecords;

use self::database::failed;
use self::engine::Engine;
use self::lock::DataLock;
use crate::clock::Clock;
use crate::compaction::Compaction;
use crate::log::{Follower, NoFollower, Retention};
use crate::records::StoreError;
use crate::stores::Stores;

/// sled's page cache for the events; its default is 1 GB.
const EVENTS_CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// sled's page cache for the directory, which is also in memory.
const DIRECTORY_CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// Opens or creates the stores in `data`. The last of the returned handles to be dropped closes them, and waits for the
/// batch under way.
///
/// # Errors
/// [`StoreError::InUse`] if another process has `data` open, [`StoreError::Damaged`] if the directory does not open,
/// [`StoreError::Malformed`] if it was written by a later version, or [`StoreError::Io`].
pub async fn open_sled(
    data: impl AsRef<Path>,
    retention: Retention,
    clock: Arc<dyn Clock>,
    follower: Arc<dyn Follower>,
) -> Result<Stores, StoreError> {
    let data = data.as_ref().to_owned();
    let opened = tokio::task::spawn_blocking(move || open_stores(data, retention, clock, follower));
    opened.await.map_err(failed)?
}

fn open_stores(
    data: PathBuf,
    retention: Retention,
    clock: Arc<dyn Clock>,
    follower: Arc<dyn Follower>,
) -> Result<Stores, StoreError> {
    fs::create_dir_all(&data).map_err(failed)?;
    let lock = Arc::new(DataLock::take(&data)?);
    // The directory first: if it is damaged, the events are left alone.
    let directory = open::open(&data.join("directory"), DIRECTORY_CACHE_BYTES, Arc::clone(&lock))?;
    let events = open::open_or_set_aside(&data.join("events"), EVENTS_CACHE_BYTES, &lock, &*clock)?;
    let events = Arc::new(Engine::start("events", events, retention, Arc::clone(&clock), follower)?);
    let no_logs = Retention { max_events: 1, max_bytes: 0, max_age: Duration::ZERO, compaction: Compaction::DEFAULT };
    let directory = Arc::new(Engine::start("directory", directory, no_logs, clock, Arc::new(NoFollower))?);
    Ok(Stores {
        log: Arc::new(SledLog::new(Arc::clone(&events))),
        events_records: Arc::new(SledRecords::new(events)),
        directory_records: Arc::new(SledRecords::new(directory)),
    })
}

#[cfg(test)]
mod tests;
