use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::database::{Database, failed};
use super::lock::DataLock;
use super::second_copy::{self, sync_parent};
use super::{DIRECTORY_CACHE_BYTES, EVENTS_CACHE_BYTES, birth, open, salvage};
use crate::clock::Clock;
use crate::records::StoreError;

/// The database of gateways and the rest.
pub(super) const DIRECTORY: &str = "directory";
/// The database of logs and what is told of them.
pub(super) const EVENTS: &str = "events";
/// There while an import is under way: what it left is no store.
const IMPORTING: &str = "import.unfinished";

/// A data directory that is ours.
pub(super) struct DataDir {
    path: PathBuf,
    lock: Arc<DataLock>,
}

impl DataDir {
    /// Makes the directory if there is none, for its owner alone.
    pub(super) fn take(path: &Path) -> Result<Self, StoreError> {
        make(path).map_err(|error| unusable(path, error))?;
        let lock = Arc::new(DataLock::take(path)?);
        let finished = salvage::finish_interrupted(path).and_then(|()| second_copy::remove_unfinished(path));
        finished.map_err(|error| unusable(path, error))?;
        Ok(Self { path: path.to_owned(), lock })
    }

    /// A directory that has a store, or what is left of one.
    pub(super) fn existing(path: &Path) -> Result<Self, StoreError> {
        let is_store = [DIRECTORY, EVENTS, second_copy::NAME].iter().any(|name| path.join(name).exists());
        if !is_store {
            let source = io::Error::new(io::ErrorKind::NotFound, "there is no store in it");
            return Err(StoreError::Unusable { path: path.display().to_string(), source });
        }
        let dir = Self::take(path)?;
        dir.refuse_unfinished()?;
        Ok(dir)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn lock(&self) -> &Arc<DataLock> {
        &self.lock
    }

    pub(super) fn database(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Opens one of the databases; never makes one in place of one that is lost.
    pub(super) fn open(&self, name: &str) -> Result<Database, StoreError> {
        let path = self.database(name);
        if !path.exists() {
            return Err(StoreError::Damaged { path: path.display().to_string(), detail: "it is missing".to_owned() });
        }
        self.open_or_create(name)
    }

    pub(super) fn open_or_create(&self, name: &str) -> Result<Database, StoreError> {
        let (path, lock) = (self.database(name), Arc::clone(&self.lock));
        if name == EVENTS {
            open::open(&path, EVENTS_CACHE_BYTES, lock)
        } else {
            open::open(&path, DIRECTORY_CACHE_BYTES, lock).map(Database::with_copy)
        }
    }

    /// Renames a file or database out of the way; it is kept.
    pub(super) fn set_aside(&self, name: &str, clock: &dyn Clock) -> Result<PathBuf, StoreError> {
        let aside = clock.now().format(".damaged-%Y%m%dT%H%M%S%3fZ");
        let aside = self.path.join(format!("{name}{aside}"));
        fs::rename(self.database(name), &aside).map_err(failed)?;
        sync_parent(&aside).map_err(failed)?;
        Ok(aside)
    }

    /// What an import left that did not finish is no store.
    pub(super) fn refuse_unfinished(&self) -> Result<(), StoreError> {
        if self.path.join(IMPORTING).exists() {
            let detail = "an import into it did not finish; run: gatecast store import".to_owned();
            return Err(StoreError::Damaged { path: self.path.display().to_string(), detail });
        }
        Ok(())
    }

    /// Begins an import into a directory that has nothing, or what an unfinished import left, which goes. What else is in
    /// there is kept, and the directory is no store as long as it is there.
    pub(super) fn begin_import(&self) -> Result<(), StoreError> {
        let marker = self.path.join(IMPORTING);
        if marker.exists() {
            self.remove_imported()?;
        }
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if name != "lock" && name != IMPORTING {
                return Err(StoreError::NotEmpty(self.path.display().to_string()));
            }
        }
        File::create(&marker).and_then(|file| file.sync_all()).and_then(|()| sync_parent(&marker)).map_err(failed)
    }

    /// From here on it is a store.
    pub(super) fn end_import(&self) -> Result<(), StoreError> {
        let marker = self.path.join(IMPORTING);
        sync_parent(&marker).and_then(|()| fs::remove_file(&marker)).and_then(|()| sync_parent(&marker)).map_err(failed)
    }

    /// Removes what the import has made, and that it was begun.
    pub(super) fn undo_import(&self) -> Result<(), StoreError> {
        self.remove_imported()?;
        self.end_import()
    }

    /// Removes what an import makes: it found nothing of these names.
    fn remove_imported(&self) -> Result<(), StoreError> {
        for database in [DIRECTORY, EVENTS].map(|name| self.database(name)) {
            gone(fs::remove_dir_all(birth::unborn(&database)))?;
            gone(fs::remove_dir_all(database))?;
        }
        gone(fs::remove_file(self.path.join(second_copy::NAME)))
    }
}

/// Hashes of tokens and artifacts are nobody else's; what others have above it may be.
fn make(path: &Path) -> io::Result<()> {
    if let Some(above) = path.parent() {
        fs::create_dir_all(above)?;
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// What was not there is gone as well.
pub(super) fn gone(removed: io::Result<()>) -> Result<(), StoreError> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

/// What becomes of an error of the directory itself: what may pass, such as a full disk, is no fault of the directory.
pub(super) fn unusable(data: &Path, source: io::Error) -> StoreError {
    match source.kind() {
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::AlreadyExists
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory => StoreError::Unusable { path: data.display().to_string(), source },
        _ => failed(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_later_start_finds_otherwise_is_the_directorys_fault() {
        let judged = |code| unusable(Path::new("data"), io::Error::from_raw_os_error(code));
        for (lasting, code) in
            [("EPERM", 1), ("EACCES", 13), ("EEXIST", 17), ("ENOTDIR", 20), ("EISDIR", 21), ("EROFS", 30)]
        {
            assert!(matches!(judged(code), StoreError::Unusable { .. }), "{lasting}");
        }
        for (passing, code) in
            [("EIO", 5), ("ENOMEM", 12), ("ENFILE", 23), ("EMFILE", 24), ("ENOSPC", 28), ("EDQUOT", 122)]
        {
            assert!(matches!(judged(code), StoreError::Io(_)), "{passing}");
        }
    }
}
