use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check::{self, check, guarded};
use super::data::{DIRECTORY, DataDir, EVENTS};
use super::database::{Database, failed};
use super::second_copy::{self, sync_parent};
use super::{EVENTS_CACHE_BYTES, keys, open, suspect, walk};
use crate::clock::Clock;
use crate::ids::GatewayId;
use crate::records::StoreError;

/// Bytes of rows in one write to the new database.
const WRITE_BYTES: usize = 1024 * 1024;
/// What a database is called until it is whole.
const FRESH: &str = "fresh";
/// And from then on, until it has its place.
const WHOLE: &str = "whole";

/// What a repair has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// The directory was rebuilt from its second copy.
    pub directory_rebuilt: bool,
    /// The second copy was written anew.
    pub copy_rebuilt: bool,
    /// The event store was rebuilt from what was exact in it.
    pub events_rebuilt: bool,
    /// Logs that were kept as they were, in an event store that was rebuilt.
    pub logs_kept: u64,
    /// Logs that start anew: their gateways are reset.
    pub logs_reset: Vec<GatewayId>,
    /// What else was lost.
    pub lost: Vec<String>,
    /// Where what was damaged is kept.
    pub aside: Vec<PathBuf>,
}

/// Makes a damaged store whole again. Nothing is deleted: what was damaged is renamed and kept. What is sound is not
/// touched, so a second repair does nothing.
///
/// # Errors
/// If the directory and its second copy are both damaged; nothing is changed then. If the store is in use, or the disk
/// fails.
pub async fn repair_store(data: impl AsRef<Path>, clock: Arc<dyn Clock>) -> Result<Repaired, StoreError> {
    let dir = DataDir::existing(data.as_ref())?;
    let checked = check(&dir, Arc::clone(&clock)).await?;
    let work = move || {
        let mut repaired = Repaired::default();
        let has_fault = |of: &str| checked.faults.iter().any(|fault| fault.contains(of));
        repair_directory(&dir, &*clock, has_fault("directory: "), &mut repaired)?;
        repair_events(&dir, &*clock, has_fault("events: "), &mut repaired)?;
        Ok(repaired)
    };
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

fn repair_directory(
    dir: &DataDir,
    clock: &dyn Clock,
    has_fault: bool,
    repaired: &mut Repaired,
) -> Result<(), StoreError> {
    let copy = dir.path().join(second_copy::NAME);
    let opened = if has_fault { None } else { undamaged(dir.open(DIRECTORY))? };
    if let Some(db) = opened {
        if second_copy::read(&copy, |_, _| Ok(())).is_err() {
            if copy.exists() {
                repaired.aside.push(dir.set_aside(second_copy::NAME, clock)?);
            }
            repaired.copy_rebuilt = true;
        }
        // Written anew if it is missing or not in step.
        return db.start_copy(dir.path());
    }
    // All of it is read before anything is touched.
    if let Err(error) = second_copy::read(&copy, |_, _| Ok(())) {
        let detail = format!(
            "it is damaged, and so is its second copy, directory.copy ({error}). Nothing was changed. Import the last \
             export into an empty data directory: gatecast store import"
        );
        return Err(StoreError::Damaged { path: dir.database(DIRECTORY).display().to_string(), detail });
    }
    let fresh = Fresh::new(dir, DIRECTORY)?;
    let mut rows = Rows::new(&fresh.db);
    second_copy::read(&copy, |key, row| rows.write(key, row).map_err(io::Error::other)).map_err(failed)?;
    rows.finish()?;
    repaired.aside.extend(fresh.put_in_place(dir, clock)?);
    repaired.directory_rebuilt = true;
    dir.open(DIRECTORY)?.start_copy(dir.path())
}

fn repair_events(dir: &DataDir, clock: &dyn Clock, has_fault: bool, repaired: &mut Repaired) -> Result<(), StoreError> {
    let path = dir.database(EVENTS);
    let opened = if path.exists() { undamaged(dir.open(EVENTS))? } else { None };
    match opened {
        Some(_) if !has_fault && !suspect::is_noted(&path) => return Ok(()),
        Some(db) => {
            let fresh = Fresh::new(dir, EVENTS)?;
            salvage(&db, &fresh.db, repaired)?;
            drop(db);
            repaired.aside.extend(fresh.put_in_place(dir, clock)?);
        }
        None => {
            repaired.lost.push("the event store cannot be opened: every log starts anew".to_owned());
            if path.exists() {
                repaired.aside.push(dir.set_aside(EVENTS, clock)?);
            }
            drop(dir.open_or_create(EVENTS)?);
        }
    }
    repaired.events_rebuilt = true;
    Ok(())
}

/// Looks through an event store in which damage was met while it was in use; logs that are not exact start anew.
pub(super) fn salvage_suspect(dir: &DataDir, clock: &dyn Clock) -> Result<(), StoreError> {
    if !suspect::is_noted(&dir.database(EVENTS)) {
        return Ok(());
    }
    let mut repaired = Repaired::default();
    repair_events(dir, clock, true, &mut repaired)?;
    tracing::error!(
        logs_kept = repaired.logs_kept,
        logs_reset = repaired.logs_reset.len(),
        lost = ?repaired.lost,
        aside = ?repaired.aside,
        "The event store was damaged and was rebuilt; logs that were not exact start anew and their cursors are reset."
    );
    Ok(())
}

/// Looks through an event store of which sled may not have replayed all: rows would lack their newest changes. If all is
/// as it should be it goes on, else what is exact does.
pub(super) fn settle_doubt(dir: &DataDir, db: Database, clock: &dyn Clock) -> Result<Database, StoreError> {
    let path = dir.database(EVENTS);
    if !suspect::is_doubted(&path) {
        return Ok(db);
    }
    tracing::warn!(
        "A part of the event store is not as it was written, or power was lost; all of it is looked through."
    );
    let checked = check::rows(EVENTS, &db, dir.path());
    if let Some(fault) = checked.faults.first() {
        // Said by what opens it next.
        drop(db.note_damage(fault));
        drop(db);
        salvage_suspect(dir, clock)?;
        return dir.open(EVENTS);
    }
    suspect::trust(&path).map_err(failed)?;
    Ok(db)
}

fn undamaged(opened: Result<Database, StoreError>) -> Result<Option<Database>, StoreError> {
    match opened {
        Ok(db) => Ok(Some(db)),
        Err(StoreError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes what is exact in `from` to `to`. A log is looked at as a whole before any of it is written.
fn salvage(from: &Database, to: &Database, repaired: &mut Repaired) -> Result<(), StoreError> {
    let mut rows = Rows::new(to);
    let Ok(heads) = guarded(from, || walk::heads(from)) else {
        repaired.lost.push("the list of logs is not readable: every log starts anew".to_owned());
        return rows.finish();
    };
    for (of, head) in heads {
        if guarded(from, || walk::log(from, of, head, &mut |_, _| Ok(()))).is_err() {
            repaired.logs_reset.push(of);
            continue;
        }
        walk::log(from, of, head, &mut |key, row| rows.write(key, Some(row)))?;
        repaired.logs_kept += 1;
    }
    for tag in keys::TABLES {
        if guarded(from, || walk::table(from, tag, &mut |_, _| Ok(()))).is_err() {
            repaired.lost.push(format!("the records {:?}", char::from(tag)));
        } else {
            walk::table(from, tag, &mut |key, row| rows.write(key, Some(row)))?;
        }
    }
    rows.finish()
}

/// Ends what a crash left of a database that was about to take the place of another: it does if the other one is gone, else
/// it goes, and the other one is found damaged again. Called before anything else is done with a data directory, so that
/// it is never of an older time than what it replaces.
pub(super) fn finish_interrupted(data: &Path) -> io::Result<()> {
    for name in [DIRECTORY, EVENTS] {
        let (target, whole) = (data.join(name), data.join(format!("{name}.{WHOLE}")));
        if !whole.exists() {
            continue;
        }
        if target.exists() {
            // First the name: half of it is not whole.
            let fresh = data.join(format!("{name}.{FRESH}"));
            rename(&whole, &fresh)?;
            fs::remove_dir_all(&fresh)?;
        } else {
            rename(&whole, &target)?;
        }
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_parent(to)
}

/// A database that takes the place of another once it is whole.
struct Fresh {
    db: Database,
    path: PathBuf,
    name: &'static str,
}

impl Fresh {
    fn new(dir: &DataDir, name: &'static str) -> Result<Self, StoreError> {
        let path = dir.database(&format!("{name}.{FRESH}"));
        if path.exists() {
            // Of a repair that was interrupted: it holds nothing that its source does not.
            fs::remove_dir_all(&path).map_err(failed)?;
        }
        Ok(Self { db: open::open(&path, EVENTS_CACHE_BYTES, Arc::clone(dir.lock()))?, path, name })
    }

    /// It has a name that says that it is whole before the other one goes: [`finish_interrupted`] ends what a crash leaves.
    fn put_in_place(self, dir: &DataDir, clock: &dyn Clock) -> Result<Option<PathBuf>, StoreError> {
        drop(self.db);
        let (target, whole) = (dir.database(self.name), dir.database(&format!("{}.{WHOLE}", self.name)));
        rename(&self.path, &whole).map_err(failed)?;
        let aside = if target.exists() { Some(dir.set_aside(self.name, clock)?) } else { None };
        rename(&whole, &target).map_err(failed)?;
        Ok(aside)
    }
}

/// Rows on their way into a database.
pub(super) struct Rows<'a> {
    db: &'a Database,
    batch: ::sled::Batch,
    bytes: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn new(db: &'a Database) -> Self {
        Self { db, batch: ::sled::Batch::default(), bytes: 0 }
    }

    /// Writes a row, or deletes it.
    pub(super) fn write(&mut self, key: &[u8], row: Option<&[u8]>) -> Result<(), StoreError> {
        self.bytes += key.len() + row.map_or(0, <[u8]>::len);
        match row {
            Some(row) => self.batch.insert(key, row),
            None => self.batch.remove(key),
        }
        if self.bytes < WRITE_BYTES {
            return Ok(());
        }
        self.bytes = 0;
        self.db.apply(std::mem::take(&mut self.batch))
    }

    pub(super) fn finish(self) -> Result<(), StoreError> {
        self.db.apply(self.batch)?;
        // Rows were written past the count of the logs' ends.
        self.db.look_at_ends(None)?;
        self.db.sync()
    }
}
