//! Files beside the log. sled puts a message of more than a quarter of a segment (128 KiB) into a file of its own,
//! `<database>/blobs/<number>`, and since a leaf holds up to 16 rows, entries of 8 KiB are enough for that.
//!
//! sled never syncs these files, and removes one whose message was replaced before the log that says so is synced. After
//! a loss of power the log then points at a file that is not there, and sled drops the log from there on, answered or
//! not. So each file has a second name in `<database>/kept` until the log can no longer point at it, and is given its
//! first one back when the database is opened. What comes back needlessly stays: a few files a loss of power.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

pub(super) struct Blobs {
    path: PathBuf,
    directory: File,
    kept: PathBuf,
    kept_directory: File,
    synced: HashSet<OsString>,
    /// Were gone when the last sync began, so that one wrote what replaced them.
    replaced: HashSet<OsString>,
    /// Were gone when this sync began.
    gone: HashSet<OsString>,
}

impl Blobs {
    /// Of a database that is open.
    pub(super) fn new(database: &Path) -> io::Result<Self> {
        let (path, kept) = (database.join(BLOBS), database.join(KEPT));
        fs::create_dir_all(&kept)?;
        let (directory, kept_directory) = (File::open(&path)?, File::open(&kept)?);
        let present = names(&path)?;
        // sled has looked at all of the log, and what it removed then is no part of it.
        for name in names(&kept)?.difference(&present) {
            fs::remove_file(kept.join(name))?;
        }
        let (synced, replaced, gone) = Default::default();
        Ok(Self { path, directory, kept, kept_directory, synced, replaced, gone })
    }

    /// Gives back to a database that is not open what its log may point at.
    pub(super) fn restore(database: &Path) -> io::Result<()> {
        let (path, kept) = (database.join(BLOBS), database.join(KEPT));
        if !kept.exists() {
            return Ok(());
        }
        let present = names(&path)?;
        names(&kept)?.difference(&present).try_for_each(|name| fs::hard_link(kept.join(name), path.join(name)))
    }

    /// Syncs the files that were not there the last time. Blobs are never changed, and their names never reused
    /// while the database is open.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let mut present = HashSet::with_capacity(self.synced.len());
        let mut is_new = false;
        for name in names(&self.path)? {
            if !self.synced.contains(&name) {
                is_new = true;
                match self.keep(&name) {
                    // Replaced meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    done => done?,
                }
            }
            present.insert(name);
        }
        if is_new {
            self.directory.sync_all()?;
            self.kept_directory.sync_all()?;
        }
        self.gone.extend(self.synced.difference(&present).cloned());
        self.synced = present;
        Ok(())
    }

    fn keep(&self, name: &OsString) -> io::Result<()> {
        let (path, kept) = (self.path.join(name), self.kept.join(name));
        File::open(&path)?.sync_all()?;
        match fs::hard_link(&path, &kept) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if fs::metadata(&path)?.ino() == fs::metadata(&kept)?.ino() {
                    return Ok(());
                }
                // The name is that of one that a crash took.
                fs::remove_file(&kept)?;
                fs::hard_link(path, kept)
            }
            done => done,
        }
    }

    /// The log was synced after [`Blobs::sync`]. What replaced a file may have been written only after that began, so
    /// a file that was gone then is kept until the next time.
    pub(super) fn log_is_synced(&mut self) -> io::Result<()> {
        for name in std::mem::replace(&mut self.replaced, std::mem::take(&mut self.gone)) {
            match fs::remove_file(self.kept.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether a message of the log in `database` has its file.
pub(super) fn is_there(database: &Path, name: &str) -> bool {
    database.join(BLOBS).join(name).exists()
}

fn names(path: &Path) -> io::Result<HashSet<OsString>> {
    fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
}

/// Where sled has them.
const BLOBS: &str = "blobs";
/// Where their second names are.
const KEPT: &str = "kept";
