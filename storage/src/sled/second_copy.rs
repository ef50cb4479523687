use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::database::{Database, Found, failed};
use super::frames::{self, Frame, FrameReader, FrameWriter, Position};
use super::keys;
use super::salvage::Rows;
use super::space::LAST_RESERVE_BYTES;
use crate::records::{Change, StoreError};

/// The file's name beside the directory's database.
pub(super) const NAME: &str = "directory.copy";
/// What the file begins with.
const KIND: [u8; 8] = *b"gcdir\0\x00\x01";
/// Changes are appended up to this many bytes, or as many as the rows had, before all rows are written anew.
const CHANGES_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// A copy that lacks no more than this is given it: no crash makes one lack more than a batch has.
const BEHIND_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The directory's second copy: `<data>/directory.copy`, [frames](FrameWriter) of rows. It begins with all rows there
/// were, then come the changes, one frame a sync, each on disk before its commit is answered. So a directory that is
/// rebuilt from it lacks nothing that was answered.
///
/// When the changes are as large as the rows, all rows are written to a new file, which takes the place of the old one
/// by a rename: the cost per change stays a constant. The database says in a row of its own ([`State`]) how far the
/// copy should go; a copy that does not is given what it lacks when the database is opened, or written anew if it cannot be
/// read. Only the latter takes much room, and is refused where there is none.
pub(super) struct SecondCopy {
    path: PathBuf,
    file: File,
    at: Position,
    /// Where the changes begin.
    base_end: u64,
    /// Of which the next frame will be.
    changes: Vec<u8>,
}

/// A frame about to be written, once the database is synced.
pub(super) struct NextFrame {
    frame: Vec<u8>,
    at: Position,
    /// The row of the database that belongs to it.
    pub(super) state: State,
}

/// How far the copy goes, as the database has it: where the last frame begins and ends, with its checksums, and where
/// the changes begin.
pub(super) type State = [u8; 32];

fn state(before: Position, after: Position, base_end: u64) -> State {
    let mut row = [0; 32];
    row[..8].copy_from_slice(&before.end.to_be_bytes());
    row[8..16].copy_from_slice(&after.end.to_be_bytes());
    row[16..20].copy_from_slice(&before.crc.to_be_bytes());
    row[20..24].copy_from_slice(&after.crc.to_be_bytes());
    row[24..].copy_from_slice(&base_end.to_be_bytes());
    row
}

impl SecondCopy {
    /// The copy of `db`. If it is not what the database says it is, it has that noted as changes, or is written anew.
    ///
    /// All that was answered is in here. So what a crash has left in the database and not in here was not answered, and
    /// goes; what sled has not replayed comes back. It is the other way round where a crash came between the two, or the
    /// copy is lost: the database says that, unless it is in doubt itself.
    pub(super) fn open(data: &Path, db: &Database) -> Result<Self, StoreError> {
        let path = data.join(NAME);
        let known = db.get(keys::COPY)?.and_then(|row| State::try_from(&*row).ok());
        let in_step = known.and_then(|known| Self::in_step(&path, known));
        let is_copied = match db.found {
            Found::AsClosed => true,
            Found::AfterCrash => in_step.is_some() && follow(&path, db)?,
            Found::Doubtful => follow(&path, db)?,
        };
        if let Some(copy) = in_step
            && is_copied
        {
            return Ok(copy);
        }
        let (copy, state) = match Self::behind(&path, db)? {
            // The next sync says so; until then the database has to say that it is not.
            Some((copy, _)) if !copy.has_all() => return Ok(copy),
            Some(copied) => copied,
            None => Self::write_all(path, db)?,
        };
        db.put(keys::COPY, &state[..])?;
        db.sync()?;
        Ok(copy)
    }

    /// The copy at `path`, of which the last write may be torn, with what it lacks noted, and how far it goes without that.
    /// `None` if it is not readable, or lacks so much that it is better written anew.
    fn behind(path: &Path, db: &Database) -> Result<Option<(Self, State)>, StoreError> {
        let Ok((mut copied, Extent { before, at, base_end })) = summed(path) else { return Ok(None) };
        let mut changes = Vec::new();
        for row in db.prefix(&[]) {
            let (key, row) = row?;
            if is_of_copy(&key) && copied.remove(&*key) != Some(crc32fast::hash(&row)) {
                frames::push_row(&mut changes, &key, Some(&row)).map_err(failed)?;
            }
            if changes.len() > BEHIND_BYTES_MAX {
                return Ok(None);
            }
        }
        copied.keys().try_for_each(|key| frames::push_row(&mut changes, key, None)).map_err(failed)?;
        // Mostly a few bytes: there is room as long as there is any.
        if db.room()? < changes.len() as u64 {
            return Err(StoreError::Full);
        }
        let file = File::options().read(true).write(true).open(path).map_err(failed)?;
        file.set_len(at.end).map_err(failed)?;
        Ok(Some((Self { path: path.to_owned(), file, at, base_end, changes }, state(before, at, base_end))))
    }

    /// `None` if it is not there, or its last frame is not the one that the database had last.
    fn in_step(path: &Path, known: State) -> Option<Self> {
        let number = |at: usize| Some(u64::from_be_bytes(known.get(at..at + 8)?.try_into().ok()?));
        let (start, end, crcs, base_end) = (number(0)?, number(8)?, number(16)?, number(24)?);
        let [before, after] = [crcs >> 32, crcs & 0xffff_ffff].map(|crc| u32::try_from(crc).unwrap_or_default());
        let mut file = File::options().read(true).write(true).open(path).ok()?;
        let len = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(start)).ok()?;
        let mut frame = Vec::new();
        Read::take(&mut file, end.checked_sub(start)?).read_to_end(&mut frame).ok()?;
        let payload = frame.get(frames::HEAD_BYTES..)?;
        let (again, at) = Position { end: start, crc: before }.frame(payload).ok()?;
        let is_same = again == frame && at == Position { end, crc: after } && len == end;
        is_same.then(|| Self { path: path.to_owned(), file, at, base_end, changes: Vec::new() })
    }

    /// Writes all rows of `db` to a new file in place of the old one; what was begun goes if there is no room.
    fn write_all(path: PathBuf, db: &Database) -> Result<(Self, State), StoreError> {
        let fresh = fresh(&path);
        let written = Self::write_rows(&fresh, db).inspect_err(|_| drop(fs::remove_file(&fresh)));
        let (file, before, at) = written?;
        fs::rename(&fresh, &path).and_then(|()| sync_parent(&path)).map_err(failed)?;
        Ok((Self { path, file, at, base_end: at.end, changes: Vec::new() }, state(before, at, at.end)))
    }

    /// Where the last frame begins and ends, of a file that is on disk.
    fn write_rows(fresh: &Path, db: &Database) -> Result<(File, Position, Position), StoreError> {
        let file = File::options().create(true).truncate(true).read(true).write(true).open(fresh).map_err(failed)?;
        let mut rows = FrameWriter::new(BufWriter::new(file), KIND).map_err(failed)?;
        let mut payload = Vec::new();
        // A start is refused only if it has to be, so this may take of what is left alone.
        let mut write = |payload: &[u8]| {
            let is_full = db.room()? <= LAST_RESERVE_BYTES.saturating_add(payload.len() as u64);
            if is_full { Err(StoreError::Full) } else { rows.write(payload).map_err(failed) }
        };
        for row in db.prefix(&[]) {
            let (key, row) = row?;
            if is_of_copy(&key) {
                frames::push_row(&mut payload, &key, Some(&row)).map_err(failed)?;
            }
            if payload.len() >= frames::PAYLOAD_BYTES {
                write(&payload)?;
                payload.clear();
            }
        }
        write(&payload)?;
        let end = || -> io::Result<_> {
            let (mut file, before) = rows.finish()?;
            // An empty frame says that the rows are complete.
            let (end, at) = before.frame(&[])?;
            file.write_all(&end)?;
            let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()?;
            Ok((file, before, at))
        };
        end().map_err(failed)
    }

    /// Whether all that was noted is in it.
    pub(super) fn has_all(&self) -> bool {
        self.changes.is_empty()
    }

    /// Notes changes that are being committed.
    pub(super) fn note(&mut self, changes: &[Change]) -> io::Result<()> {
        changes.iter().try_for_each(|Change { table, key, row }| {
            frames::push_row(&mut self.changes, &keys::record(*table, key), row.as_deref())
        })
    }

    /// The frame of what was noted, if anything was.
    pub(super) fn next_frame(&mut self) -> io::Result<Option<NextFrame>> {
        if self.changes.is_empty() {
            return Ok(None);
        }
        let (frame, at) = self.at.frame(&self.changes)?;
        self.changes.clear();
        Ok(Some(NextFrame { frame, at, state: state(self.at, at, self.base_end) }))
    }

    /// Writes a frame durably; afterwards the file may be written anew, of which the new state is returned.
    pub(super) fn append(&mut self, next: NextFrame, db: &Database) -> Result<Option<State>, StoreError> {
        let mut written = || {
            self.file.seek(SeekFrom::Start(self.at.end))?;
            self.file.write_all(&next.frame)?;
            self.file.sync_data()
        };
        written().map_err(failed)?;
        self.at = next.at;
        let changes = self.at.end - self.base_end;
        // Both files are there for a moment; without room for that, changes go on being appended.
        let is_long = changes >= self.base_end.max(CHANGES_BYTES_MIN);
        if !is_long || !db.has_room_for(self.at.end)? || !db.may_open_files() {
            return Ok(None);
        }
        match Self::write_all(self.path.clone(), db) {
            Ok((copy, state)) => {
                *self = copy;
                Ok(Some(state))
            }
            // Others have taken it meanwhile.
            Err(StoreError::Full) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What the copy at `path` is called while all rows are written anew.
pub(super) fn fresh(path: &Path) -> PathBuf {
    path.with_extension("copy-new")
}

/// Removes what a kill has left of a copy that was being written, as long as sled has no use for the room.
pub(super) fn remove_unfinished(data: &Path) -> io::Result<()> {
    match fs::remove_file(fresh(&data.join(NAME))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes the records of `db` those that the copy at `path` leads to; `false` if that is not readable.
fn follow(path: &Path, db: &Database) -> Result<bool, StoreError> {
    let Ok(mut wanted) = rows(path) else { return Ok(false) };
    let mut surplus = Vec::new();
    for row in db.prefix(&[]) {
        let (key, row) = row?;
        match wanted.get(&*key) {
            Some(sum) if *sum == crc32fast::hash(&row) => drop(wanted.remove(&*key)),
            None if is_of_copy(&key) => surplus.push(key),
            _ => {}
        }
    }
    if wanted.is_empty() && surplus.is_empty() {
        return Ok(true);
    }
    tracing::warn!(
        missing = wanted.len(),
        surplus = surplus.len(),
        "A crash has left the directory other than its second copy, which has all that was answered; it follows that."
    );
    let mut to = Rows::new(db);
    surplus.iter().try_for_each(|key| to.write(key, None))?;
    let write = |key: &[u8], row: Option<&[u8]>| {
        if wanted.contains_key(key) { to.write(key, row).map_err(io::Error::other) } else { Ok(()) }
    };
    read(path, write).map_err(failed)?;
    to.finish()?;
    Ok(true)
}

/// Keys, and checksums of their rows.
pub(super) type Sums = BTreeMap<Vec<u8>, u32>;

/// What rows the copy at `path` leads to.
///
/// # Errors
/// As [`read`].
pub(super) fn rows(path: &Path) -> io::Result<Sums> {
    summed(path).map(|(rows, _)| rows)
}

fn summed(path: &Path) -> io::Result<(Sums, Extent)> {
    let mut rows = Sums::new();
    let extent = read(path, |key, row| {
        match row {
            Some(row) => rows.insert(key.to_vec(), crc32fast::hash(row)),
            None => rows.remove(key),
        };
        Ok(())
    })?;
    Ok((rows, extent))
}

/// Whether a row of the database is to be in the copy: all but those that are about the database itself.
fn is_of_copy(key: &[u8]) -> bool {
    key.first().is_some_and(u8::is_ascii_lowercase)
}

/// How far a copy goes.
pub(super) struct Extent {
    /// Where the last frame begins.
    before: Position,
    /// Where it ends.
    at: Position,
    /// Where the changes begin.
    base_end: u64,
}

/// Reads the rows and changes of the copy at `path` in order. A frame that the last write left torn was not answered.
///
/// # Errors
/// `InvalidData` if it is damaged, or its rows were not all written.
pub(super) fn read(path: &Path, mut each: impl FnMut(&[u8], Option<&[u8]>) -> io::Result<()>) -> io::Result<Extent> {
    let mut frames = FrameReader::new(BufReader::new(File::open(path)?), KIND)?;
    let (mut before, mut at, mut base_end) = (frames.at(), frames.at(), None);
    while let Frame::Whole(payload) = frames.next()? {
        (before, at) = (at, frames.at());
        if payload.is_empty() {
            base_end.get_or_insert(at.end);
        }
        frames::each_row(&payload, &mut each)?;
    }
    let base_end = base_end.ok_or_else(|| frames::damaged("its rows are not complete"))?;
    Ok(Extent { before, at, base_end })
}

/// A file name survives power loss only when its directory is synced.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}
