use std::fs::{self, File};
use std::io::{BufReader, BufWriter};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check::{Checked, check};
use super::data::{DIRECTORY, DataDir, EVENTS, gone};
use super::database::{Database, failed};
use super::frames::{self, Frame, FrameReader, FrameWriter};
use super::salvage::Rows;
use super::second_copy::sync_parent;
use super::{keys, walk};
use crate::clock::Clock;
use crate::records::StoreError;

/// What an export begins with; the last byte is the version of the format.
const KIND: [u8; 8] = *b"gcexprt\x01";
/// The first byte of a frame: rows of the directory, rows of the events, the end.
pub(super) const DIRECTORY_ROWS: u8 = b'd';
pub(super) const EVENTS_ROWS: u8 = b'e';
const END: u8 = b'.';

/// Writes all of the stores in `data` to `file`: gateways, tokens, artifacts, deployments, event types; logs with their
/// epochs and positions, compacted states; positions, outcomes, failed deliveries. No server may have the store open.
///
/// The file is [frames](FrameWriter): the first byte of a payload says of which database its rows are, the last frame
/// how many rows there are. It appears under its name once it is whole and on disk.
///
/// # Errors
/// [`StoreError::Damaged`] if the store is; [`StoreError::NotEmpty`] if the file exists; if the store is in use, or the
/// disk fails.
pub async fn export_store(
    data: impl AsRef<Path>,
    file: impl AsRef<Path>,
    clock: Arc<dyn Clock>,
) -> Result<Checked, StoreError> {
    let (dir, file) = (DataDir::existing(data.as_ref())?, file.as_ref().to_owned());
    if file.exists() {
        return Err(StoreError::NotEmpty(file.display().to_string()));
    }
    let checked = sound(&dir, clock).await?;
    let work = move || -> Result<(), StoreError> {
        let partial = partial(&file);
        write(&dir, &partial)?;
        fs::rename(&partial, &file).map_err(failed)?;
        sync_parent(&fs::canonicalize(&file).map_err(failed)?).map_err(failed)
    };
    tokio::task::spawn_blocking(work).await.map_err(failed)??;
    Ok(checked)
}

fn partial(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

fn write(dir: &DataDir, file: &Path) -> Result<(), StoreError> {
    let mut to = Export::new(BufWriter::new(create(file)?))?;
    let db = dir.open(DIRECTORY)?;
    to.begin(DIRECTORY_ROWS);
    to.tables(&db)?;
    to.flush()?;
    let db = dir.open(EVENTS)?;
    to.begin(EVENTS_ROWS);
    for (of, head) in walk::heads(&db)? {
        walk::log(&db, of, head, &mut |key, row| to.row(key, row))?;
    }
    to.tables(&db)?;
    to.finish()?.sync_all().map_err(failed)
}

/// A file to export to. It holds what the data directory does, which is nobody else's either, whoever could read what an
/// interrupted one left under this name.
pub(super) fn create(path: &Path) -> Result<File, StoreError> {
    gone(fs::remove_file(path))?;
    File::options().read(true).write(true).create_new(true).mode(0o600).open(path).map_err(failed)
}

/// An export under way.
pub(super) struct Export {
    frames: FrameWriter<BufWriter<File>>,
    payload: Vec<u8>,
    rows: u64,
}

impl Export {
    pub(super) fn new(file: BufWriter<File>) -> Result<Self, StoreError> {
        Ok(Self { frames: FrameWriter::new(file, KIND).map_err(failed)?, payload: Vec::new(), rows: 0 })
    }

    /// The rows that follow are of this database.
    pub(super) fn begin(&mut self, of: u8) {
        self.payload.clear();
        self.payload.push(of);
    }

    pub(super) fn row(&mut self, key: &[u8], row: &[u8]) -> Result<(), StoreError> {
        self.rows += 1;
        frames::push_row(&mut self.payload, key, Some(row)).map_err(failed)?;
        if self.payload.len() >= frames::PAYLOAD_BYTES { self.flush() } else { Ok(()) }
    }

    pub(super) fn flush(&mut self) -> Result<(), StoreError> {
        self.frames.write(&self.payload).map_err(failed)?;
        self.payload.truncate(1);
        Ok(())
    }

    fn tables(&mut self, db: &Database) -> Result<(), StoreError> {
        for tag in keys::TABLES {
            walk::table(db, tag, &mut |key, row| self.row(key, row))?;
        }
        Ok(())
    }

    /// The whole file, not synced.
    pub(super) fn finish(mut self) -> Result<File, StoreError> {
        self.flush()?;
        self.begin(END);
        self.payload.extend_from_slice(&self.rows.to_be_bytes());
        self.frames.write(&self.payload).map_err(failed)?;
        let (file, _) = self.frames.finish().map_err(failed)?;
        file.into_inner().map_err(|error| failed(error.into_error()))
    }
}

/// Whether a file is a whole export.
///
/// # Errors
/// [`StoreError::Unreadable`] if it is not.
pub async fn check_export(file: impl AsRef<Path>) -> Result<(), StoreError> {
    let file = file.as_ref().to_owned();
    tokio::task::spawn_blocking(move || read(&file, |_, _, _| Ok(()))).await.map_err(failed)?
}

/// Makes `data`, which must be empty, the store that an export was written from: cursors stay what they are. All of it
/// or nothing: the file is read to its end first, what was written is checked, and a server refuses a directory in
/// which an import did not finish.
///
/// # Errors
/// [`StoreError::NotEmpty`] if `data` is not; [`StoreError::Damaged`] if the file is; if the disk fails.
pub async fn import_store(
    data: impl AsRef<Path>,
    file: impl AsRef<Path>,
    clock: Arc<dyn Clock>,
) -> Result<Checked, StoreError> {
    let (data, file) = (data.as_ref().to_owned(), file.as_ref().to_owned());
    let work = move || -> Result<_, StoreError> {
        read(&file, |_, _, _| Ok(()))?;
        let dir = DataDir::take(&data)?;
        dir.begin_import()?;
        let filled = fill(&dir, &file);
        Ok((dir, filled))
    };
    let (dir, filled) = tokio::task::spawn_blocking(work).await.map_err(failed)??;
    let checked = match filled {
        Ok(()) => sound(&dir, clock).await,
        Err(error) => Err(error),
    };
    match checked {
        Ok(checked) => dir.end_import().map(|()| checked),
        // What cannot be removed now is still marked as unfinished.
        Err(error) => dir.undo_import().and(Err(error)),
    }
}

pub(super) fn fill(dir: &DataDir, file: &Path) -> Result<(), StoreError> {
    let (directory, events) = (dir.open_or_create(DIRECTORY)?, dir.open_or_create(EVENTS)?);
    let (mut to_directory, mut to_events) = (Rows::new(&directory), Rows::new(&events));
    read(file, |of, key, row| match of {
        DIRECTORY_ROWS => to_directory.write(key, Some(row)),
        _ => to_events.write(key, Some(row)),
    })?;
    to_directory.finish()?;
    to_events.finish()?;
    directory.start_copy(dir.path())
}

/// Reads an export to its end, which must be there.
fn read(file: &Path, mut each: impl FnMut(u8, &[u8], &[u8]) -> Result<(), StoreError>) -> Result<(), StoreError> {
    let damaged = |detail: String| StoreError::Unreadable { file: file.display().to_string(), detail };
    let from = BufReader::new(File::open(file).map_err(|error| damaged(error.to_string()))?);
    let mut frames = FrameReader::new(from, KIND).map_err(|error| damaged(error.to_string()))?;
    let (mut rows, mut fault) = (0_u64, None);
    loop {
        let payload = match frames.next().map_err(|error| damaged(error.to_string()))? {
            Frame::Whole(payload) => payload,
            Frame::End | Frame::Torn => return Err(damaged("it is cut off".to_owned())),
        };
        let (&of, payload) = payload.split_first().ok_or_else(|| damaged("a part is empty".to_owned()))?;
        match of {
            END if payload == rows.to_be_bytes() && frames.next().is_ok_and(|next| next == Frame::End) => return Ok(()),
            DIRECTORY_ROWS | EVENTS_ROWS => {}
            _ => return Err(damaged("a part is of an unknown kind, or the end is not the end".to_owned())),
        }
        let read = frames::each_row(payload, |key, row| {
            let row = row.filter(|_| is_of(of, key)).ok_or_else(|| frames::damaged("a row is not of its database"))?;
            rows += 1;
            each(of, key, row).map_err(|error| {
                fault = Some(error);
                frames::damaged("")
            })
        });
        if let Some(fault) = fault {
            return Err(fault);
        }
        read.map_err(|error| damaged(error.to_string()))?;
    }
}

/// Whether a key may be in an export: none that says something about a database itself.
fn is_of(database: u8, key: &[u8]) -> bool {
    match keys::kind(key) {
        keys::Kind::Record => true,
        keys::Kind::Head | keys::Kind::Owner(_) | keys::Kind::OfLog(..) => database == EVENTS_ROWS,
        keys::Kind::Own | keys::Kind::Unknown => false,
    }
}

/// What is in the store, which must be without a fault.
async fn sound(dir: &DataDir, clock: Arc<dyn Clock>) -> Result<Checked, StoreError> {
    let checked = check(dir, clock).await?;
    match checked.faults.first() {
        None => Ok(checked),
        Some(fault) => {
            let detail = format!("{fault} ({} faults in all)", checked.fault_count);
            Err(StoreError::Damaged { path: dir.path().display().to_string(), detail })
        }
    }
}
