use std::fs::{self, File};
use std::io;
use std::path::Path;

/// The file in a database's directory that says that damage was met in it: all of it is looked through before it is used
/// again. It takes no room but a name.
const NAME: &str = "suspect";

pub(super) fn note(database: &Path) -> io::Result<()> {
    File::create(database.join(NAME))?.sync_all()?;
    File::open(database)?.sync_all()
}

pub(super) fn is_noted(database: &Path) -> bool {
    database.join(NAME).exists()
}

pub(super) fn clear(database: &Path) -> io::Result<()> {
    match fs::remove_file(database.join(NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
