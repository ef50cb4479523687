use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// The file in a database's directory that says that damage was met in it: all of it is looked through before it is used
/// again. It takes no room but a name.
const NAME: &str = "suspect";
/// The file that says that what sled replayed was not as it was written, so that rows may lack their newest changes: they
/// are looked at before they are used. sled writes a new snapshot then, and nothing else tells the next opening. It has
/// [`PROOF`] in it if the database had been closed: otherwise a loss of power may look the same.
const DOUBT: &str = "doubtful";
/// What is not as it was written is damaged.
const PROOF: &str = "damaged";

pub(super) fn note(database: &Path) -> io::Result<()> {
    create(database, NAME, "")
}

pub(super) fn is_noted(database: &Path) -> bool {
    database.join(NAME).exists()
}

pub(super) fn clear(database: &Path) -> io::Result<()> {
    remove(database, NAME)
}

/// Of a database that had been closed, it is certain.
pub(super) fn doubt(database: &Path, is_certain: bool) -> io::Result<()> {
    if is_doubted(database) {
        return Ok(());
    }
    create(database, DOUBT, if is_certain { PROOF } else { "" })
}

pub(super) fn is_doubted(database: &Path) -> bool {
    database.join(DOUBT).exists()
}

pub(super) fn is_proved(database: &Path) -> bool {
    fs::read(database.join(DOUBT)).is_ok_and(|why| why == PROOF.as_bytes())
}

/// All rows were looked at and are as they should be.
pub(super) fn trust(database: &Path) -> io::Result<()> {
    remove(database, DOUBT)
}

fn create(database: &Path, name: &str, why: &str) -> io::Result<()> {
    let mut file = File::create(database.join(name))?;
    file.write_all(why.as_bytes())?;
    file.sync_all()?;
    File::open(database)?.sync_all()
}

fn remove(database: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(database.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
