use std::fs::{self, File};
use std::io;
use std::path::Path;

/// The file in a database's directory that says that it was closed with all of it synced, so that what its last sync says
/// of it is exact. It is gone while the database is open.
const NAME: &str = "clean";

pub(super) fn note(database: &Path) -> io::Result<()> {
    File::create(database.join(NAME)).map(drop)
}

/// Whether it was noted; it no longer is, also after a loss of power.
pub(super) fn take(database: &Path) -> io::Result<bool> {
    match fs::remove_file(database.join(NAME)) {
        Ok(()) => File::open(database)?.sync_all().map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
