use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How many syncs a database has had, in a file of its own: `<database>/mark`, 8 bytes, big-endian.
///
/// sled opens a file that lacks its end, or of which it understands nothing, as a database with fewer or no rows. The
/// number is also a row, written before each sync; the mark is written after it. So the row is at least the mark, also
/// after kill -9 and power loss (the mark itself is never synced), and a database with less has lost answered writes.
pub(super) struct Mark {
    file: File,
    syncs: u64,
}

impl Mark {
    /// `None` if there was no database yet.
    pub(super) fn read(database: &Path) -> io::Result<Option<u64>> {
        let mut file = match File::open(database.join(NAME)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut syncs = [0; 8];
        // Shorter only if the process ended between creating and writing it.
        Ok(Some(file.read_exact(&mut syncs).map_or(0, |()| u64::from_be_bytes(syncs))))
    }

    pub(super) fn open(database: &Path, syncs: u64) -> io::Result<Self> {
        let options = &mut File::options();
        let file = options.create(true).truncate(false).write(true).open(database.join(NAME))?;
        Ok(Self { file, syncs })
    }

    /// The number of the last sync.
    pub(super) fn last(&self) -> u64 {
        self.syncs
    }

    /// The number of the sync that comes next.
    pub(super) fn next(&mut self) -> u64 {
        self.syncs += 1;
        self.syncs
    }

    /// The sync was done.
    pub(super) fn done(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.syncs.to_be_bytes(), 0)
    }
}

/// The file's name.
const NAME: &str = "mark";
