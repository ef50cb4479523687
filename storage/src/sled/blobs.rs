//! Files beside the log. sled puts a message of more than a quarter of a segment (128 KiB) into a file of its own,
//! `<database>/blobs/<number>`, and since a leaf holds up to 16 rows, rows of 8 KiB are enough for that. Entries have no such
//! rows any more ([parts](super::parts)), but records may.
//!
//! sled never syncs these files, and removes one whose message was replaced before the log that says so is synced. After
//! a loss of power the log then points at a file that is not there, and sled drops the log from there on, answered or
//! not. So each file has a second name in `<database>/kept` until the log can no longer point at it, and is given its
//! first one back when the database is opened. What comes back needlessly stays: a few files a loss of power.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::Dir;
use rustix::io::Errno;

use super::segments::Blob;

pub(super) struct Blobs {
    path: PathBuf,
    /// Looked at again and again: where no file can be opened, as with too many sockets, a sync goes on.
    directory: Dir,
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
        let (directory, kept_directory) = (Dir::new(File::open(&path)?)?, File::open(&kept)?);
        let present = names(&path)?;
        // sled has looked at all of the log, and what it removed then is no part of it.
        for name in names(&kept)?.difference(&present) {
            fs::remove_file(kept.join(name))?;
        }
        // sled gives names anew that are of after the end of its log, and it may be that end to which a loss of power takes
        // it back: a file of before must not return as one of the new names.
        rustix::fs::fsync(directory.fd()?)?;
        kept_directory.sync_all()?;
        let (synced, replaced, gone) = Default::default();
        Ok(Self { path, directory, kept, kept_directory, synced, replaced, gone })
    }

    /// Gives back to a database that is not open what its log may point at, and syncs what a process that was killed had
    /// not: sled's next snapshot says that it is there.
    pub(super) fn restore(database: &Path) -> io::Result<()> {
        let (path, kept) = (database.join(BLOBS), database.join(KEPT));
        if !kept.exists() {
            return Ok(());
        }
        let (present, kept_names) = (names(&path)?, names(&kept)?);
        for name in present.difference(&kept_names) {
            File::open(path.join(name))?.sync_all()?;
        }
        for name in kept_names.difference(&present) {
            fs::hard_link(kept.join(name), path.join(name))?;
        }
        File::open(path)?.sync_all()
    }

    /// Syncs the files of the log before this place that were not there the last time. They are never changed, and their
    /// names never reused while the database is open. Others, whose numbers are the places of their messages, may still be
    /// being written: readers write too, since sled splits a page that grew too large when anybody meets it.
    pub(super) fn sync(&mut self, log_end: u64) -> io::Result<()> {
        let mut present = HashSet::with_capacity(self.synced.len());
        let mut is_new = false;
        for name in names_again(&mut self.directory)? {
            if number(&name).is_none_or(|number| number >= log_end) {
                continue;
            }
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
            rustix::fs::fsync(self.directory.fd()?)?;
            self.kept_directory.sync_all()?;
        }
        self.gone.extend(self.synced.difference(&present).cloned());
        self.synced = present;
        Ok(())
    }

    fn keep(&self, name: &OsString) -> io::Result<()> {
        let (path, kept) = (self.path.join(name), self.kept.join(name));
        match File::open(&path) {
            // A commit that was not synced has made it, or a reader, before all descriptors were taken. There is a handle to
            // its file system: with all that is on that, it is synced as well.
            Err(error) if is_out_of_files(&error) => rustix::fs::syncfs(self.directory.fd()?)?,
            file => file?.sync_all()?,
        }
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

/// Whether a message of the log in `database` has its file, as it was written: checksum 4 (little-endian), kind 1, bytes.
pub(super) fn is_whole(database: &Path, blob: &Blob) -> io::Result<bool> {
    let bytes = match fs::read(database.join(BLOBS).join(&blob.name)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let Some((crc, rest)) = bytes.split_first_chunk::<4>() else { return Ok(false) };
    Ok(rest.first() == Some(&blob.kind) && crc32fast::hash(rest) == u32::from_le_bytes(*crc))
}

/// Takes what is there of a file away from a database that is not open.
pub(super) fn remove(database: &Path, blob: &Blob) -> io::Result<()> {
    match fs::remove_file(database.join(BLOBS).join(&blob.name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn is_out_of_files(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// The place in the log of the message that a file was first.
fn number(name: &OsStr) -> Option<u64> {
    name.to_str()?.parse().ok()
}

fn names(path: &Path) -> io::Result<HashSet<OsString>> {
    fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
}

/// The same of a directory that is open.
fn names_again(directory: &mut Dir) -> io::Result<Vec<OsString>> {
    directory.rewind();
    let mut names = Vec::new();
    for entry in directory {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Where sled has them.
const BLOBS: &str = "blobs";
/// Where their second names are.
const KEPT: &str = "kept";

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_file_that_may_still_be_being_written_is_synced_the_next_time() {
        let database = TempDir::new().unwrap();
        let blobs = database.path().join(BLOBS);
        fs::create_dir(&blobs).unwrap();
        let mut synced = Blobs::new(database.path()).unwrap();
        let kept = || names(&database.path().join(KEPT)).unwrap();
        for name in ["400", "500"] {
            File::create(blobs.join(name)).unwrap();
        }
        synced.sync(500).unwrap();
        assert_eq!(kept(), HashSet::from(["400".into()]));
        synced.sync(501).unwrap();
        assert_eq!(kept(), HashSet::from(["400".into(), "500".into()]));
    }
}
