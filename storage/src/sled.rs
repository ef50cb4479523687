//! The embedded engine: sled 0.34.7, measured in DESIGN.md § 6. Nothing outside this module names sled.
//!
//! # On disk
//! - `<data>/lock`: locked by the one process that has the directory open.
//! - `<data>/events`: logs and failed deliveries. One that does not open is renamed to `events.damaged-<time>` and a
//!   fresh one started: gateways catch up by a reset. `<data>/directory`: gateways and the rest; one that does not open
//!   is [`StoreError::Damaged`] until [`repair_store`] rebuilds it from `<data>/directory.copy` (`second_copy.rs`).
//! - `<database>.new`: one that is being made and was never open (`birth.rs`).
//! - sled checks a page when it reads it, which may be long after it was opened. `<database>/suspect` says that damage was
//!   met: at the next start the logs that are not exact start anew (`salvage.rs`; what exact is, says `walk.rs`).
//! - One tree a database. Keys by first byte: `V` format, `N` number of syncs, `C` how far the second copy goes, `H` heads of logs, `O` owners of epochs, `R` entries (gateway 16 bytes, epoch 4,
//!   position 8; several that follow each other may share the row of the first: `block.rs`), `B` bundles of entries that are
//!   not in such rows yet (`young.rs`) and, alone, which of them is the first, `S` entries of compacted states (alike), `K` where in them a key is (gateway, epoch, key), `D` which of
//!   them are tombstones (as `S`), `P` parts of large bodies (as `R`, and the number of the part), `L` entries that have
//!   left a compacted state and whose parts are being deleted (as `R`; `parts.rs`), `F` forgotten logs whose rows are being deleted, and the lower-case tags of
//!   [`Table`].
//! - An entry's row holds the running total of bytes, so sizes and bounds need no scan. A head holds epoch and floor;
//!   rows below the floor are gone for readers and deleted in chunks behind.
//! - Entries are folded into the compacted state when the floor is raised over them: state and head in one commit.
//! - A log is loaded at its first touch by its head and its last row: opening reads the bundles, and nothing per log.
//! - Rows of logs that nobody appends to are deleted by count and bytes only; by age they are hidden, not deleted.
//! - `<database>/clean` says that the database was closed with all of it synced, and what its segments were (`clean.rs`).
//!   Without it, or if the part that sled replays is damaged (`replay.rs`), it is looked at when it is opened which logs
//!   there are and where each ends, against what the last sync said of that (`totals.rs`).
//! - `<database>/doubtful` says that sled has replayed something damaged, so that any row may lack its newest change: all
//!   rows are looked at before they are used (`suspect.rs`).
//! - `<data>/events.fresh` is being rebuilt, `<data>/events.whole` is about to take its place (`salvage.rs`).
//! - `<database>/mark` tells a database that lost answered writes from one that never had them (`mark.rs`): sled opens
//!   a shortened file without complaint. It also says how far sled's log was synced: behind that the log is cut where a
//!   loss of power tore it, before sled opens it (`tear.rs`; `segments.rs` is the log's form).
//!
//! # Writing
//! One committer thread per database takes up to 1,024 jobs or 2,048 rows of entries, writes, syncs once, shows the entries to readers, tells the
//! follower, answers (`committer.rs`, start there; `batch.rs` has the writes). What an append writes is a part of a bundle; entries get into
//! rows of their own log after they were answered, several at once (`young.rs` says why).
//! sled's own `flush` is not durable on power loss: `database.rs` syncs the file, and `blobs.rs` the files of large pages that
//! sled never syncs; entries make none (`parts.rs`). A batch that writes a lot of log is synced amid it as well, since sled uses room again before a sync.
//!
//! # What kill -9 may lose
//! Entries that were not answered, from the end; and up to 500 ms of [`Durability::Lazy`](crate::Durability) commits.

mod backup;
mod batch;
mod birth;
mod blobs;
mod block;
mod bundle;
mod check;
mod clean;
mod committer;
mod data;
mod database;
mod engine;
mod entry_rows;
mod fold;
mod frames;
mod job;
mod keys;
mod lock;
mod log;
mod log_rows;
mod mark;
mod open;
mod owner;
mod parts;
mod pending_rows;
mod portable;
mod records;
mod replay;
mod ring;
mod row;
mod salvage;
mod second_copy;
mod segments;
mod space;
mod suspect;
mod sweeps;
mod tear;
mod totals;
mod tree;
mod walk;
mod young;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use self::backup::Backup;
pub use self::check::{Checked, check_store};
pub use self::log::SledLog;
pub use self::portable::{check_export, export_store, import_store};
pub use self::records::SledRecords;
pub use self::salvage::{Repaired, repair_store};

use self::data::{DIRECTORY, DataDir, EVENTS};
use self::database::{Database, failed};
use self::engine::Engine;
use crate::clock::Clock;
use crate::compaction::Compaction;
use crate::log::{Follower, NoFollower, Retention};
use crate::records::{StoreError, Table};
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
    let dir = DataDir::take(&data)?;
    dir.refuse_unfinished()?;
    // The directory first: if it is damaged, the events are left alone.
    let directory = open_directory(&dir)?;
    let events = open_events(&dir, &directory, &*clock)?;
    let events = Arc::new(Engine::start("events", events, retention, Arc::clone(&clock), follower)?);
    let no_logs = Retention { max_events: 1, max_bytes: 0, max_age: Duration::ZERO, compaction: Compaction::DEFAULT };
    let directory = Arc::new(Engine::start("directory", directory, no_logs, clock, Arc::new(NoFollower))?);
    let backup = Backup::new(Arc::clone(&events), Arc::clone(&directory), &data);
    Ok(Stores {
        backup: Some(Arc::new(backup)),
        log: Arc::new(SledLog::new(Arc::clone(&events))),
        events_records: Arc::new(SledRecords::new(events)),
        directory_records: Arc::new(SledRecords::new(directory)),
        dir: Some(data),
        closed: Some(dir.lock().closed()),
    })
}

/// Opens the directory and its second copy; one that is lost while its copy is there is not taken for a new one.
fn open_directory(dir: &DataDir) -> Result<Database, StoreError> {
    let path = dir.database(DIRECTORY);
    let has_copy = dir.path().join(second_copy::NAME).exists();
    let opened = if has_copy { dir.open(DIRECTORY) } else { dir.open_or_create(DIRECTORY) };
    let looked = opened.and_then(|db| {
        if suspect::is_noted(&path) {
            check::guarded(&db, || {
                keys::TABLES.into_iter().try_for_each(|tag| walk::table(&db, tag, &mut |_, _| Ok(())).map(drop))
            })?;
            suspect::clear(&path).map_err(failed)?;
        }
        if suspect::is_proved(&path)
            && let Some(detail) = check::rows(DIRECTORY, &db, dir.path()).faults.into_iter().next()
        {
            // What lacks anything was closed whole: the disk is not to be trusted, and nothing is written to it.
            return Err(StoreError::Damaged { path: path.display().to_string(), detail });
        }
        check::guarded(&db, || db.start_copy(dir.path()))?;
        suspect::trust(&path).map_err(failed)?;
        Ok(db)
    });
    looked.map_err(|error| match error {
        StoreError::Damaged { path, detail } => StoreError::Damaged {
            detail: format!("{detail}. Nothing was changed; rebuild it from its second copy: gatecast store repair"),
            path,
        },
        error => error,
    })
}

/// Opens the events; a store that is damaged is set aside, or rebuilt from what is exact in it. One that is missing is told
/// of if it is not new: then the directory knows gateways.
fn open_events(dir: &DataDir, directory: &Database, clock: &dyn Clock) -> Result<Database, StoreError> {
    let path = dir.database(EVENTS);
    if !path.exists() && directory.prefix(&[Table::Gateways as u8]).next().is_some() {
        tracing::error!(
            store.path = %path.display(),
            "The event store is missing: all events are lost, every log starts anew and every cursor is reset. If it was \
             moved away, stop the server and put it back in place of the new one."
        );
    }
    let opened = salvage::salvage_suspect(dir, clock).and_then(|()| dir.open_or_create(EVENTS));
    let opened = opened.and_then(|db| salvage::settle_doubt(dir, db, clock));
    let Err(StoreError::Damaged { detail, .. }) = opened else { return opened };
    let aside = dir.set_aside(EVENTS, clock)?;
    tracing::error!(
        store.path = %path.display(),
        store.aside = %aside.display(),
        detail,
        "The event store cannot be opened and was set aside; every log starts anew and every cursor is reset."
    );
    dir.open_or_create(EVENTS)
}

#[cfg(test)]
mod tests;
