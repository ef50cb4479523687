use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::segments;

/// The file in a database's directory that says that it was closed with all of it synced, so that what its last sync says
/// of it is exact. It is gone while the database is open. In it, 4 bytes, big-endian, is what the segments of the log were
/// then ([`segments::fingerprint`]): sled finds nothing wrong with a segment that is gone, or is one of before.
const NAME: &str = "clean";

/// How a database ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Nobody knows: the process ended, or power was lost.
    Open,
    /// Closed, and how its segments were then; `None` if that was not written down, as before there was this.
    Closed { segments: Option<u32> },
}

fn note(database: &Path) -> io::Result<()> {
    let segments = segments::fingerprint(&File::open(database.join(segments::NAME))?)?;
    fs::write(database.join(NAME), segments.to_be_bytes())
}

/// How it ended; it is no longer said, also after a loss of power.
pub(super) fn take(database: &Path) -> io::Result<End> {
    let path = database.join(NAME);
    let segments = match fs::read(&path) {
        Ok(bytes) => bytes.try_into().ok().map(u32::from_be_bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(End::Open),
        Err(error) => return Err(error),
    };
    fs::remove_file(path)?;
    File::open(database)?.sync_all()?;
    Ok(End::Closed { segments })
}

/// Notes the end of a database when it is dropped, which has to be after its tree: closing that writes.
pub(super) struct NoteAtEnd {
    database: PathBuf,
    /// Whether what the last sync says is exact.
    pub(super) is_exact: bool,
}

impl NoteAtEnd {
    pub(super) fn new(database: &Path) -> Self {
        Self { database: database.to_owned(), is_exact: false }
    }
}

impl Drop for NoteAtEnd {
    fn drop(&mut self) {
        // Without it the next opening takes longer.
        if self.is_exact
            && let Err(error) = note(&self.database)
        {
            tracing::debug!(%error, "The store could not be marked as closed.");
        }
    }
}
